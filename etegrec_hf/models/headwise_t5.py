"""T5 stacks run for decoding, with every tensor ordered by head.

The modules and weights are those of transformers' T5, but its attention turns queries, keys and values from
`[batch, positions, heads, d_kv]` to `[batch, heads, positions, d_kv]` and back. Here each head's projection is a
product of its own, batched over heads, so that what one product writes is what the next one reads; only attention's
result is turned, in front of its last product.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from .history_encoder import additive

PLAIN = (nn.Linear, nn.Embedding, T5LayerNorm)
RECORDERS = "transformers.utils.output_capturing"


def plain_weight(module: nn.Module) -> nn.Parameter | None:
    """The weight of a module that computes what its class says with it, which may then be read past the module.

    Adapters and quantised layers are other classes or hold other tensors. Hooks see and change what a module computes;
    accelerate's, which also fetch offloaded weights, replace its `forward`. All of these have none, and are called.
    """
    if type(module) not in PLAIN or module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return None
    weight = module._parameters.get("weight")
    return weight if type(weight) is nn.Parameter and weight.is_floating_point() else None


def applied(linear: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """What a linear layer makes of states, which are cast to its weight's dtype; quantised layers cast them."""
    weight = linear.weight
    is_float = isinstance(weight, torch.Tensor) and weight.is_floating_point()
    return linear(states.to(weight.dtype) if is_float else states)


def check_unhooked(stack: nn.Module) -> None:
    """Looks for hooks on those modules of a T5 stack that are read past: what they change would be passed over.

    Raises:
        ValueError: a forward hook, other than those by which transformers records hidden states and attentions.
    """
    layers = [layer for block in stack.block for layer in block.layer]
    inner = [next(iter(layer.children())) for layer in layers]  # the attention or feed-forward layer that each holds
    dropouts = [module.dropout for module in (stack, *layers, *inner) if isinstance(module.dropout, nn.Module)]
    for module in (stack, *stack.block, *layers, *inner, *dropouts):
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            if getattr(hook, "__module__", None) != RECORDERS:
                raise ValueError(
                    f"a {type(module).__name__} has the forward hook {hook!r}, and a search reads its linear layers "
                    "without calling it; remove the hook, put it on linear layers, or use `generate` and `labels`."
                )


class HeadwiseAttention:
    """A T5 attention module whose weights are read by head, without dropout.

    Args:
        attention (`T5Attention`): the module.
    """

    def __init__(self, attention):
        self.heads, self.output = attention.n_heads, attention.o
        self.query, self.key, self.value = (self._by_head(one) for one in (attention.q, attention.k, attention.v))

    def _by_head(self, linear: nn.Module) -> torch.Tensor | nn.Module:
        """The matrices `[heads, d_model, d_kv]` of a linear layer, or the layer if these can't be read."""
        weight = plain_weight(linear)
        return linear if weight is None else weight.T.unflatten(1, (self.heads, -1)).transpose(0, 1)

    def project(self, states: torch.Tensor, weight: torch.Tensor | nn.Module) -> torch.Tensor:
        """Queries, keys or values `[heads * batch, positions, d_kv]` of `states` `[batch, positions, d_model]`."""
        batch, positions, width = states.shape
        if isinstance(weight, nn.Module):
            projected = weight(states).view(batch, positions, self.heads, -1)
            return projected.permute(2, 0, 1, 3).reshape(self.heads * batch, positions, -1)
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
        by_row = context.view(self.heads, len(rows), -1).transpose(0, 1).reshape(len(rows), -1)
        return _add_product(rows, by_row, self.output).view(residual.shape)


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
    check_unhooked(encoder)
    for block in encoder.block:
        hidden = encoder_block(block, hidden, [bias])[0]
    return norm(encoder.final_layer_norm, hidden)


def encoder_bias(encoder, positions_mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Position bias of positions on each other, the lowest on unseen ones: `[heads * batch, positions, positions]`."""
    count = positions_mask.shape[1]
    position_bias = (
        encoder.block[0].layer[0].SelfAttention.compute_bias(count, count, positions_mask.device)
    )  # [1, heads, count, count]
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
    weight = None if torch.is_grad_enabled() else plain_weight(layer_norm)
    if weight is None:
        return layer_norm(hidden)
    length = torch.linalg.vector_norm(
        hidden, dim=-1, keepdim=True, dtype=torch.promote_types(hidden.dtype, torch.float32)
    )
    scale = (length.square_().div_(hidden.shape[-1]).add_(layer_norm.variance_epsilon)).rsqrt_()
    if hidden.dtype != weight.dtype and weight.dtype in (torch.float16, torch.bfloat16):  # a wider residual, as T5's
        return (hidden * scale).to(weight.dtype).mul_(weight)
    return (hidden * scale.to(hidden.dtype)).mul_(weight)


def feed_forward(block, hidden: torch.Tensor) -> torch.Tensor:
    """The feed-forward layer of a T5 block, gated or not."""
    dense = block.layer[-1].DenseReluDense
    normed = norm(block.layer[-1].layer_norm, hidden)
    if not hasattr(dense, "wi"):
        inner = dense.act(dense.wi_0(normed)) * dense.wi_1(normed)
    elif _is_plain_relu(dense.act) and not torch.is_grad_enabled() and plain_weight(dense.wi) is not None:
        inner = dense.wi(normed).relu_()  # which nobody else has seen
    else:
        inner = dense.act(dense.wi(normed))
    return _add_product(hidden.flatten(0, 1), inner.flatten(0, 1), dense.wo).view(hidden.shape)


def _is_plain_relu(module: nn.Module) -> bool:
    return type(module) is nn.ReLU and not module._forward_hooks and not module._forward_pre_hooks


def _add_product(residual: torch.Tensor, rows: torch.Tensor, linear: nn.Module) -> torch.Tensor:
    """`residual` `[n, out]` and what a linear layer without bias makes of `rows` `[n, in]`, in the wider dtype.

    Of a model in float16 transformers keeps T5's `wo` in float32, and the residual too from there on.
    """
    weight = plain_weight(linear)
    if weight is not None and residual.dtype == rows.dtype == weight.dtype:
        return torch.addmm(residual, rows, weight.T)
    return residual + applied(linear, rows)
