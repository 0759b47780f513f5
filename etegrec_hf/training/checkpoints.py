"""Checkpoints that are complete or absent, and errors that say what to do about a broken one."""

import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints

STAGING = ".incomplete"


@contextmanager
def explained(folder: str | Path) -> Iterator[None]:
    """Turns what a damaged file in `folder` raises into a `ValueError` with the remedy."""
    try:
        yield
    except (SafetensorError, EOFError, pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(
            f"checkpoint {str(folder)!r} is truncated or damaged ({type(error).__name__}: {error}); "
            "remove that folder to go on from the one before, or copy it again."
        ) from error


def last_checkpoint(output_dir: str | Path) -> str:
    """The newest checkpoint of a run.

    Raises:
        FileNotFoundError: there is none to resume from.
    """
    found = get_last_checkpoint(str(output_dir)) if Path(output_dir).is_dir() else None
    if found is None:
        raise FileNotFoundError(
            f"`output_dir` {str(output_dir)!r} holds no checkpoint to resume; run without --resume."
        )
    return found


class SafeCheckpoints(Trainer):
    """A Trainer whose checkpoints and models appear in `output_dir` only when every file is written.

    Overrides `_save_checkpoint` and `save_model` to write beside and move, and the loading methods to explain damaged
    files. A killed run leaves at most a folder `.incomplete`, which nothing reads.
    """

    _staging: str | None = None

    def _get_output_dir(self, trial) -> str:
        return self._staging or super()._get_output_dir(trial)

    def _save_checkpoint(self, model, trial) -> None:
        run_dir = super()._get_output_dir(trial)
        staging = os.path.join(run_dir, STAGING)
        name = f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self._staging = staging
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._staging = None
        if not self.args.should_save:
            return
        if self.state.best_model_checkpoint == os.path.join(staging, name):
            self.state.best_model_checkpoint = os.path.join(run_dir, name)
            self.state.save_to_json(os.path.join(staging, name, "trainer_state.json"))
        shutil.rmtree(os.path.join(run_dir, name), ignore_errors=True)
        os.replace(os.path.join(staging, name), os.path.join(run_dir, name))
        shutil.rmtree(staging, ignore_errors=True)
        rotate_checkpoints(
            output_dir=run_dir,
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model for `from_pretrained`; `config.json`, without which nothing loads, is moved in last."""
        if _internal_call:
            super().save_model(output_dir, _internal_call=True)
            return
        target = output_dir or self.args.output_dir
        staging = os.path.join(target, STAGING)
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        super().save_model(staging)
        if self.args.should_save:
            for name in sorted(os.listdir(staging), key=lambda name: name == "config.json"):
                os.replace(os.path.join(staging, name), os.path.join(target, name))
            os.rmdir(staging)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        with explained(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with explained(checkpoint or ""):
            super()._load_optimizer_and_scheduler(checkpoint)
