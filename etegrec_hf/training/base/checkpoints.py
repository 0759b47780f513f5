"""A run's folder and its checkpoints: checks before writing, moving them into place, and finding the newest."""

import os
import shutil
from pathlib import Path

from transformers import PreTrainedConfig, TrainerState, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints
from transformers.utils import logging

from ...data.folders import check_output_dir
from ...hub.model_folder import MODEL_FILES, check_files

logger = logging.get_logger(__name__)

DEFAULT_OUTPUT_DIR = TrainingArguments().output_dir  # the folder of transformers if none is named
STAGING = ".incomplete"
# Files without which a checkpoint can't be resumed; besides, there is a file of random numbers per process
RESUMABLE = (*MODEL_FILES, "optimizer.pt", "scheduler.pt", "trainer_state.json")

# Trainer turns the cache off, and saved configurations have it on; search settings may be chosen at any time
NOT_SIZES = ("use_cache", "search_settings")


def check_same_sizes(ours: PreTrainedConfig, theirs: PreTrainedConfig, folder: str | Path) -> None:
    """Raises a `ValueError` if a model's configuration `ours` differs from `theirs`, of the checkpoint in `folder`."""
    for name in type(ours).__annotations__:
        if name in NOT_SIZES:
            continue
        own, saved = getattr(ours, name), getattr(theirs, name)
        if isinstance(own, PreTrainedConfig):
            check_same_sizes(own, saved, folder)
        elif own != saved:
            raise ValueError(
                f"`{name}` is {own}, but {saved} in the checkpoint {str(folder)!r}; repeat the arguments of that run "
                "to resume it, or start a new run."
            )


def last_checkpoint(output_dir: str | Path) -> str:
    """Returns the newest complete checkpoint of a run; a warning names each damaged one that is skipped.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: every checkpoint is damaged.
    """
    folders = (folder for folder in Path(output_dir).glob("checkpoint-*") if folder.name[11:].isdecimal())
    checkpoints = sorted(folders, key=lambda folder: int(folder.name[11:]))
    if not checkpoints:
        raise FileNotFoundError(
            f"`output_dir` {str(output_dir)!r} holds no checkpoint to resume; run without --resume."
        )
    for folder in reversed(checkpoints[1:]):
        try:
            check_files(folder, RESUMABLE)
            return str(folder)
        except (FileNotFoundError, ValueError) as error:
            logger.warning(f"{error} Resuming from the checkpoint before.")
    check_files(checkpoints[0], RESUMABLE)
    return str(checkpoints[0])


def move_checkpoint(staging: str, run_dir: str, name: str, state: TrainerState, limit: int | None) -> None:
    """Moves the checkpoint `name` from `staging` into a run's folder, and removes the oldest ones beyond `limit`."""
    shutil.rmtree(os.path.join(run_dir, name), ignore_errors=True)
    state.save_to_json(os.path.join(staging, name, "trainer_state.json"))
    os.replace(os.path.join(staging, name), os.path.join(run_dir, name))
    shutil.rmtree(staging, ignore_errors=True)
    rotate_checkpoints(output_dir=run_dir, save_total_limit=limit, best_model_checkpoint=state.best_model_checkpoint)


def move_model(staging: str, folder: str) -> None:
    """Moves a model's files from the folder `staging` into `folder`, `config.json` last."""
    for name in sorted(os.listdir(staging), key=lambda name: name == "config.json"):
        os.replace(os.path.join(staging, name), os.path.join(folder, name))
    os.rmdir(staging)


def check_run_folder(args: TrainingArguments, resume: bool) -> None:
    """Checks that a run may write into its output folder.

    Args:
        args (`TrainingArguments`): arguments of the run. With `resume`, `args.resume_from_checkpoint` is set to the
            newest checkpoint.
        resume (`bool`): whether to go on with the run in the folder.

    Raises:
        ValueError: no output folder is named.
        FileExistsError: the run is new, but the folder holds another run.
        FileNotFoundError: there is no checkpoint to resume.
    """
    if args.output_dir == DEFAULT_OUTPUT_DIR:
        raise ValueError("`output_dir` isn't given; name a new folder with --output-dir.")
    if resume:
        args.resume_from_checkpoint = last_checkpoint(args.output_dir)
    elif not args.resume_from_checkpoint:
        check_output_dir(args.output_dir, "choose another folder, remove it, or pass --resume true")
