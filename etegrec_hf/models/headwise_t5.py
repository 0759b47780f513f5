"""T5 stacks run for decoding, with every tensor ordered by head.

The modules and weights are those of transformers' T5. Its attention transposes queries, keys and values from
`[batch, positions, heads, d_kv]` to `[batch, heads, positions, d_kv]` and back. Here each head's projection is a
product of its own, batched over heads, so that one product's result needs no transposing before the next product.
Only attention's result is transposed, before its last product.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from .history_encoder import additive

PLAIN = (nn.Linear, nn.Embedding, T5LayerNorm)
RECORDERS = "transformers.utils.output_capturing"


def plain_weight(module: nn.Module) -> nn.Parameter | None:
    """Returns the weight of an unchanged module, which may be used without calling the module, or None.

    None is returned for modules that must be called: adapters and quantised layers, which are other classes or hold
    other tensors, and modules with hooks. accelerate's hooks, which also fetch offloaded weights, replace `forward`.
    """
    if type(module) not in PLAIN or module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return None
    weight = module._parameters.get("weight")
    return weight if type(weight) is nn.Parameter and weight.is_floating_point() else None


def applied(linear: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """Applies a linear layer to states, cast to the dtype of its weight; quantised layers cast them on their own."""
    weight = linear.weight
    is_float = isinstance(weight, torch.Tensor) and weight.is_floating_point()
    return linear(states.to(weight.dtype) if is_float else states)


def check_unhooked(stack: nn.Module) -> None:
    """Checks that modules of a T5 stack which this file doesn't call have no hooks, which would have no effect.

    Raises:
        ValueError: a forward hook, other than those with which transformers records hidden states and attentions.
    """
    layers = [layer for block in stack.block for layer in block.layer]
    inner = [next(iter(layer.children())) for layer in layers]  # the attention or feed-forward layer that each holds
    dropouts = [module.dropout for module in (stack, *layers, *inner) if isinstance(module.dropout, nn.Module)]
    for module in (stack, *stack.block, *layers, *inner, *dropouts):
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            if getattr(hook, "__module__", None) != RECORDERS:
                raise ValueError(
                    f"a {type(module).__name__} has the forward hook {hook!r}, but a search reads its linear layers "
                    "without calling it; remove the hook, put it on linear layers, or use `generate` and `labels`."
                )


class HeadwiseAttention:
    """A T5 attention module computed head by head from its weights, without dropout.

    Args:
        attention (`T5Attention`): the module.
    """

    def __init__(self, attention):
        self.heads, self.output = attention.n_heads, attention.o
        self.query, self.key, self.value = (self._by_head(one) for one in (attention.q, attention.k, attention.v))

    def _by_head(self, linear: nn.Module) -> torch.Tensor | nn.Module:
        """Returns the matrices `[heads, d_model, d_kv]` of a linear layer, or the layer if it has to be called."""
        weight = plain_weight(linear)
        return linear if weight is None else weight.T.unflatten(1, (self.heads, -1)).transpose(0, 1)

    def project(self, states: torch.Tensor, weight: torch.Tensor | nn.Module) -> torch.Tensor:
        """Returns queries, keys or values `[heads * batch, positions, d_kv]` of states `[batch, positions, d_model]`.

        `weight` is `query`, `key` or `value` of this object.
        """
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
        """Returns `residual` plus the result of attention, `[batch, positions, d_model]`.

        `query` has the shape `[heads * batch, positions, d_kv]`. Keys and values come in chunks
        `[heads * batch, n, d_kv]`, each with a bias `[heads * batch, positions, n]`. One softmax covers all chunks.
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
    """Returns the states `[batch, positions, d_model]` of a T5 encoder as in eval mode, whatever its mode.

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
    """Returns attention biases `[heads * batch, positions, positions]` of an encoder.

    They are the position bias between positions that see each other, and a very low number otherwise.
    """
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
    """Returns the states after a block of the encoder, and the keys and values of `hidden`.

    Attention reads the keys and values of the past before those of `hidden`. Keys, values and biases are in chunks, as
    in [`HeadwiseAttention.attend`].
    """
    attention = HeadwiseAttention(block.layer[0].SelfAttention)
    normed = norm(block.layer[0].layer_norm, hidden)
    query, key, value = (
        attention.project(normed, weight) for weight in (attention.query, attention.key, attention.value)
    )
    hidden = attention.attend(hidden, query, [*past_keys, key], [*past_values, value], biases)
    return feed_forward(block, hidden), key, value


def norm(layer_norm, hidden: torch.Tensor) -> torch.Tensor:
    """Applies a T5 layer norm; without gradients, it writes in place and so needs fewer passes than the module."""
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
    """Applies the feed-forward layer of a T5 block, gated or not."""
    dense = block.layer[-1].DenseReluDense
    normed = norm(block.layer[-1].layer_norm, hidden)
    if not hasattr(dense, "wi"):
        inner = dense.act(dense.wi_0(normed)) * dense.wi_1(normed)
    elif _is_plain_relu(dense.act) and not torch.is_grad_enabled() and plain_weight(dense.wi) is not None:
        inner = dense.wi(normed).relu_()  # in place: nothing else holds this tensor
    else:
        inner = dense.act(dense.wi(normed))
    return _add_product(hidden.flatten(0, 1), inner.flatten(0, 1), dense.wo).view(hidden.shape)


def _is_plain_relu(module: nn.Module) -> bool:
    return type(module) is nn.ReLU and not module._forward_hooks and not module._forward_pre_hooks


def _add_product(residual: torch.Tensor, rows: torch.Tensor, linear: nn.Module) -> torch.Tensor:
    """Returns `residual` `[n, out]` plus a linear layer without bias applied to `rows` `[n, in]`, in the wider dtype.

    In a float16 model, transformers keeps T5's `wo` in float32, and so the residual from there on.
    """
    weight = plain_weight(linear)
    if weight is not None and residual.dtype == rows.dtype == weight.dtype:
        return torch.addmm(residual, rows, weight.T)
    return residual + applied(linear, rows)
