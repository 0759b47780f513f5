"""T5 stacks run for decoding, with every tensor ordered by head.

The modules and weights are those of transformers' T5, but its attention turns queries, keys and values from
`[batch, positions, heads, d_kv]` to `[batch, heads, positions, d_kv]` and back. Here each head's projection is a
product of its own, batched over heads, so that what one product writes is what the next one reads; only attention's
result is turned, in front of its last product.
"""

from collections.abc import Sequence

import torch
from torch import nn

from .history_encoder import additive


class HeadwiseAttention:
    """A T5 attention module whose weights are read by head, without dropout.

    Args:
        attention (`T5Attention`): the module.
    """

    def __init__(self, attention):
        heads = attention.n_heads
        self.query, self.key, self.value = (
            _matrix(linear).unflatten(1, (heads, -1)).transpose(0, 1)  # [heads, d_model, d_kv]
            for linear in (attention.q, attention.k, attention.v)
        )
        self.output = _matrix(attention.o)  # [heads * d_kv, d_model]

    def project(self, states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Queries, keys or values `[heads * batch, positions, d_kv]` of `states` `[batch, positions, d_model]`."""
        batch, positions, width = states.shape
        rows = states.reshape(1, batch * positions, width).expand(len(weight), -1, -1)
        return torch.bmm(rows, weight).view(len(weight) * batch, positions, -1)

    def attend(
        self,
        residual: torch.Tensor,
        query: torch.Tensor,
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
        biases: list[torch.Tensor],
    ) -> torch.Tensor:
        """What attention adds to `residual`, and that: `[batch, positions, d_model]`.

        `query` is `[heads * batch, positions, d_kv]`. Keys and values come in chunks `[heads * batch, n, d_kv]`, each
        with a bias `[heads * batch, positions, n]`, and are attended to together.
        """
        scores = [torch.baddbmm(bias, query, key.transpose(1, 2)) for bias, key in zip(biases, keys)]
        weights = torch.cat(scores, dim=2).softmax(-1) if len(scores) > 1 else scores[0].softmax(-1)
        chunks = weights.split([key.shape[1] for key in keys], dim=2)
        context = torch.bmm(chunks[0], values[0])
        for chunk, value in zip(chunks[1:], values[1:]):
            context.baddbmm_(chunk.to(value.dtype), value)
        rows = residual.flatten(0, 1)
        by_row = context.view(len(self.query), len(rows), -1).transpose(0, 1).reshape(len(rows), -1)
        return torch.addmm(rows, by_row, self.output).view(residual.shape)


def encode(
    encoder, input_ids: torch.Tensor, attention_mask: torch.Tensor, item_vectors: torch.Tensor | None = None
) -> torch.Tensor:
    """What a T5 encoder in eval mode returns, whatever its mode: states `[batch, positions, d_model]`.

    Args:
        encoder ([`HistoryEncoder`]): the encoder.
        input_ids, attention_mask (`torch.LongTensor` of shape `(batch, tokens)`): histories; 0 in the mask on padding.
        item_vectors (`torch.FloatTensor` of shape `(batch, items, d_model)`, *optional*): see [`ItemInputs`].
    """
    hidden = encoder.embed(input_ids, item_vectors)
    bias = encoder_bias(encoder, encoder.positions_mask(attention_mask), hidden.dtype)
    for block in encoder.block:
        hidden = encoder_block(block, hidden, [bias])[0]
    return norm(encoder.final_layer_norm, hidden)


def encoder_bias(encoder, positions_mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Position bias of positions on each other, the lowest on unseen ones: `[heads * batch, positions, positions]`."""
    count = positions_mask.shape[1]
    position_bias = encoder.block[0].layer[0].SelfAttention.compute_bias(count, count)  # [1, heads, count, count]
    unseen = additive(encoder.visible(positions_mask), dtype)  # [batch, 1 or count, count]
    return (position_bias[0].unsqueeze(1) + unseen).flatten(0, 1)


def encoder_block(
    block,
    hidden: torch.Tensor,
    biases: list[torch.Tensor],
    past_keys: Sequence[torch.Tensor] = (),
    past_values: Sequence[torch.Tensor] = (),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States behind a block of the encoder, and its keys and values of `hidden`, which come behind those of the past.

    Keys, values and biases are in chunks, as in [`HeadwiseAttention.attend`].
    """
    attention = HeadwiseAttention(block.layer[0].SelfAttention)
    normed = norm(block.layer[0].layer_norm, hidden)
    query, key, value = (
        attention.project(normed, weight) for weight in (attention.query, attention.key, attention.value)
    )
    hidden = attention.attend(hidden, query, [*past_keys, key], [*past_values, value], biases)
    return feed_forward(block, hidden), key, value


def norm(layer_norm, hidden: torch.Tensor) -> torch.Tensor:
    """A T5 layer norm, in fewer passes than the module's where no gradient forbids writing in place."""
    if torch.is_grad_enabled():
        return layer_norm(hidden)
    length = torch.linalg.vector_norm(
        hidden, dim=-1, keepdim=True, dtype=torch.promote_types(hidden.dtype, torch.float32)
    )
    scale = (length.square_().div_(hidden.shape[-1]).add_(layer_norm.variance_epsilon)).rsqrt_()
    return (hidden * scale.to(hidden.dtype)).mul_(layer_norm.weight)


def feed_forward(block, hidden: torch.Tensor) -> torch.Tensor:
    """The feed-forward layer of a T5 block, gated or not."""
    dense = block.layer[-1].DenseReluDense
    normed = norm(block.layer[-1].layer_norm, hidden)
    inner = dense.act(dense.wi(normed)) if hasattr(dense, "wi") else dense.act(dense.wi_0(normed)) * dense.wi_1(normed)
    return torch.addmm(hidden.flatten(0, 1), inner.flatten(0, 1), _matrix(dense.wo)).view(hidden.shape)


def _matrix(linear: nn.Module) -> torch.Tensor:
    """The matrix `[in, out]` of a linear layer without bias; of an adapter around one, what it multiplies with."""
    if type(linear) is nn.Linear:
        return linear.weight.T
    return linear(torch.eye(linear.in_features, dtype=linear.weight.dtype, device=linear.weight.device))
