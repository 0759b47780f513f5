"""Dropout that is fast on a CPU, because four elements share one random draw."""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask

ATTENTION = "cheap_dropout"


def cheap_dropout(states: Tensor, rate: float) -> Tensor:
    """Applies dropout with 16 random bits per element, so that four elements share one random draw.

    Args:
        states (`torch.FloatTensor` of any shape): the elements.
        rate (`float`): share of elements that become 0, rounded to a multiple of 2**-16. The others are divided by
            `1 - rate`.
    """
    words = torch.empty(-(-states.numel() // 4), dtype=torch.long, device=states.device).random_(-(2**63), None)
    draws = words.view(torch.int16)[: states.numel()].view(states.shape)
    mask = torch.empty_like(states, requires_grad=False, memory_format=torch.contiguous_format)
    torch.ge(draws, round(rate * 2**16) - 2**15, out=mask)
    return states * mask.mul_(1 / (1 - rate))


class CheapDropout(nn.Dropout):
    """Dropout layer that calls [`cheap_dropout`] in training mode."""

    def forward(self, states: Tensor) -> Tensor:
        return cheap_dropout(states, self.p) if self.training and self.p else states


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    """Computes attention as transformers calls it, with [`cheap_dropout`] of the attention weights.

    Queries, keys and values have the shape `(batch, heads, positions, d_kv)`. Masks are added to the scores.
    """
    scores = query @ key.transpose(2, 3) * scaling if scaling != 1 else query @ key.transpose(2, 3)
    for bias in (position_bias, attention_mask):
        if bias is not None:
            scores += bias  # [batch, heads, queries, keys]
    weights = scores.softmax(-1)
    if dropout:
        weights = cheap_dropout(weights, dropout)
    return (weights.to(value.dtype) @ value).transpose(1, 2), weights


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, eager_mask)


def cheapen_dropout(stack: PreTrainedModel) -> None:
    """Replaces dropout in a T5 stack by [`cheap_dropout`], in place."""
    stack.set_attn_implementation(ATTENTION)
    for module in list(stack.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, CheapDropout(child.p).train(child.training))
