"""Training arguments of the item tokenizer and of the recommender."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from transformers import TrainingArguments

from ...evaluation.metrics import KS
from .refusals import REFUSED_FIELDS, REFUSED_WITH_RANKING, refuse_fields

MAX_SECONDS_HELP = "Training ends after this many seconds, evaluations included; without it, there is no time limit."


@dataclass
class RankedTrainingArguments(TrainingArguments):
    """Arguments of trainings that rank items after each epoch, and keep the best epoch's weights.

    Args:
        early_stopping_patience (`int`, *optional*): evaluations without a better `metric_for_best_model` before
            training stops. With 0 or `None`, training never stops early.
        max_seconds (`float`, *optional*): time limit of training, evaluations included. Training then ends with an
            evaluation and a checkpoint. Alternating training ends at the next step that trains the recommender.

    Raises:
        ValueError: nothing would be trained, or the time limit isn't above 0.
        ValueError: early stopping is asked for without evaluation.
        ValueError: a field of transformers would change nothing, see [docs/training.md](../training.md).
    """

    help_group: ClassVar[str] = "training"

    logging_strategy: str = "epoch"
    logging_nan_inf_filter: bool = False  # training stops at NaN and infinity
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
        default=None, metadata={"help": "Evaluations without a better score before training stops; 0 for never."}
    )
    max_seconds: float | None = field(default=None, metadata={"help": MAX_SECONDS_HELP})

    def __post_init__(self):
        check_length(self.num_train_epochs, self.max_steps, self.max_seconds)
        refuse_fields(self, REFUSED_FIELDS | REFUSED_WITH_RANKING)
        super().__post_init__()
        self.early_stopping_patience = check_patience(self.early_stopping_patience, self.eval_strategy)


def order_seed(args: TrainingArguments) -> int:
    """Returns the random seed of the order in which samples are read: `data_seed`, or else `seed`."""
    return args.seed if args.data_seed is None else args.data_seed


def seed_after(seed: int, trainings: int) -> int:
    """Returns the random seed of a training that others of the same seed came before; `seed` itself if none did.

    Without it, finetuning would see the batches of the training before once more, in the same order and under the same
    dropout, and remember them instead of learning.

    Args:
        seed (`int`): the seed of all these trainings.
        trainings (`int`): number of trainings that the model has gone through.
    """
    return int(np.random.SeedSequence((seed, trainings)).generate_state(1)[0]) if trainings else seed


def check_length(num_train_epochs: float, max_steps: int, max_seconds: float | None) -> None:
    """Checks that a training has steps and time.

    Raises:
        ValueError: neither `num_train_epochs` nor `max_steps` is above 0.
        ValueError: `max_seconds` isn't above 0.
    """
    if max_seconds is not None and max_seconds <= 0:
        raise ValueError(f"`max_seconds` is {max_seconds}; give a number above 0, or leave it out.")
    if num_train_epochs <= 0 and max_steps <= 0:
        raise ValueError(f"`num_train_epochs` is {num_train_epochs}; nothing would be trained: give more than 0.")


def check_patience(patience: int | None, eval_strategy: str) -> int | None:
    """Returns the patience of early stopping, with `None` for 0.

    Raises:
        ValueError: there is a patience, but no evaluation.
    """
    if patience and eval_strategy == "no":
        raise ValueError(
            f"`early_stopping_patience` is {patience} and `eval_strategy` is 'no'; set `eval_strategy` to 'epoch' or "
            "'steps', or the patience to 0."
        )
    return patience or None


def check_ranked_metric(metric: str | None, num_beams: int) -> None:
    """Checks that evaluation measures `metric_for_best_model`, and with enough beams.

    With several evaluation datasets, the metric begins with a dataset's name, like `cold_ndcg@10`.

    Raises:
        ValueError: the metric isn't measured.
        ValueError: the metric looks at longer lists than the beam finds.
    """
    measured = (metric or "ndcg@1").removeprefix("eval_").rpartition("_")[2]
    name, _, listed = measured.rpartition("@")
    if name not in ("recall", "ndcg") or listed not in map(str, KS):
        raise ValueError(
            f"`metric_for_best_model` is {metric!r}; choose recall@k or ndcg@k with k in {KS}, like 'ndcg@10'."
        )
    if num_beams < int(listed):
        raise ValueError(
            f"`num_beams` is {num_beams} and `metric_for_best_model` is {metric!r}, but {num_beams} beams find only "
            f"{num_beams} items; evaluate with {listed} beams or more."
        )
