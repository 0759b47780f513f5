"""A bias by which the decoder knows how recent the items of a history are."""

import math

import torch
from torch import nn

from .configuration_etegrec import ETEGRecConfig


class RecencyBias(nn.Module):
    """A learned bias of the decoder's cross-attention, one number per head and per bucket of "items ago".

    T5's cross-attention has no positions, and a causal encoder's states don't depend on later items. So a decoder
    without this bias can't tell the last item of a history from the first. Like T5's own position bias, it is the same
    in all layers. The first half of the buckets hold one distance each, from 0 on; the others hold growing ranges, up
    to `max_history`.

    Args:
        config ([`ETEGRecConfig`]): the model's configuration.

    Source: T5's buckets of relative positions (Raffel et al., 2020), section 2.1.
    """

    def __init__(self, config: ETEGRecConfig):
        super().__init__()
        # a tenth of the bias, which so learns fast enough at learning rates that suit all other weights
        self.weight = nn.Parameter(torch.zeros(config.num_heads, config.recency_buckets))
        self.farthest = config.max_history

    def forward(self, items_back: torch.LongTensor) -> torch.FloatTensor:
        """Returns biases `[heads, *]`, given how many items ago an item was taken `[*]`; below 0 counts as 0."""
        return 10 * self.weight[:, self.bucket(items_back.clamp(min=0))]

    def bucket(self, items_back: torch.LongTensor) -> torch.LongTensor:
        """Returns the bucket of each distance in items; distances are 0 or more."""
        buckets = self.weight.shape[1]
        exact = buckets // 2
        span = math.log(max(self.farthest, exact + 1) / exact)
        place = (items_back.clamp(min=1) / exact).log() / span * (buckets - exact)
        return torch.where(items_back < exact, items_back, (exact + place.long()).clamp(max=buckets - 1))
