"""Sizes and options of a recommender that a user chooses."""

from dataclasses import dataclass, field
from typing import ClassVar

from ...models.configuration_etegrec import ETEGRecConfig


@dataclass
class RecommenderOptions:
    """Fields of [`ETEGRecConfig`] that a user chooses.

    Defaults are those of the recipe (`examples/recipes/common`), where [`ETEGRecConfig`] has the paper's:
    `examples/configs/instrument2018.yaml` names these.
    """

    help_group: ClassVar[str] = "model"
    help_all: ClassVar[tuple[str, ...]] = (
        *(
            "d_ff",
            "d_kv",
            "num_heads",
            "attention_dropout_rate",
            "encoder_attention",
            "encoder_input",
            "recency_buckets",
        ),
        *(
            "starts_from_last_item",
            "item_gain",
            "mixed_items",
            "has_repeat_bias",
            "constrained_softmax",
            "learns_transitions",
        ),
    )

    d_model: int = field(default=ETEGRecConfig.d_model, metadata={"help": "Width of encoder and decoder."})
    d_ff: int = field(default=ETEGRecConfig.d_ff, metadata={"help": "Width of the feed-forward layers."})
    d_kv: int = field(default=ETEGRecConfig.d_kv, metadata={"help": "Width of an attention head."})
    num_layers: int = field(default=2, metadata={"help": "Encoder layers."})
    num_decoder_layers: int = field(default=2, metadata={"help": "Decoder layers."})
    num_heads: int = field(default=ETEGRecConfig.num_heads, metadata={"help": "Attention heads."})
    dropout_rate: float = field(default=0.5, metadata={"help": "Dropout of the T5 stacks."})
    decoder_dropout_rate: float | None = field(
        default=0.2, metadata={"help": "Dropout of the decoder, instead of --dropout-rate."}
    )
    attention_dropout_rate: float | None = field(
        default=0.0, metadata={"help": "Dropout of attention weights, instead of each stack's."}
    )
    encoder_attention: str = field(
        default="causal",
        metadata={"help": "'bidirectional', or 'causal': one pass over a sequence trains all its prefixes."},
    )
    encoder_input: str = field(
        default="items", metadata={"help": "'codes', or 'items': the encoder reads a whole item per position."}
    )
    recency_buckets: int = field(
        default=16,
        metadata={"help": "Buckets of a bias by how many items ago an item was had, in the decoder; 0 for none."},
    )
    starts_from_last_item: bool = field(
        default=True, metadata={"help": "The decoder starts from the encoder's state at the last item."}
    )
    reads_items: bool = field(
        default=True,
        metadata={"help": "Read items' embeddings and vectors of their own, not codes alone."},
    )
    item_gain: float = field(
        default=10.0,
        metadata={"help": "What stored vectors of items are multiplied by; they start at 1 / gain in effect."},
    )
    item_logits: str = field(
        default="detached",
        metadata={"help": "'exact': whole items are scored too; 'detached': by a loss of their own; or 'none'."},
    )
    recent_items: int = field(
        default=10,
        metadata={"help": "Newest items that ask for item logits; 0: the encoder's state does."},
    )
    mixed_items: int = field(default=0, metadata={"help": "Newest items whose own successors item logits mix in."})
    has_repeat_bias: bool = field(
        default=True,
        metadata={"help": "Learn how likely items of the history are to come again; with --constrained-softmax."},
    )
    constrained_softmax: bool = field(
        default=True,
        metadata={"help": "Share probability among the codes that continue an item, instead of all of a level."},
    )
    num_transitions: int = field(
        default=ETEGRecConfig.num_transitions,
        metadata={"help": "Items kept that came next to each item, for --transition-weight."},
    )
    learns_transitions: bool = field(
        default=False, metadata={"help": "Learn what each of these items gains; with --num-transitions."}
    )
    max_history: int = field(
        default=ETEGRecConfig.max_history, metadata={"help": "Items of a history that are read, the last ones."}
    )
