"""Sizes and weights of an item tokenizer that a user chooses."""

from dataclasses import dataclass, field
from typing import ClassVar

from ...models.configuration_rqvae import RQVAEConfig


@dataclass
class ItemTokenizerOptions:
    """Fields of [`RQVAEConfig`] that a user chooses."""

    help_group: ClassVar[str] = "model"

    hidden_sizes: list[int] = field(
        default_factory=lambda: list(RQVAEConfig.hidden_sizes), metadata={"help": "Widths of the MLP."}
    )
    latent_size: int = field(
        default=RQVAEConfig.latent_size, metadata={"help": "Width of latents and codebook vectors."}
    )
    num_levels: int = field(default=RQVAEConfig.num_levels, metadata={"help": "Residual codebooks."})
    codebook_size: int = field(default=RQVAEConfig.codebook_size, metadata={"help": "Codes per level."})
    commitment_weight: float = field(
        default=RQVAEConfig.commitment_weight, metadata={"help": "Beta: weight of the commitment loss."}
    )
    quantization_weight: float = field(
        default=RQVAEConfig.quantization_weight, metadata={"help": "Alpha: weight of the quantisation loss."}
    )
    distance: str = field(default=RQVAEConfig.distance, metadata={"help": "l2, cosine or dot."})
