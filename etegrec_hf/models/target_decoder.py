"""T5's decoder over the codes of targets; one row may hold several targets."""

import torch
from torch import nn
from transformers import initialization as init
from transformers.models.t5.modeling_t5 import T5Attention, T5Stack

from .configuration_etegrec import ETEGRecConfig
from .histories import EncodedBatch, newer_than_each
from .history_encoder import additive, set_attention_dropout
from .recency_bias import RecencyBias


class BlockAttention(T5Attention):
    """T5's self-attention, within blocks of positions if the mask `[..., block, block]` is shorter than the row.

    Blocks become rows only in self-attention, so that all targets of a row read the same encoder states in
    cross-attention. As T5's positions are relative, a block gives the same states as in a row of its own.
    """

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None, **kwargs):
        if mask is None or mask.shape[-1] >= hidden_states.shape[1]:
            return super().forward(hidden_states, mask=mask, **kwargs)
        blocks = hidden_states.reshape(-1, mask.shape[-1], hidden_states.shape[-1])
        attended, *others = super().forward(blocks, mask=mask, **kwargs)
        return attended.view_as(hidden_states), *others


class StartProjection(nn.Linear):
    """The projection of the state at the last item that is added to the decoder's input; it starts as the identity."""


class TargetDecoder(T5Stack):
    """A T5 decoder that can take several targets per row, with the self-attention mask of one target.

    By `recency_buckets` and `starts_from_last_item` of the configuration, it knows which item was the last one.

    Args:
        config ([`ETEGRecConfig`]): the model's configuration.
    """

    def __init__(self, config: ETEGRecConfig):
        super().__init__(config.stack_config(is_decoder=True))
        self.positions_per_item = config.positions_per_item
        for block in self.block:  # the same weights, drawn as T5's are
            block.layer[0].SelfAttention.__class__ = BlockAttention
        set_attention_dropout(self, config)
        self.recency_bias = RecencyBias(config) if config.recency_buckets else None
        width = config.d_model
        self.start_projection = StartProjection(width, width, bias=False) if config.starts_from_last_item else None

    @classmethod
    def is_custom_code(cls) -> bool:
        """Returns False, so that transformers initialises the weights, which are T5's."""
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
        """Returns the input of the first block, `[batch, decoded, d_model]`.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, decoded)`): the decoder start and codes.
            last_states (`torch.FloatTensor` of shape `(batch, 1 or decoded, d_model)`): encoder states at the last
                item before each target.
        """
        embedded = self.embed_tokens(input_ids)
        return embedded if self.start_projection is None else embedded + self.start_projection(last_states)

    def forward(self, input_ids=None, last_states=None, **kwargs):
        """Decodes codes as T5's `forward` does, with `last_states` as in `embed`."""
        return super().forward(inputs_embeds=self.embed(input_ids, last_states), **kwargs)

    def cross_bias(self, encoded: EncodedBatch) -> torch.FloatTensor:
        """Returns the additive bias of cross-attention on encoder states, `[batch, 1 or heads, 1, positions]`."""
        is_real = encoded.positions_mask > 0
        items_back = newer_than_each(is_real).unsqueeze(1) // self.positions_per_item
        return self._cross_bias(is_real.unsqueeze(1), items_back, encoded.states.dtype)

    def cross_bias_before(self, encoded: EncodedBatch, history_lengths: torch.LongTensor) -> torch.FloatTensor:
        """Returns the same for several targets per row; each reads only the first items of its history.

        Args:
            encoded ([`EncodedBatch`]): the users' histories.
            history_lengths (`torch.LongTensor` of shape `(batch, targets)`): number of items before each target.

        Returns:
            `torch.FloatTensor` of shape `(batch, 1 or heads, targets, positions)`.
        """
        positions = torch.arange(encoded.states.shape[1], device=encoded.states.device)
        item = positions // self.positions_per_item
        items_back = history_lengths.unsqueeze(2) - 1 - item  # [batch, targets, positions]
        is_read = (items_back >= 0) & (encoded.positions_mask.unsqueeze(1) > 0)
        return self._cross_bias(is_read, items_back, encoded.states.dtype)

    def _cross_bias(self, is_read: torch.Tensor, items_back: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        bias = additive(is_read, dtype).unsqueeze(1)
        return bias if self.recency_bias is None else bias + self.recency_bias(items_back).transpose(0, 1).to(dtype)
