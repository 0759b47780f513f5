"""What the encoder reads of an item beside its codes."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from .configuration_etegrec import ETEGRecConfig


class ItemInputs(nn.Module):
    """A vector of each item's own, and its projected semantic embedding, whose sum all codes of the item carry.

    Codes say which items are alike; that two items are the same, or what follows one of them alone, is learned much
    faster from a vector of its own. An item that joins later has none, and is known by its semantic embedding.

    Args:
        config ([`ETEGRecConfig`]): sizes.

    Source: the semantic embedding beside codes is LIGER's (Yang et al., 2024).
    """

    def __init__(self, config: ETEGRecConfig):
        super().__init__()
        self.own = nn.Embedding(config.n_items + 1, config.d_model)
        self.projection = nn.Linear(config.rqvae_config.input_size, config.d_model, bias=False)

    def forward(self, items: torch.LongTensor, embeddings: torch.FloatTensor) -> torch.FloatTensor:
        """Vectors `[batch, items, d_model]` of item indices `[batch, items]` and their embeddings `[..., input_size]`.

        Embeddings count by direction alone; 0, padding, has none.
        """
        directions = F.normalize(embeddings, dim=-1) * embeddings.shape[-1] ** 0.5
        vectors = self.own(items) + self.projection(directions.to(self.projection.weight.dtype))
        return vectors * (items > 0).unsqueeze(-1)

    def add_items(self, count: int) -> None:
        """Makes room for items that join, whose own vectors are 0."""
        weight = self.own.weight.detach()
        with torch.inference_mode(False):
            self.own = nn.Embedding.from_pretrained(
                torch.cat([weight, weight.new_zeros(count, weight.shape[1])]), freeze=not self.own.weight.requires_grad
            )

    @torch.no_grad()
    def init_weights(self, factor: float) -> None:
        """Draws vectors as large as those of codes."""
        init.normal_(self.own.weight, std=factor)
        init.normal_(self.projection.weight, std=factor * self.projection.in_features**-0.5)
