"""Training arguments of the recommender."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from ...data.checks import check_choice
from ..base.arguments import RankedTrainingArguments, check_ranked_metric
from ..base.refusals import REFUSED_COMPILATION, refuse_fields
from ..item_tokenizer.item_codes import STRATEGIES

# Fields of `TrainingArguments` that would change nothing, because processes share gradients without DDP
REFUSED_IN_ALTERNATION = {
    "average_tokens_across_devices": "but the targets of all processes always have the same weight",
} | dict.fromkeys(
    ("ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph"),
    "but processes share gradients without DDP",
)


@dataclass
class ETEGRecTrainingArguments(RankedTrainingArguments):
    """Arguments of [`ETEGRecTrainer`], besides those of transformers. Defaults are in the specification, section 6.

    Args:
        learning_rate (`float`, *optional*, defaults to 5e-3): learning rate of the recommender (`lr_rec` in the
            specification).
        tokenizer_learning_rate (`float`, *optional*, defaults to 1e-4): learning rate of the item tokenizer (`lr_id`
            in the specification).
        cycle (`int`, *optional*, defaults to 2): epochs per cycle. The first epoch trains the item tokenizer, the
            others train the recommender.
        warm_epochs (`int`, *optional*, defaults to 10): epochs without alignment losses. A training that has no more
            epochs than that ends before they begin, and warns of it.
        code_weight, vq_weight, sia_weight, psa_weight (`float`, *optional*, default to 1, 1, 1e-4, 3e-4): weights of
            code loss, RQ-VAE loss, sequence-item alignment (SIA) and preference-semantic alignment (PSA). Losses of
            weight 0 aren't computed.
        item_weight (`float`, *optional*, defaults to 1): weight of the cross-entropy of item logits alone, in models
            with item logits. Without it, item logits learn slowly, because code logits explain the same targets.
        temperature (`float`, *optional*, defaults to 0.07): temperature of PSA.
        gather_negatives (`bool`, *optional*, defaults to `False`): whether PSA's negatives are the targets of all
            processes, as in one large batch, and not only those of one process.
        code_strategy (`str`, *optional*, defaults to `"forge"`): how suffixes are assigned, see [`assign_item_codes`].
        freeze_tokenizer (`bool`, *optional*, defaults to `False`): whether to train only the recommender, on fixed
            codes, instead of both in turns. Without alignment (weights 0) that is TIGER.
        order_noise (`float`, *optional*, defaults to 0.0): how far items of whole training sequences change places,
            see [`WholeSequenceDataset`]. It needs a causal encoder.
        max_tokens_per_batch (`int`, *optional*): most token ids per batch and device, padding included. It replaces
            `per_device_train_batch_size`.
        num_beams (`int`, *optional*, defaults to 50): beams at evaluation. Metrics of longer lists are left out.

    Raises:
        ValueError: `cycle` is below 2.
        ValueError: a weight or the noise is negative, or the temperature isn't positive.
        ValueError: `code_strategy` is unknown.
        ValueError: `metric_for_best_model` looks at longer lists than `num_beams` find.
        ValueError: the last epoch would train the item tokenizer.
        ValueError: `torch_compile` is set.
        ValueError: early stopping is asked for without evaluation.
    """

    help_all: ClassVar[tuple[str, ...]] = (
        *("code_weight", "vq_weight", "item_weight", "temperature", "gather_negatives", "code_strategy"),
        *("order_noise", "max_tokens_per_batch", "warm_epochs", "max_seconds"),
    )

    learning_rate: float = 5e-3
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    lr_scheduler_type: str = "cosine"
    num_train_epochs: float = 400
    per_device_train_batch_size: int = 512
    per_device_eval_batch_size: int = 64
    tokenizer_learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate of the item tokenizer."})
    cycle: int = field(default=2, metadata={"help": "Epochs per cycle; the first trains the item tokenizer."})
    warm_epochs: int = field(default=10, metadata={"help": "Epochs without alignment losses."})
    code_weight: float = field(default=1.0, metadata={"help": "Weight of the code loss."})
    vq_weight: float = field(default=1.0, metadata={"help": "Weight of the RQ-VAE's own loss."})
    item_weight: float = field(default=1.0, metadata={"help": "Weight of the loss of item logits alone."})
    sia_weight: float = field(default=1e-4, metadata={"help": "Weight of the sequence-item alignment."})
    psa_weight: float = field(default=3e-4, metadata={"help": "Weight of the preference-semantic alignment."})
    temperature: float = field(default=0.07, metadata={"help": "Temperature of the preference-semantic alignment."})
    gather_negatives: bool = field(
        default=False, metadata={"help": "Take PSA's negatives from the batches of all processes."}
    )
    code_strategy: str = field(default="forge", metadata={"help": "Suffixes by 'forge', 'count' or 'balance'."})
    freeze_tokenizer: bool = field(default=False, metadata={"help": "Train only the recommender, on fixed codes."})
    order_noise: float = field(
        default=0.0, metadata={"help": "How many places items of whole training sequences move: a standard deviation."}
    )
    max_tokens_per_batch: int | None = field(
        default=None, metadata={"help": "Most tokens per batch, instead of a number of samples."}
    )
    num_beams: int = field(default=50, metadata={"help": "Beams at evaluation."})

    def __post_init__(self):
        if self.cycle < 2:
            raise ValueError(
                f"`cycle` is {self.cycle}; a cycle needs at least 2 epochs, one per item tokenizer and recommender."
            )
        for name in ("code_weight", "item_weight", "vq_weight", "sia_weight", "psa_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}; a loss weight can't be negative.")
        check_choice("code_strategy", self.code_strategy, STRATEGIES)
        if self.order_noise < 0:
            raise ValueError(f"`order_noise` is {self.order_noise}; give a number of places, 0 or more.")
        if self.temperature <= 0:
            raise ValueError(f"`temperature` is {self.temperature}; it must be positive.")
        refuse_fields(self, REFUSED_COMPILATION | REFUSED_IN_ALTERNATION)
        if self.dataloader_drop_last and self.max_tokens_per_batch is not None:
            raise ValueError(
                f"`dataloader_drop_last` is True, but `max_tokens_per_batch` is {self.max_tokens_per_batch}, and then "
                "no batch is incomplete; leave `dataloader_drop_last` out."
            )
        check_ranked_metric(self.metric_for_best_model, self.num_beams)
        epochs = math.ceil(self.num_train_epochs)
        if self.max_steps <= 0 and epochs > 0 and self.phase(epochs - 1) == "tokenizer":
            raise ValueError(
                f"`num_train_epochs` is {self.num_train_epochs} and `cycle` is {self.cycle}: the last epoch would "
                f"train the tokenizer, and the recommender wouldn't learn the new codes; choose {epochs + 1} epochs."
            )
        super().__post_init__()

    @property
    def stage(self) -> str:
        """Returns the name of this training stage, in words."""
        return "training on frozen codes" if self.freeze_tokenizer else "alternating training"

    def phase(self, epoch: int) -> str:
        """Returns the phase of an epoch, counted from 0: `"tokenizer"`, `"recommender"` or `"finetune"`.

        With `freeze_tokenizer`, every epoch is `"finetune"`.
        """
        if self.freeze_tokenizer:
            return "finetune"
        return "tokenizer" if epoch % self.cycle == 0 else "recommender"

    def tokenizer_spans(self, epochs: float) -> list[tuple[float, float]]:
        """Returns first and last epoch of each span that trains the item tokenizer, within the first `epochs`."""
        trained = (epoch for epoch in range(math.ceil(epochs)) if self.phase(epoch) == "tokenizer")
        return [(float(epoch), min(epoch + 1.0, epochs)) for epoch in trained]


@dataclass
class FinetuningArguments(ETEGRecTrainingArguments):
    """[`ETEGRecTrainingArguments`] with defaults for finetuning, which trains only the recommender on fixed codes."""

    learning_rate: float = 5e-4
    num_train_epochs: float = 50
    early_stopping_patience: int | None = 5
    freeze_tokenizer: bool = True
    warm_epochs: int = 0
    sia_weight: float = 0.0
    psa_weight: float = 0.0

    def __post_init__(self):
        if not self.freeze_tokenizer:
            raise ValueError("`freeze_tokenizer` is False, but finetuning trains on fixed codes; leave it out.")
        super().__post_init__()

    @property
    def stage(self) -> str:
        return "finetuning"
