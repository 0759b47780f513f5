"""What the encoder reads of an item beside its codes."""

import torch
from torch import nn
from transformers import initialization as init

from .configuration_etegrec import ETEGRecConfig
from .headwise_t5 import applied
from .modeling_rqvae import directions_of


class ItemInputs(nn.Module):
    """A vector of each item's own, and its projected semantic embedding, whose sum all codes of the item carry.

    Codes say which items are alike; that two items are the same, or what follows one of them alone, is learned much
    faster from a vector of its own. An item that joins later has none, and is known by its semantic embedding.
    With detached item logits own vectors are what these logits have learned, and the encoder's gradient leaves them.

    Args:
        config ([`ETEGRecConfig`]): sizes.

    Source: the semantic embedding beside codes is LIGER's (Yang et al., 2024).
    """

    def __init__(self, config: ETEGRecConfig):
        super().__init__()
        self.own, self.gain = nn.Embedding(config.n_items + 1, config.d_model), config.item_gain
        self.is_only_read = config.item_logits == "detached"  # and learns from the loss of item logits
        self.projection = nn.Linear(config.rqvae_config.input_size, config.d_model, bias=False)

    def forward(self, items: torch.LongTensor, embeddings: torch.FloatTensor) -> torch.FloatTensor:
        """Vectors `[batch, items, d_model]` of item indices `[batch, items]` and their embeddings `[..., input_size]`.

        Embeddings count by direction alone; 0, padding, has none.
        """
        own = self.own_vectors(items)
        own = own.detach() if self.is_only_read else own
        projected = applied(self.projection, directions_of(embeddings) * embeddings.shape[-1] ** 0.5)
        return (own + projected.to(own.dtype)) * (items > 0).unsqueeze(-1)

    def own_vectors(self, items: torch.LongTensor) -> torch.FloatTensor:
        """Vectors `[*, d_model]` of their own of item indices `[*]`."""
        return self.own(items) if self.gain == 1 else self.gain * self.own(items)

    def add_items(self, count: int) -> None:
        """Makes room for items that join, whose own vectors are 0."""
        weight = self.own.weight.detach()
        with torch.inference_mode(False):
            self.own = nn.Embedding.from_pretrained(
                torch.cat([weight, weight.new_zeros(count, weight.shape[1])]), freeze=not self.own.weight.requires_grad
            )

    @torch.no_grad()
    def init_weights(self, factor: float) -> None:
        """Draws vectors that are as large as those of codes, over the gain, in effect."""
        init.normal_(self.own.weight, std=factor / self.gain**2)
        init.normal_(self.projection.weight, std=factor * self.projection.in_features**-0.5)
