"""Arguments that training commands share, and what they print of a run."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..data.prepared import PreparedDataset
from ..hub.model_folder import local_folder
from ..hub.report import FILE
from ..hub.training_record import TrainingRecord
from ..training.base.trainer import BaseTrainer

# Options that help of training commands shows first, after the inputs of the training
FIRST_OF_A_RUN = (
    *("output_dir", "config", "num_train_epochs", "learning_rate", "per_device_train_batch_size", "resume"),
    *("seed", "bf16", "use_cpu"),
)


@dataclass(kw_only=True)
class RunArguments:
    """Options of a run's output folder."""

    help_group: ClassVar[str] = "training"

    resume: bool = field(default=False, metadata={"help": "Resume from the newest checkpoint in the output folder."})


@dataclass(kw_only=True)
class RecommenderRunArguments(RunArguments):
    """Options of a recommender's training about the data that it reads."""

    stream: bool = field(
        default=False,
        metadata={"help": "Read training sequences when they are needed, instead of holding them in memory."},
    )
    eval_samples: int | None = field(default=None, metadata={"help": "How many validation users to evaluate on."})


def note_other_embedding(tokenizer: str, data: PreparedDataset) -> None:
    """Prints a note if the item tokenizer was trained on other embeddings than those of the dataset."""
    trained_on = TrainingRecord.read(local_folder(tokenizer)).data.get("embedding")
    embedding = data.statistics.get("embedding")
    if trained_on is not None and trained_on != embedding:
        print(
            f"note: the item tokenizer in {tokenizer!r} was trained on {trained_on}, but this dataset holds "
            f"{embedding}",
            file=sys.stderr,
        )


def print_report(trainer: BaseTrainer) -> None:
    """Prints the path of a run's report, in one process only."""
    if trainer.is_world_process_zero():
        print(f"report: {Path(trainer.args.output_dir, FILE)}")
