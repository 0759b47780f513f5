"""Training arguments of the item tokenizer."""

from dataclasses import dataclass, field
from typing import ClassVar

from transformers import TrainingArguments

from ..base.arguments import MAX_SECONDS_HELP, check_length
from ..base.refusals import REFUSED_FIELDS, refuse_fields


@dataclass
class RQVAETrainingArguments(TrainingArguments):
    """Arguments of [`RQVAETrainer`], besides those of transformers.

    Args:
        kmeans_init (`bool`, *optional*, defaults to `True`): whether codebooks start from k-means over latents.
        revive_dead_codes (`bool`, *optional*, defaults to `True`): whether codes that no item uses are moved onto
            random items, after each epoch but the last.
        max_seconds (`float`, *optional*): time limit of training, which then ends with a checkpoint.

    Raises:
        ValueError: nothing would be trained, or the time limit isn't above 0.
        ValueError: a field of transformers would change nothing, see [docs/training.md](../training.md).
    """

    help_group: ClassVar[str] = "training"

    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    lr_scheduler_type: str = "cosine"
    num_train_epochs: float = 200
    per_device_train_batch_size: int = 1024
    logging_strategy: str = "epoch"
    logging_nan_inf_filter: bool = False  # training stops at NaN and infinity
    save_strategy: str = "epoch"
    save_total_limit: int | None = 1
    remove_unused_columns: bool = False
    dataloader_pin_memory: bool = False
    restore_callback_states_from_checkpoint: bool = True
    hub_strategy: str = "end"
    kmeans_init: bool = field(default=True, metadata={"help": "Start codebooks from k-means over latents."})
    revive_dead_codes: bool = field(default=True, metadata={"help": "Move unused codes onto random items each epoch."})
    max_seconds: float | None = field(default=None, metadata={"help": MAX_SECONDS_HELP})

    def __post_init__(self):
        check_length(self.num_train_epochs, self.max_steps, self.max_seconds)
        refuse_fields(self, REFUSED_FIELDS)
        super().__post_init__()
