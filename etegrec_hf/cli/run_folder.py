"""The folder of a training run, and what its command reads."""

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel, TrainingArguments

from ..data.folders import check_output_dir
from ..data.prepared import PreparedDataset
from ..training.checkpoints import check_files, last_checkpoint


def checkpoint_of(training: TrainingArguments, resume: bool) -> str | None:
    """The checkpoint to go on from: the newest with `resume`, else `resume_from_checkpoint`.

    Raises:
        FileExistsError: a new run, whose output folder holds another one.
        FileNotFoundError: nothing to resume.
    """
    if resume:
        return last_checkpoint(training.output_dir)
    if training.resume_from_checkpoint:
        return training.resume_from_checkpoint
    check_output_dir(training.output_dir, "choose another folder, remove it, or pass --resume true")
    return None


def load_model(cls: type[PreTrainedModel], folder: str):
    """Loads a model in eval mode, onto the GPU if there is one, and explains a folder that is none or is damaged.

    Raises:
        FileNotFoundError: no such folder, or no model in it.
        ValueError: truncated files, or a model of another kind.
    """
    if not (Path(folder) / "config.json").exists():
        raise FileNotFoundError(
            f"{folder!r} holds no model (no config.json); give the output folder of a finished stage."
        )
    check_files(folder)
    found = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get("model_type")
    if found != cls.config_class.model_type:
        raise ValueError(f"{folder!r} holds a model of type {found!r}; expected {cls.config_class.model_type!r}.")
    return cls.from_pretrained(folder).eval().to("cuda" if torch.cuda.is_available() else "cpu")


def load_with_embeddings(folder: str) -> tuple[PreparedDataset, torch.FloatTensor]:
    """A prepared dataset, and its embeddings `[n_items, width]`.

    Raises:
        ValueError: it has none.
    """
    data = PreparedDataset.load(folder)
    if data.embeddings is None:
        raise ValueError(f"{folder} holds no `embedding`; prepare it again with --embedding.")
    return data, torch.from_numpy(data.embeddings)
