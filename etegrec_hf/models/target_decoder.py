"""T5's decoder over the codes of targets, many of which may stand in one row."""

import torch
from torch import nn
from transformers import initialization as init
from transformers.models.t5.modeling_t5 import T5Attention, T5Stack

from .configuration_etegrec import ETEGRecConfig
from .histories import EncodedBatch
from .history_encoder import additive, set_attention_dropout
from .recency_bias import RecencyBias


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


class StartProjection(nn.Linear):
    """What the decoder's input gains of the state at the last item; at first, all of it."""


class TargetDecoder(T5Stack):
    """A T5 decoder that takes several targets in a row: with a self-attention mask of one of them.

    The configuration's `recency_buckets` and `starts_from_last_item` say how it knows which item was the last one.

    Args:
        config ([`ETEGRecConfig`]): sizes.
    """

    def __init__(self, config: ETEGRecConfig):
        super().__init__(config.stack_config(is_decoder=True))
        self.positions_per_item = config.code_length // config.tokens_per_position
        for block in self.block:  # the same weights, drawn as T5's are
            block.layer[0].SelfAttention.__class__ = BlockAttention
        set_attention_dropout(self, config)
        self.recency_bias = RecencyBias(config) if config.recency_buckets else None
        width = config.d_model
        self.start_projection = StartProjection(width, width, bias=False) if config.starts_from_last_item else None

    @classmethod
    def is_custom_code(cls) -> bool:
        """Says no: weights are T5's, whose initialisation transformers would take for done in custom code."""
        return False

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, RecencyBias):
            init.zeros_(module.weight)
        elif isinstance(module, StartProjection):
            init.eye_(module.weight)
        else:
            super()._init_weights(module)

    def embed(self, input_ids: torch.LongTensor, last_states: torch.FloatTensor) -> torch.FloatTensor:
        """What the first block reads `[batch, decoded, d_model]`.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, decoded)`): the decoder start and codes.
            last_states (`torch.FloatTensor` of shape `(batch, 1 or decoded, d_model)`): of the encoder, at the last
                item before each target.
        """
        embedded = self.embed_tokens(input_ids)
        return embedded if self.start_projection is None else embedded + self.start_projection(last_states)

    def forward(self, input_ids=None, last_states=None, **kwargs):
        """As T5's, with `last_states` as in `embed`."""
        return super().forward(inputs_embeds=self.embed(input_ids, last_states), **kwargs)

    def cross_bias(self, encoded: EncodedBatch) -> torch.FloatTensor:
        """What cross-attention adds to scores of each user's states, `[batch, 1 or heads, 1, positions]`."""
        is_real = encoded.positions_mask > 0
        newer = is_real.flip(1).cumsum(1).flip(1) - is_real.long()  # positions after each
        items_back = newer.unsqueeze(1) // self.positions_per_item
        return self._cross_bias(is_real.unsqueeze(1), items_back, encoded.states.dtype)

    def cross_bias_before(self, encoded: EncodedBatch, history_lengths: torch.LongTensor) -> torch.FloatTensor:
        """The same for targets that come after `history_lengths` `[batch, targets]` items, which alone they read.

        Returns:
            `torch.FloatTensor` `(batch, 1 or heads, targets, positions)`.
        """
        positions = torch.arange(encoded.states.shape[1], device=encoded.states.device)
        item = positions // self.positions_per_item
        items_back = history_lengths.unsqueeze(2) - 1 - item  # [batch, targets, positions]
        is_read = (items_back >= 0) & (encoded.positions_mask.unsqueeze(1) > 0)
        return self._cross_bias(is_read, items_back, encoded.states.dtype)

    def _cross_bias(self, is_read: torch.Tensor, items_back: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        bias = additive(is_read, dtype).unsqueeze(1)
        return bias if self.recency_bias is None else bias + self.recency_bias(items_back).transpose(0, 1).to(dtype)
