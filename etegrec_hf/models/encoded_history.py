"""Histories that are encoded once and extended by new items, for serving.

In a causal encoder an item's codes see only their own item and earlier ones. So a new item changes no earlier state:
only the new item is computed, with the keys and values of the items before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .headwise_t5 import check_unhooked, encoder_bias, encoder_block, norm
from .histories import EncodedBatch, Histories
from .history_encoder import additive

BATCH_DIM = {"input_ids": 0, "attention_mask": 0, "states": 0, "keys": 2, "values": 2}  # the next one holds columns
OF_TOKENS = ("input_ids", "attention_mask")  # fields whose columns are tokens; in the others they are positions


@dataclass(frozen=True, eq=False)
class EncodedHistory:
    """A batch of histories and their encoder states, padded right.

    `encode_history` returns it; `recommend` and `sample_items` take it. `len(encoded)` is the number of histories.
    `encoded[rows]` copies one history (an index) or several (a slice, a list, a tensor).
    [`~EncodedHistory.join`] makes one batch of many. It belongs to the weights and codes that it was made with: encode
    histories again after training.

    Args:
        input_ids, attention_mask (`torch.LongTensor` of shape `(batch, tokens)`): token ids of all items.
        states (`torch.FloatTensor` of shape `(batch, read, d_model)`): encoder states of the last `max_history` items.
        keys, values (`torch.FloatTensor` of shape `(layers, heads, batch, read, d_kv)`): keys and values of the
            encoder's self-attention for the same items.
        tokens_per_position (`int`, *optional*, defaults to 1): number of token ids per state.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    states: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    tokens_per_position: int = 1

    @property
    def histories(self) -> Histories:
        """The whole histories."""
        return Histories(self.input_ids, self.attention_mask)

    @property
    def states_mask(self) -> torch.Tensor:
        """The attention mask of `states`, `[batch, read]`."""
        return self._read_mask[:, :: self.tokens_per_position]

    @property
    def _read_mask(self) -> torch.Tensor:  # of the tokens that were read
        return self.attention_mask[:, : self.states.shape[1] * self.tokens_per_position]

    @property
    def read(self) -> EncodedBatch:
        """The part of the histories that decoding reads."""
        mask = self._read_mask
        items = self.histories.last(mask.shape[1]).padded_right()
        return EncodedBatch(items.input_ids, mask, self.states)

    @property
    def sizes(self) -> dict[str, Any]:
        """Sizes and dtype of the model that encoded the histories, named as in its configuration."""
        num_layers, num_heads, _, _, d_kv = self.keys.shape
        return {
            "num_layers": num_layers,
            "num_heads": num_heads,
            "d_model": self.states.shape[-1],
            "d_kv": d_kv,
            "tokens_per_position": self.tokens_per_position,
            "dtype": self.states.dtype,
        }

    def check_model(self, name: str, model) -> None:
        """Checks that a model of these sizes and this dtype encoded the histories.

        Args:
            name (`str`): name of the histories in the error.
            model ([`ETEGRecForConditionalGeneration`]): the model that is to read them.

        Raises:
            ValueError: the model has other sizes or another dtype.
        """
        sizes = self.sizes
        dtype = sizes.pop("dtype")
        own = {size: getattr(model.config, size) for size in sizes}
        if not torch.is_autocast_enabled(self.states.device.type):
            own["dtype"], sizes["dtype"] = model.dtype, dtype
        for size, expected in own.items():
            if sizes[size] != expected:
                raise ValueError(
                    f"`{name}` was encoded with `{size}` {sizes[size]}, but the model has {expected}; encode "
                    "the histories with this model."
                )

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, rows) -> "EncodedHistory":
        rows = torch.arange(len(self), device=self.input_ids.device)[rows].view(-1)
        longest = self.attention_mask[rows].any(0).sum().item()

        def chosen(name: str, dim: int) -> torch.Tensor:
            tensor = getattr(self, name)
            columns = longest if name in OF_TOKENS else longest // self.tokens_per_position
            return tensor.narrow(dim + 1, 0, min(columns, tensor.shape[dim + 1])).index_select(dim, rows)

        return replace(self, **{name: chosen(name, dim) for name, dim in BATCH_DIM.items()})

    @classmethod
    def join(cls, histories: Sequence["EncodedHistory"]) -> "EncodedHistory":
        """Joins several batches of histories into one, in order.

        Raises:
            ValueError: nothing to join.
            ValueError: histories that models of different sizes encoded.
        """
        if not histories:
            raise ValueError("`histories` is empty; give at least one encoded history.")
        for history in histories:
            if history.sizes != histories[0].sizes:
                raise ValueError(
                    f"`histories` were encoded by models of different sizes, {histories[0].sizes} and "
                    f"{history.sizes}; join only histories of one model."
                )

        def joined(name: str, dim: int) -> torch.Tensor:
            parts = [getattr(history, name) for history in histories]
            users, tokens = sum(part.shape[dim] for part in parts), max(part.shape[dim + 1] for part in parts)
            whole, start = _zeros(parts[0], dim, users, tokens), 0
            for part in parts:
                whole.narrow(dim, start, part.shape[dim]).narrow(dim + 1, 0, part.shape[dim + 1]).copy_(part)
                start += part.shape[dim]
            return whole

        return replace(histories[0], **{name: joined(name, dim) for name, dim in BATCH_DIM.items()})


@torch.no_grad()
def encode_history(model, histories: Histories, past: EncodedHistory | None = None) -> EncodedHistory:
    """Encodes histories, or only the items that were added since `past`; see `encode_history` of the model.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the model whose encoder reads them.
        histories ([`Histories`]): whole histories; with `past` the new items alone, and a row may have none.
        past ([`EncodedHistory`], *optional*): the same histories as encoded before.

    Raises:
        ValueError: a history without items.
        ValueError: another number of histories in `past`.
        ValueError: a `past` that a model of other sizes encoded.
        ValueError: `past` with a bidirectional encoder.
    """
    if past is None:
        histories.check_not_empty()
        histories = histories.padded_right()
        read = histories.last(model.config.max_tokens).padded_right()
        per_position = model.config.tokens_per_position
        return EncodedHistory(histories.input_ids, histories.attention_mask, *_encode_items(model, read), per_position)
    _check_past(past, histories, model)
    histories = histories.padded_right()
    added = histories.attention_mask.sum(1)
    if not added.any():
        return past
    whole = _append(
        past, histories.attention_mask, input_ids=histories.input_ids, attention_mask=histories.attention_mask
    )
    outgrown = (added > 0) & (whole["attention_mask"].sum(1) > model.config.max_tokens)
    if outgrown.any():
        again, extended = outgrown.nonzero().squeeze(1), (~outgrown).nonzero().squeeze(1)
        parts = [encode_history(model, Histories(whole["input_ids"][again], whole["attention_mask"][again]))]
        if len(extended):
            parts.append(encode_history(model, histories.part(extended, slice(None)), past[extended]))
        return EncodedHistory.join(parts)[torch.cat([again, extended]).argsort()]
    states, keys, values = _encode_items(model, histories, past)
    positions_mask = model.encoder.positions_mask(histories.attention_mask)
    return replace(past, **whole, **_append(past, positions_mask, states=states, keys=keys, values=values))


def _check_past(past: EncodedHistory, histories: Histories, model) -> None:
    if model.config.encoder_attention != "causal":
        raise ValueError(
            f"`past` is given and `encoder_attention` is {model.config.encoder_attention!r}, so that a new item would "
            "change the states of all others; encode whole histories, or build and train the model with 'causal'."
        )
    if len(past) != len(histories):
        held, given = len(past), len(histories)
        raise ValueError(
            f"`past` holds {held} {'history' if held == 1 else 'histories'} and `input_ids` has {given} "
            f"row{'s' * (given != 1)}; give one row per history, with only padding for a history without new items."
        )
    past.check_model("past", model)


def _encode_items(
    model, histories: Histories, past: EncodedHistory | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns states, keys and values of the items that follow `past`, with the shapes of [`EncodedHistory`]."""
    encoder, input_ids = model.encoder, histories.input_ids
    check_unhooked(encoder)
    hidden = encoder.embed(input_ids, model.item_vectors(input_ids))
    biases = [encoder_bias(encoder, encoder.positions_mask(histories.attention_mask), hidden.dtype)]
    before: list = [((), ())] * len(encoder.block)
    if past is not None:
        biases.insert(0, _past_bias(encoder, past.states_mask, hidden.shape[1], hidden.dtype))
        before = [((keys.flatten(0, 1),), (values.flatten(0, 1),)) for keys, values in zip(past.keys, past.values)]
    computed = []
    for block, (past_keys, past_values) in zip(encoder.block, before):
        hidden, key, value = encoder_block(block, hidden, biases, past_keys, past_values)
        computed.append((key, value))
    keys, values = (torch.stack(layers).unflatten(1, (-1, len(input_ids))) for layers in zip(*computed))
    return norm(encoder.final_layer_norm, hidden), keys, values


def _past_bias(encoder, past_mask: torch.Tensor, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Returns the attention bias of `count` new positions on the past ones, `[heads * batch, count, read]`.

    The new positions follow each row's last one.
    """
    read = past_mask.shape[1]
    farthest = read + count - 1
    attention = encoder.block[0].layer[0].SelfAttention
    by_distance = attention.compute_bias(1, farthest + 1, past_mask.device, farthest)[0, :, 0]  # -farthest to 0
    columns = torch.arange(farthest + 1, device=past_mask.device)
    position = past_mask.sum(1).view(-1, 1, 1) + columns[:count].unsqueeze(1)  # [batch, count, 1]
    distance = (columns[:read] - position).clamp(max=0)  # beyond 0 only on padding
    bias = by_distance[:, farthest + distance]  # [heads, batch, count, read]
    return (bias + additive(past_mask.unsqueeze(1) > 0, dtype)).flatten(0, 1)


def _append(past: EncodedHistory, added: torch.Tensor, **fields: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns fields of `past`, each row extended by those columns of `fields` for which the mask `added` is set.

    The columns of `added` `[batch, columns]` are tokens or positions, like those of the fields.
    """
    rows, columns = added.nonzero(as_tuple=True)
    appended = {}
    for name, new in fields.items():
        before, dim = getattr(past, name), BATCH_DIM[name]
        width = before.shape[dim + 1]
        starts = (past.attention_mask if name in OF_TOKENS else past.states_mask).sum(1)
        longest = (starts + added.sum(1)).amax().item()
        appended[name] = _zeros(before, dim, len(past), longest)
        appended[name].narrow(dim + 1, 0, width).copy_(before)
        batch = (slice(None),) * dim
        appended[name][(*batch, rows, starts[rows] + columns)] = new[(*batch, rows, columns)]
    return appended


def _zeros(like: torch.Tensor, dim: int, users: int, tokens: int) -> torch.Tensor:
    """Returns zeros shaped like `like`, for `users` in dimension `dim` and `tokens` in the next one."""
    return like.new_zeros((*like.shape[:dim], users, tokens, *like.shape[dim + 2 :]))
