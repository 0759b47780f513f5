"""T5's encoder over the codes of histories, in which an item may be kept from seeing later ones."""

import torch
from transformers.models.t5.modeling_t5 import T5Stack

from .configuration_etegrec import ETEGRecConfig


class HistoryEncoder(T5Stack):
    """A T5 encoder whose attention is the configuration's `encoder_attention`.

    Args:
        config ([`ETEGRecConfig`]): sizes.
    """

    def __init__(self, config: ETEGRecConfig):
        super().__init__(config.stack_config(is_decoder=False))
        self.is_causal = config.encoder_attention == "causal"
        self.code_length = config.code_length

    @classmethod
    def is_custom_code(cls) -> bool:
        """Says no: weights are T5's, whose initialisation transformers would take for done in custom code."""
        return False

    def embed(self, input_ids: torch.Tensor, item_vectors: torch.Tensor | None = None) -> torch.Tensor:
        """What the first block reads `[batch, tokens, d_model]`: each code, and its item's vector if there are any.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, tokens)`): whole items' codes.
            item_vectors (`torch.FloatTensor` of shape `(batch, items, d_model)`, *optional*): see [`ItemInputs`].
        """
        embedded = self.embed_tokens(input_ids)
        if item_vectors is None:
            return embedded
        return embedded + item_vectors.repeat_interleave(self.code_length, dim=1)

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, item_vectors=None, **kwargs):
        """As T5's, with masks `[batch, tokens]`, and `item_vectors` as in `embed`."""
        if item_vectors is not None:
            input_ids, inputs_embeds = None, self.embed(input_ids, item_vectors)
        if self.is_causal:
            inputs = input_ids if inputs_embeds is None else inputs_embeds
            if attention_mask is None:
                attention_mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
            visible = self.visible(attention_mask).unsqueeze(1)  # [batch, 1, tokens, tokens]
            attention_mask = additive(visible, self.embed_tokens.weight.dtype)
        return super().forward(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
        )

    def visible(self, attention_mask: torch.Tensor) -> torch.Tensor:
        """Which tokens (last dimension) each token sees: `[batch, 1 or tokens, tokens]`.

        A causal encoder's token sees its own item and earlier ones, so that what stands later changes nothing.
        """
        real = attention_mask.unsqueeze(1) > 0
        if not self.is_causal:
            return real
        item = torch.arange(attention_mask.shape[1], device=attention_mask.device) // self.code_length
        return real & (item.unsqueeze(1) >= item)


def additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What attention adds to scores: 0 where `visible`, else half the lowest number.

    float32's lowest number is minus infinity in the bfloat16 of autocast, and a row that sees nothing would be NaN.
    """
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min / 2)
