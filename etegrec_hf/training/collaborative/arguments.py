"""Arguments of the collaborative model and of its training."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from ...data.checks import check_positive
from ..base.arguments import RankedTrainingArguments


@dataclass
class CollaborativeSizes:
    """Sizes of the collaborative model.

    Args:
        width (`int`, *optional*, defaults to 256): width of the item embeddings and of the layers.
        num_layers (`int`, *optional*, defaults to 2): number of transformer layers.
        num_heads (`int`, *optional*, defaults to 4): number of attention heads.
        dropout_rate (`float`, *optional*, defaults to 0.3): dropout of embeddings and layers.
        max_history (`int`, *optional*, defaults to 50): how many items the model reads, the last ones of a sequence.
        attention_dropout_rate (`float`, *optional*): dropout of attention weights; by default `dropout_rate`.

    Raises:
        ValueError: a size is below 1.
        ValueError: `num_heads` doesn't divide `width`.
        ValueError: a dropout isn't from 0 to less than 1.
    """

    help_group: ClassVar[str] = "model"

    width: int = field(default=256, metadata={"help": "Width of the item embeddings and of the layers."})
    num_layers: int = field(default=2, metadata={"help": "Transformer layers."})
    num_heads: int = field(default=4, metadata={"help": "Attention heads."})
    dropout_rate: float = field(default=0.3, metadata={"help": "Dropout of embeddings and layers."})
    max_history: int = field(default=50, metadata={"help": "How many items are read, the last ones of a sequence."})
    attention_dropout_rate: float | None = field(
        default=None, metadata={"help": "Dropout of attention weights; by default that of embeddings and layers."}
    )

    def __post_init__(self):
        for name in ("width", "num_layers", "num_heads", "max_history"):
            check_positive(name, getattr(self, name))
        if self.width % self.num_heads:
            raise ValueError(
                f"`width` is {self.width} and `num_heads` is {self.num_heads}; give a width that the number of heads "
                "divides."
            )
        for name in ("dropout_rate", "attention_dropout_rate"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; give a number from 0 to less than 1.")


@dataclass
class CollaborativeTrainingArguments(RankedTrainingArguments):
    """Arguments of [`CollaborativeTrainer`], besides those of transformers and of [`RankedTrainingArguments`].

    Args:
        item_gain (`float`, *optional*, defaults to 1): how many times as far item embeddings move per update as
            layers. With 10 more targets are found, but items that the user has had rank above them
            ([docs/experiments.md](../experiments.md#the-item-id-baselines-own-item-vectors)).

    Raises:
        ValueError: `item_gain` isn't above 0.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 200
    num_train_epochs: float = 15
    per_device_train_batch_size: int = 128
    per_device_eval_batch_size: int = 256
    early_stopping_patience: int | None = 3
    item_gain: float = field(
        default=1.0,
        metadata={"help": "How many times as far item embeddings move per update as layers."},
    )

    def __post_init__(self):
        if not 0 < self.item_gain < math.inf:
            raise ValueError(f"`item_gain` is {self.item_gain}; give a number above 0.")
        super().__post_init__()
