"""Checkpoints that are complete or absent, and errors that say what to do about a broken one."""

import os
import shutil
from pathlib import Path

from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, PreTrainedConfig, ProgressCallback
from transformers.trainer_utils import HubStrategy, rotate_checkpoints
from transformers.utils import logging

from ...hub.model_folder import MODEL_FILES, check_files
from .callbacks import TerminationCallback
from .finite_loss import FiniteLoss
from .progress import TrainingProgressCallback

logger = logging.get_logger(__name__)

STAGING = ".incomplete"
RESUMABLE = (*MODEL_FILES, "optimizer.pt", "scheduler.pt", "trainer_state.json")  # and random numbers of each process


def check_same_sizes(ours: PreTrainedConfig, theirs: PreTrainedConfig, folder: str | Path) -> None:
    """Raises a `ValueError` if a model's configuration differs from `theirs`, that of the checkpoint in `folder`."""
    for name in type(ours).__annotations__:
        own, saved = getattr(ours, name), getattr(theirs, name)
        if isinstance(own, PreTrainedConfig):
            check_same_sizes(own, saved, folder)
        elif own != saved:
            raise ValueError(
                f"`{name}` is {own} and in the checkpoint {str(folder)!r} it is {saved}; repeat the arguments of that "
                "run to resume it, or start a new one."
            )


def last_checkpoint(output_dir: str | Path) -> str:
    """The newest checkpoint of a run that is whole; a warning names those that aren't.

    Raises:
        FileNotFoundError: there is none to resume from.
        ValueError: every one is damaged.
    """
    found = sorted(Path(output_dir).glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))
    if not found:
        raise FileNotFoundError(
            f"`output_dir` {str(output_dir)!r} holds no checkpoint to resume; run without --resume."
        )
    for folder in reversed(found[1:]):
        try:
            check_files(folder, RESUMABLE)
            return str(folder)
        except (FileNotFoundError, ValueError) as error:
            logger.warning(f"{error} Going on from the checkpoint before.")
    check_files(found[0], RESUMABLE)
    return str(found[0])


class SafeCheckpoints(FiniteLoss):
    """A Trainer whose checkpoints and models appear in `output_dir` only when every file is written.

    Overrides `_save_checkpoint` and `save_model` to write beside and move, and what loads a checkpoint to look first
    whether it is whole, of this model, and where its run folder stands now. A killed run leaves at most a folder
    `.incomplete`, which nothing reads.
    """

    _staging: str | None = None
    stage = "training"
    unit = "samples"  # what `samples_an_epoch` counts

    def __init__(self, model, args, **kwargs):
        if args.push_to_hub and args.hub_strategy != HubStrategy.END:
            raise ValueError(
                f"`hub_strategy` is {args.hub_strategy.value!r}, which publishes parts of a model during training; "
                "choose 'end', and the whole model is pushed when it is saved."
            )
        super().__init__(model=model, args=args, **kwargs)
        self.add_callback(TerminationCallback(self))
        if self.pop_callback(ProgressCallback) is not None:  # none with `disable_tqdm`, another one in a notebook
            self.add_callback(TrainingProgressCallback(self))

    @property
    def progress_title(self) -> str:
        """What is being trained, for whoever looks on."""
        return self.stage

    def samples_an_epoch(self) -> int:
        """Samples that all processes read in an epoch."""
        return len(self.train_dataset)

    def _get_output_dir(self, trial) -> str:
        return self._staging or super()._get_output_dir(trial)

    def _save_checkpoint(self, model, trial) -> None:
        run_dir = super()._get_output_dir(trial)
        staging = os.path.join(run_dir, STAGING)
        name = f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._staging = staging
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, SafetensorError, RuntimeError) as error:  # each writer's own way of saying so
            shutil.rmtree(staging, ignore_errors=True)
            raise OSError(
                f"the checkpoint of step {self.state.global_step} can't be written to {run_dir!r}: {error}. Earlier "
                "ones are as they were: make room, and go on with --resume true."
            ) from error
        finally:
            self._staging = None
        self._locate_best_checkpoint(just_saved=name)
        self.accelerator.wait_for_everyone()  # each process writes the state of its random numbers
        if self.args.should_save:
            self._move_checkpoint(staging, run_dir, name)
        self.accelerator.wait_for_everyone()

    def _move_checkpoint(self, staging: str, run_dir: str, name: str) -> None:
        shutil.rmtree(os.path.join(run_dir, name), ignore_errors=True)
        self.state.save_to_json(os.path.join(staging, name, "trainer_state.json"))
        os.replace(os.path.join(staging, name), os.path.join(run_dir, name))
        shutil.rmtree(staging, ignore_errors=True)
        rotate_checkpoints(
            output_dir=run_dir,
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
        )

    def _locate_best_checkpoint(self, just_saved: str | None = None) -> None:
        """Points the state to the best checkpoint in this run's folder, which may have been moved since."""
        name = f"checkpoint-{self.state.best_global_step}"
        folder = os.path.join(self.args.output_dir, name)
        if self.state.best_global_step is not None and (name == just_saved or os.path.isdir(folder)):
            self.state.best_model_checkpoint = folder

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model for `from_pretrained`; `config.json`, without which nothing loads, is moved in last."""
        if _internal_call and output_dir is not None:  # a checkpoint, which is written beside already
            super().save_model(output_dir, _internal_call=True)
            return
        target = output_dir or self.args.output_dir
        staging = os.path.join(target, STAGING)
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        super().save_model(staging, _internal_call=True)
        if self.args.should_save:
            for name in sorted(os.listdir(staging), key=lambda name: name == "config.json"):
                os.replace(os.path.join(staging, name), os.path.join(target, name))
            os.rmdir(staging)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        # a pickle, which nobody should have to trust, and which resuming doesn't need
        os.remove(os.path.join(output_dir or self.args.output_dir, "training_args.bin"))

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Trains, from a checkpoint if one is given (`True`: the newest in `output_dir`).

        Raises:
            FileNotFoundError: there is none, or a file of it is missing.
            ValueError: it is damaged, or of another model or run.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(self.args.output_dir)
        if resume_from_checkpoint:
            self.check_checkpoint(str(resume_from_checkpoint))
            rank = f"_{self.args.process_index}" if self.args.world_size > 1 else ""
            check_files(resume_from_checkpoint, (f"rng_state{rank}.pth",))
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        finally:
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, TerminationCallback | TrainingProgressCallback):
                    callback.close()

    def check_checkpoint(self, folder: str) -> None:
        """Looks whether a run of this model can go on from a checkpoint.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged, or the model has other sizes.
        """
        check_files(folder, RESUMABLE)
        check_same_sizes(self.model.config, type(self.model.config).from_pretrained(folder), folder)

    def _init_training_state(self, *args, **kwargs) -> tuple[int, int]:
        position = super()._init_training_state(*args, **kwargs)
        self._locate_best_checkpoint()
        return position

    def _load_callback_state(self) -> None:
        """Restores the callbacks of a checkpoint, but with the patience that this run asks for."""
        super()._load_callback_state()
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback):
                callback.early_stopping_patience = self.args.early_stopping_patience

    def _load_best_model(self) -> None:
        check_files(self.state.best_model_checkpoint)
        super()._load_best_model()
