"""Training arguments of the item tokenizer and of the recommender."""

from dataclasses import dataclass, field
from typing import ClassVar

from transformers import TrainingArguments

from ...evaluation.metrics import KS
from .refusals import REFUSED_FIELDS, REFUSED_WITH_RANKING, refuse_fields

MAX_SECONDS_HELP = "Training ends after so many seconds, evaluations included; by default it takes what it takes."


@dataclass
class RankedTrainingArguments(TrainingArguments):
    """What trainings have in common that are judged by ranked items, each epoch; the best of them stays.

    Args:
        early_stopping_patience (`int`, *optional*): evaluations without a better `metric_for_best_model` before
            stopping; 0 is the same as none: it never stops early.
        max_seconds (`float`, *optional*): of training, in which evaluations count. It ends there, with an evaluation
            and a checkpoint; alternating training at the next step that trains the recommender.

    Raises:
        ValueError: nothing to train, no time for it, or early stopping without evaluation.
        ValueError: a field of transformers' that would change nothing, see [docs/training.md](../training.md).
    """

    help_group: ClassVar[str] = "training"

    logging_strategy: str = "epoch"
    logging_nan_inf_filter: bool = False  # training stops there
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    save_total_limit: int | None = 1
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = "ndcg@10"
    greater_is_better: bool | None = True
    remove_unused_columns: bool = False
    dataloader_pin_memory: bool = False
    restore_callback_states_from_checkpoint: bool = True
    hub_strategy: str = "end"
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Evaluations without a better score before training stops; 0: it never does."}
    )
    max_seconds: float | None = field(default=None, metadata={"help": MAX_SECONDS_HELP})

    def __post_init__(self):
        check_length(self.num_train_epochs, self.max_steps, self.max_seconds)
        refuse_fields(self, REFUSED_FIELDS | REFUSED_WITH_RANKING)
        super().__post_init__()
        self.early_stopping_patience = check_patience(self.early_stopping_patience, self.eval_strategy)


def order_seed(args: TrainingArguments) -> int:
    """Returns the seed of the order in which samples are read: `data_seed`, or `seed` where that isn't given."""
    return args.seed if args.data_seed is None else args.data_seed


def check_length(num_train_epochs: float, max_steps: int, max_seconds: float | None) -> None:
    """Raises a `ValueError` if neither of the first two asks for any training, or the last leaves no time for it."""
    if max_seconds is not None and max_seconds <= 0:
        raise ValueError(f"`max_seconds` is {max_seconds}; give a number above 0, or leave it out.")
    if num_train_epochs <= 0 and max_steps <= 0:
        raise ValueError(f"`num_train_epochs` is {num_train_epochs}; nothing would be trained: give more than 0.")


def check_patience(patience: int | None, eval_strategy: str) -> int | None:
    """The patience of early stopping, with `None` for 0.

    Raises:
        ValueError: early stopping without evaluation.
    """
    if patience and eval_strategy == "no":
        raise ValueError(
            f"`early_stopping_patience` is {patience} and `eval_strategy` 'no'; evaluate by 'epoch' or 'steps', or "
            "set the patience to 0."
        )
    return patience or None


def check_ranked_metric(metric: str | None, num_beams: int) -> None:
    """Raises a `ValueError` for a `metric_for_best_model` that isn't measured, or not by so narrow a beam.

    A metric of one of several evaluation datasets has the dataset's name before it, like `cold_ndcg@10`.
    """
    measured = (metric or "ndcg@1").removeprefix("eval_").rpartition("_")[2]
    name, _, listed = measured.rpartition("@")
    if name not in ("recall", "ndcg") or listed not in map(str, KS):
        raise ValueError(
            f"`metric_for_best_model` is {metric!r}; choose recall or ndcg at one of {KS}, like 'ndcg@10'."
        )
    if num_beams < int(listed):
        raise ValueError(
            f"`num_beams` is {num_beams} and `metric_for_best_model` {metric!r}: a beam finds no more items than it "
            f"is wide; evaluate with {listed} beams or more."
        )
