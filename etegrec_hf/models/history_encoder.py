"""T5's encoder over the items of histories, with bidirectional or causal attention between items."""

import torch
from transformers.models.t5.modeling_t5 import T5Attention, T5Stack

from .configuration_etegrec import ETEGRecConfig


class HistoryEncoder(T5Stack):
    """A T5 encoder of histories, with positions of `encoder_input` and attention of `encoder_attention`.

    Args:
        config ([`ETEGRecConfig`]): the model's configuration.
    """

    def __init__(self, config: ETEGRecConfig):
        super().__init__(config.stack_config(is_decoder=False))
        self.is_causal = config.encoder_attention == "causal"
        self.code_length, self.tokens_per_position = config.code_length, config.tokens_per_position
        self.positions_per_item = config.positions_per_item
        set_attention_dropout(self, config)

    @classmethod
    def is_custom_code(cls) -> bool:
        """Returns False, so that transformers initialises the weights, which are T5's."""
        return False

    def embed(self, input_ids: torch.Tensor, item_vectors: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the input of the first block, `[batch, positions, d_model]`: codes, plus item vectors if given.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, tokens)`): token ids of whole items.
            item_vectors (`torch.FloatTensor` of shape `(batch, items, d_model)`, *optional*): see [`ItemInputs`].
        """
        embedded = self.embed_tokens(input_ids)
        if self.tokens_per_position > 1:
            batch, tokens, width = embedded.shape
            embedded = embedded.view(batch, tokens // self.code_length, self.code_length, width).sum(2)
        if item_vectors is None:
            return embedded
        return embedded + item_vectors.repeat_interleave(self.positions_per_item, dim=1)

    def positions_mask(self, attention_mask: torch.Tensor) -> torch.Tensor:
        """Returns a mask over positions, `[batch, positions]`, given one over the tokens of whole items."""
        return attention_mask[:, :: self.tokens_per_position]

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, item_vectors=None, **kwargs):
        """Encodes histories as T5's `forward` does, with `item_vectors` as in `embed`.

        The mask of `input_ids` has the shape `[batch, tokens]`, that of `inputs_embeds` `[batch, positions]`.
        """
        if input_ids is not None and (item_vectors is not None or self.tokens_per_position > 1 or self.is_causal):
            attention_mask = None if attention_mask is None else self.positions_mask(attention_mask)
            input_ids, inputs_embeds = None, self.embed(input_ids, item_vectors)
        if self.is_causal:
            if attention_mask is None:
                attention_mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.long, device=inputs_embeds.device)
            visible = self.visible(attention_mask).unsqueeze(1)  # [batch, 1, positions, positions]
            attention_mask = additive(visible, inputs_embeds.dtype)
        return super().forward(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
        )

    def visible(self, positions_mask: torch.Tensor) -> torch.Tensor:
        """Returns which positions (last dimension) each position sees: `[batch, 1 or positions, positions]`.

        In a causal encoder, a code sees the codes of its own item and of earlier items.
        """
        real = positions_mask.unsqueeze(1) > 0
        if not self.is_causal:
            return real
        item = torch.arange(positions_mask.shape[1], device=positions_mask.device) // self.positions_per_item
        return real & (item.unsqueeze(1) >= item)


def set_attention_dropout(stack: T5Stack, config: ETEGRecConfig) -> None:
    """Sets the dropout of a stack's attention weights, if the configuration has a rate for them."""
    if config.attention_dropout_rate is not None:
        for module in stack.modules():
            if isinstance(module, T5Attention):
                module.dropout = config.attention_dropout_rate


def additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns an additive attention mask: 0 where `visible`, half the lowest number elsewhere.

    float32's lowest number becomes minus infinity in the bfloat16 of autocast, and a row that sees nothing would be
    NaN.
    """
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min / 2)
