"""T5's decoder over the codes of targets, many of which may stand in one row."""

import torch
from transformers.models.t5.modeling_t5 import T5Attention, T5Stack

from .configuration_etegrec import ETEGRecConfig


class BlockAttention(T5Attention):
    """T5's self-attention, within blocks of positions where the mask `[..., block, block]` is shorter than the row.

    Blocks become rows here and nowhere else, so that all of a row's targets read the same encoder states. T5's
    positions are relative: each block is as it would be in a row of its own.
    """

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None, **kwargs):
        if mask is None or mask.shape[-1] >= hidden_states.shape[1]:
            return super().forward(hidden_states, mask=mask, **kwargs)
        blocks = hidden_states.reshape(-1, mask.shape[-1], hidden_states.shape[-1])
        attended, *others = super().forward(blocks, mask=mask, **kwargs)
        return attended.view_as(hidden_states), *others


class TargetDecoder(T5Stack):
    """A T5 decoder that takes several targets in a row: with a self-attention mask of one of them.

    Args:
        config ([`ETEGRecConfig`]): sizes.
    """

    def __init__(self, config: ETEGRecConfig):
        super().__init__(config.stack_config(is_decoder=True))
        for block in self.block:  # the same weights, drawn as T5's are
            block.layer[0].SelfAttention.__class__ = BlockAttention

    @classmethod
    def is_custom_code(cls) -> bool:
        """Says no: weights are T5's, whose initialisation transformers would take for done in custom code."""
        return False
