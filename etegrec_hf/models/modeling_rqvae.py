"""The item tokenizer: an RQ-VAE that turns an item's semantic embedding into one code per level."""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_rqvae import RQVAEConfig, check_class
from .model_card import ModelCardMixin


@dataclass
class QuantizerOutput(ModelOutput):
    """Output of the residual quantiser.

    Args:
        quantized (`torch.FloatTensor` of shape `(batch, latent_size)`):
            Sum of the chosen codebook vectors; its gradient passes straight through to the latents.
        codes (`torch.LongTensor` of shape `(batch, num_levels)`): chosen codes, `0..codebook_size-1`.
        code_logits (`torch.FloatTensor` of shape `(batch, num_levels, codebook_size)`):
            Closeness of each level's residual to each codebook vector (minus squared distance, cosine or dot product).
        loss (`torch.FloatTensor` of shape `()`): mean over levels of codebook and weighted commitment loss.
    """

    quantized: torch.FloatTensor | None = None
    codes: torch.LongTensor | None = None
    code_logits: torch.FloatTensor | None = None
    loss: torch.FloatTensor | None = None


@dataclass
class RQVAEOutput(ModelOutput):
    """Output of [`RQVAEModel`].

    Args:
        loss (`torch.FloatTensor` of shape `()`): `reconstruction_loss + quantization_weight * quantization_loss`.
        reconstruction_loss (`torch.FloatTensor` of shape `()`): mean squared error of the reconstruction.
        quantization_loss (`torch.FloatTensor` of shape `()`): see [`QuantizerOutput`].
        reconstruction (`torch.FloatTensor` of shape `(batch, input_size)`): decoded embeddings.
        latents (`torch.FloatTensor` of shape `(batch, latent_size)`): encoded embeddings.
        codes (`torch.LongTensor` of shape `(batch, num_levels)`): the items' prefixes.
        code_logits (`torch.FloatTensor` of shape `(batch, num_levels, codebook_size)`): see [`QuantizerOutput`].
    """

    loss: torch.FloatTensor | None = None
    reconstruction_loss: torch.FloatTensor | None = None
    quantization_loss: torch.FloatTensor | None = None
    reconstruction: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None
    codes: torch.LongTensor | None = None
    code_logits: torch.FloatTensor | None = None


class ResidualQuantizer(nn.Module):
    """Quantises latents level by level; each level quantises the residual of the levels before."""

    def __init__(self, config: RQVAEConfig):
        super().__init__()
        self.distance = config.distance
        self.commitment_weight = config.commitment_weight
        self.codebooks = nn.Parameter(torch.empty(config.num_levels, config.codebook_size, config.latent_size))

    def closeness(self, residual: torch.Tensor, level: int) -> torch.Tensor:
        """Returns the closeness `[batch, K]` of residuals `[batch, latent_size]` to a level's codebook vectors.

        It is computed in float32, or in a wider dtype of the residuals.
        """
        dtype = torch.promote_types(residual.dtype, torch.float32)
        with torch.autocast(residual.device.type, enabled=False):  # bfloat16 would round away which vector is nearest
            residual, codebook = residual.to(dtype), self.codebooks[level].to(dtype)
            if self.distance == "cosine":
                return directions_of(residual).to(dtype) @ directions_of(codebook).to(dtype).T
            similarity = residual @ codebook.T
            if self.distance == "dot":
                return similarity
            return 2 * similarity - residual.square().sum(-1, keepdim=True) - codebook.square().sum(-1)

    def forward(self, latents: torch.Tensor) -> QuantizerOutput:
        """Quantises `latents` `[batch, latent_size]`.

        The chosen vector is subtracted from the residual without its gradient. So every level's commitment loss
        reaches the encoder, while a codebook learns from its own level only. Squared errors are averaged over
        `latent_size`.
        """
        residual, quantized = latents, torch.zeros_like(latents)
        codes, logits, losses = [], [], []
        for level in range(len(self.codebooks)):
            level_logits = self.closeness(residual, level)  # [B, K]
            level_codes = level_logits.argmax(-1)  # [B]
            chosen = self.codebooks[level][level_codes]  # [B, latent_size]
            losses.append(
                F.mse_loss(chosen, residual.detach()) + self.commitment_weight * F.mse_loss(residual, chosen.detach())
            )
            residual = residual - chosen.detach()
            quantized = quantized + chosen
            codes.append(level_codes)
            logits.append(level_logits)
        return QuantizerOutput(
            quantized=latents + (quantized - latents).detach(),
            codes=torch.stack(codes, dim=1),
            code_logits=torch.stack(logits, dim=1),
            loss=torch.stack(losses).mean(),
        )


def directions_of(vectors: torch.FloatTensor) -> torch.FloatTensor:
    """Returns vectors `[*, width]` scaled to length 1, in float32, as float16 can't hold all lengths; 0 stays 0."""
    return F.normalize(vectors.float(), dim=-1)


def first_not_finite(
    embeddings: torch.FloatTensor, dtype: torch.dtype | None = None, batch_size: int = 8192
) -> int | None:
    """Returns the first row of embeddings `[n, input_size]` that holds NaN or infinity, or None.

    Numbers that are infinite in `dtype`, by default that of the embeddings, count too.
    """
    for start, batch in zip(range(0, len(embeddings), batch_size), embeddings.split(batch_size)):
        broken = (~batch.to(dtype or batch.dtype).isfinite()).any(1).nonzero()
        if len(broken):
            return start + int(broken[0])
    return None


def check_item_tokenizer(item_tokenizer: nn.Module) -> None:
    """Raises a `ValueError` unless this is an [`RQVAEModel`] itself, not of a subclass; see [`check_class`]."""
    check_class("item_tokenizer", "RQVAEModel", [cls.__name__ for cls in type(item_tokenizer).__mro__])


def mlp(sizes: list[int]) -> nn.Sequential:
    """Returns linear layers of the given widths with ReLU between them."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(sizes):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class RQVAEModel(ModelCardMixin, PreTrainedModel):
    """Residual-quantised variational autoencoder over item embeddings.

    Source: ETEGRec, section 3.2.1; specification, section 2.2. `code_logits` are *minus* squared distances, so that
    their softmax is the paper's P(k|v). The authors' code gives plus distances to the softmax.
    """

    config_class = RQVAEConfig
    base_model_prefix = "item_tokenizer"
    main_input_name = "embeddings"
    accepts_loss_kwargs = False
    _supports_sdpa = True

    def __init__(self, config: RQVAEConfig):
        super().__init__(config)
        sizes = [config.input_size, *config.hidden_sizes, config.latent_size]
        self.encoder = mlp(sizes)
        self.quantizer = ResidualQuantizer(config)
        self.decoder = mlp(sizes[::-1])
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            init.xavier_normal_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, ResidualQuantizer):
            init.normal_(module.codebooks, std=self.config.latent_size**-0.5)

    def forward(self, embeddings: torch.FloatTensor, return_dict: bool | None = None) -> RQVAEOutput | tuple:
        """Encodes, quantises and decodes.

        Args:
            embeddings (`torch.FloatTensor` of shape `(batch, input_size)`): semantic embeddings, cast to the weights'
                dtype.
            return_dict (`bool`, *optional*): whether to return an [`RQVAEOutput`] instead of a tuple.
        """
        embeddings = embeddings.to(self.quantizer.codebooks.dtype)
        latents = self.encoder(embeddings)  # [B, latent_size]
        quantizer_output = self.quantizer(latents)
        reconstruction = self.decoder(quantizer_output.quantized)  # [B, input_size]
        reconstruction_loss = F.mse_loss(reconstruction, embeddings)
        output = RQVAEOutput(
            loss=reconstruction_loss + self.config.quantization_weight * quantizer_output.loss,
            reconstruction_loss=reconstruction_loss,
            quantization_loss=quantizer_output.loss,
            reconstruction=reconstruction,
            latents=latents,
            codes=quantizer_output.codes,
            code_logits=quantizer_output.code_logits,
        )
        return output if return_dict is not False else output.to_tuple()

    @torch.no_grad()
    def encode(self, embeddings: torch.FloatTensor, batch_size: int = 8192) -> torch.LongTensor:
        """Returns the codes `[n, num_levels]` of embeddings `[n, input_size]`, computed batch by batch.

        The embeddings may be on any device, or mapped from disk.

        Raises:
            ValueError: weights that are offloaded.
        """
        if self.device.type == "meta":
            raise ValueError(
                "the item tokenizer's weights are offloaded; load the model without offloading to encode."
            )
        batches = (batch.to(self.device, self.dtype) for batch in embeddings.split(batch_size))
        return torch.cat([self.quantizer(self.encoder(batch)).codes for batch in batches])


RQVAEModel.register_for_auto_class("AutoModel")
