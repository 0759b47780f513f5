"""How recent an item is, where the decoder reads histories."""

import math

import torch
from torch import nn

from .configuration_etegrec import ETEGRecConfig


class RecencyBias(nn.Module):
    """What the decoder's cross-attention adds to scores by how many items ago an item was had: a number per head.

    T5's cross-attention has no positions. A causal encoder's states don't know what follows them, so that a decoder
    without this bias can't tell the last item of a history from the first. As T5's own position bias, it is the same
    in all layers. Half of the buckets are one number of items each, from 0 on; the others grow up to `max_history`.

    Args:
        config ([`ETEGRecConfig`]): sizes.

    Source: T5's buckets of relative positions (Raffel et al., 2020), section 2.1.
    """

    def __init__(self, config: ETEGRecConfig):
        super().__init__()
        # a tenth of the bias, which gets there at learning rates that suit all other weights
        self.weight = nn.Parameter(torch.zeros(config.num_heads, config.recency_buckets))
        self.farthest = config.max_history

    def forward(self, items_back: torch.LongTensor) -> torch.FloatTensor:
        """Returns biases `[heads, *]` of numbers of items `[*]`; negative ones count as 0."""
        return 10 * self.weight[:, self.bucket(items_back.clamp(min=0))]

    def bucket(self, items_back: torch.LongTensor) -> torch.LongTensor:
        """The bucket of each number of items, all 0 or more."""
        buckets = self.weight.shape[1]
        exact = buckets // 2
        span = math.log(max(self.farthest, exact + 1) / exact)
        place = (items_back.clamp(min=1) / exact).log() / span * (buckets - exact)
        return torch.where(items_back < exact, items_back, (exact + place.long()).clamp(max=buckets - 1))
