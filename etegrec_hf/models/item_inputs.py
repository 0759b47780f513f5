"""Vectors of items that the encoder reads besides their codes."""

import torch
from torch import nn
from transformers import initialization as init

from .configuration_etegrec import ETEGRecConfig
from .headwise_t5 import applied
from .modeling_rqvae import directions_of


class ItemInputs(nn.Module):
    """Vectors of items: a learned vector per item plus its projected semantic embedding, added to all of its codes.

    Codes tell which items are alike. A vector of its own lets the model learn much faster what follows this very item.
    An item that joins later has a vector of 0, and is known by its semantic embedding. With detached item logits,
    items' own vectors learn from the item loss alone, and get no gradient from the encoder. With an ensemble of item
    logits an item has several own vectors, of which the encoder reads the first.

    Args:
        config ([`ETEGRecConfig`]): the model's configuration.

    Source: LIGER (Yang et al., 2024) adds the semantic embedding to codes.
    """

    def __init__(self, config: ETEGRecConfig):
        super().__init__()
        self.width, self.gain = config.d_model, config.item_gain
        self.own = nn.Embedding(config.n_items + 1, config.item_ensemble * config.d_model)
        self.is_only_read = config.item_logits == "detached"  # own vectors learn from the item loss alone
        self.projection = nn.Linear(config.rqvae_config.input_size, config.d_model, bias=False)

    def forward(self, items: torch.LongTensor, embeddings: torch.FloatTensor) -> torch.FloatTensor:
        """Returns vectors `[batch, items, d_model]` of item indices `[batch, items]`; 0 on padding.

        `embeddings` are the items' semantic embeddings `[batch, items, input_size]`, scaled to one length before use.
        """
        own = self.own_vectors(items)[..., : self.width]
        own = own.detach() if self.is_only_read else own
        projected = applied(self.projection, directions_of(embeddings) * embeddings.shape[-1] ** 0.5)
        return (own + projected.to(own.dtype)) * (items > 0).unsqueeze(-1)

    def own_vectors(self, items: torch.LongTensor) -> torch.FloatTensor:
        """Returns the items' own vectors `[*, members * d_model]`, given item indices `[*]`."""
        return self.own(items) if self.gain == 1 else self.gain * self.own(items)

    def add_items(self, count: int) -> None:
        """Appends `count` items whose own vectors are 0."""
        weight = self.own.weight.detach()
        with torch.inference_mode(False):
            self.own = nn.Embedding.from_pretrained(
                torch.cat([weight, weight.new_zeros(count, weight.shape[1])]), freeze=not self.own.weight.requires_grad
            )

    @torch.no_grad()
    def init_weights(self, factor: float) -> None:
        """Draws the weights: in effect, own vectors start as large as those of codes, divided by the gain."""
        init.normal_(self.own.weight, std=factor / self.gain**2)
        init.normal_(self.projection.weight, std=factor * self.projection.in_features**-0.5)
