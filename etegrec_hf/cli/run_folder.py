"""The folder of a training run, and models loaded from folders."""

from pathlib import Path

from transformers import PreTrainedModel

from ..data.folders import check_output_dir
from ..training.checkpoints import explained


def run_folder(output_dir: str, resume: bool) -> Path:
    """The output folder: new for a new run; with `resume` one that holds a run."""
    if resume:
        return Path(output_dir)
    return check_output_dir(output_dir, "choose another folder, remove it, or pass --resume")


def load_model(cls: type[PreTrainedModel], folder: str):
    """Loads a model and explains a folder that is none or is damaged.

    Raises:
        FileNotFoundError: no such folder, or no model in it.
        ValueError: truncated weights.
    """
    if not (Path(folder) / "config.json").exists():
        raise FileNotFoundError(
            f"{folder!r} holds no model (no config.json); give the output folder of a finished stage."
        )
    with explained(folder):
        return cls.from_pretrained(folder).eval()
