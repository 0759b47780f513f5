"""Sizes and options of a recommender that a user chooses."""

from dataclasses import dataclass, field
from typing import ClassVar

from ...models.configuration_etegrec import ETEGRecConfig


@dataclass
class RecommenderOptions:
    """Fields of [`ETEGRecConfig`] that a user chooses.

    The defaults are those of the recipe in `examples/recipes/common`. [`ETEGRecConfig`] has the defaults of the paper,
    which `examples/configs/instrument2018.yaml` sets.
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
            "item_ensemble",
            "has_repeat_bias",
            "constrained_softmax",
            "learns_transitions",
        ),
    )

    d_model: int = field(default=ETEGRecConfig.d_model, metadata={"help": "Width of encoder and decoder."})
    d_ff: int = field(default=ETEGRecConfig.d_ff, metadata={"help": "Width of the feed-forward layers."})
    d_kv: int = field(default=ETEGRecConfig.d_kv, metadata={"help": "Width per attention head."})
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
        metadata={"help": "'bidirectional' or 'causal', which trains all prefixes of a sequence in one pass."},
    )
    encoder_input: str = field(
        default="items", metadata={"help": "'codes', or 'items': the encoder reads one item per position."}
    )
    recency_buckets: int = field(
        default=16,
        metadata={"help": "Buckets of the decoder's bias by how many items back an item is; 0 for none."},
    )
    starts_from_last_item: bool = field(
        default=True, metadata={"help": "Start the decoder from the encoder's state at the last item."}
    )
    reads_items: bool = field(
        default=True,
        metadata={"help": "Read embeddings and a learned vector per item, besides codes."},
    )
    item_gain: float = field(
        default=10.0,
        metadata={"help": "Factor by which the model multiplies the stored vectors of items."},
    )
    item_logits: str = field(
        default="detached",
        metadata={"help": "Scores of whole items: exact, detached (trained by their own loss) or none."},
    )
    recent_items: int = field(
        default=10,
        metadata={"help": "Newest items that item logits are made from; 0: the encoder's state."},
    )
    mixed_items: int = field(default=0, metadata={"help": "Newest items whose likely successors item logits add."})
    item_ensemble: int = field(
        default=ETEGRecConfig.item_ensemble,
        metadata={"help": "Vectors per item; each predicts items by itself, and the predictions are averaged."},
    )
    has_repeat_bias: bool = field(
        default=True,
        metadata={"help": "Learn how likely items of the history repeat; needs --constrained-softmax."},
    )
    constrained_softmax: bool = field(
        default=True,
        metadata={"help": "Give probability only to codes that lead to an item, not to all codes of a level."},
    )
    num_transitions: int = field(
        default=ETEGRecConfig.num_transitions,
        metadata={"help": "Next items that are kept per item, for --transition-weight."},
    )
    learns_transitions: bool = field(
        default=False, metadata={"help": "Learn a bonus for each of these next items; needs --num-transitions."}
    )
    max_history: int = field(
        default=ETEGRecConfig.max_history, metadata={"help": "How many items are read, the last ones of a history."}
    )
