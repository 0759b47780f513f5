"""Histories that are encoded once and extended by new items, for serving.

In a causal encoder an item's codes see their own item and earlier ones, so that nothing changes in a history when an
item is added: only the new item is computed, with the keys and values of those before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .headwise_t5 import encoder_bias, encoder_block, norm
from .history_encoder import additive
from .item_catalogue import ItemCatalogueMixin

BATCH_DIM = {"input_ids": 0, "attention_mask": 0, "states": 0, "keys": 2, "values": 2}  # tokens are the next one


@dataclass(frozen=True, eq=False)
class EncodedHistory:
    """What a model's encoder knows of a batch of histories, padded right.

    `encode_history` makes it, and `recommend` and `sample_items` take it. `len(encoded)` is the number of histories,
    `encoded[rows]` a copy of one of them (an index) or of several (a slice, a list, a tensor), and
    [`~EncodedHistory.join`] makes one batch of many. It belongs to the weights and codes that it was made with: after
    training, histories are encoded again.

    Args:
        input_ids, attention_mask (`torch.LongTensor` of shape `(batch, tokens)`): token ids of all items.
        states (`torch.FloatTensor` of shape `(batch, read, d_model)`): encoder states of the last `max_history` items.
        keys, values (`torch.FloatTensor` of shape `(layers, heads, batch, read, d_kv)`): those of the encoder's
            self-attention for the same items.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    states: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor

    @property
    def states_mask(self) -> torch.Tensor:
        """The attention mask of `states`, `[batch, read]`."""
        return self.attention_mask[:, : self.states.shape[1]]

    @property
    def sizes(self) -> dict[str, Any]:
        """Those of the model that it belongs to, named as in its configuration."""
        num_layers, num_heads, _, _, d_kv = self.keys.shape
        d_model, dtype = self.states.shape[-1], self.states.dtype
        return {"num_layers": num_layers, "num_heads": num_heads, "d_model": d_model, "d_kv": d_kv, "dtype": dtype}

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, rows) -> "EncodedHistory":
        rows = torch.arange(len(self), device=self.input_ids.device)[rows].view(-1)
        longest = self.attention_mask[rows].any(0).sum().item()

        def chosen(tensor: torch.Tensor, dim: int) -> torch.Tensor:
            return tensor.narrow(dim + 1, 0, min(longest, tensor.shape[dim + 1])).index_select(dim, rows)

        return EncodedHistory(**{name: chosen(getattr(self, name), dim) for name, dim in BATCH_DIM.items()})

    @classmethod
    def join(cls, histories: Sequence["EncodedHistory"]) -> "EncodedHistory":
        """One batch of the histories of several, in order.

        Raises:
            ValueError: nothing to join, or histories that models of different sizes encoded.
        """
        if not histories:
            raise ValueError("`histories` is empty; give at least one encoded history.")
        for history in histories:
            if history.sizes != histories[0].sizes:
                raise ValueError(
                    f"`histories` were encoded by models of different sizes, {histories[0].sizes} and "
                    f"{history.sizes}; join those of one model."
                )

        def joined(name: str, dim: int) -> torch.Tensor:
            parts = [getattr(history, name) for history in histories]
            users, tokens = sum(part.shape[dim] for part in parts), max(part.shape[dim + 1] for part in parts)
            whole, start = _zeros(parts[0], dim, users, tokens), 0
            for part in parts:
                whole.narrow(dim, start, part.shape[dim]).narrow(dim + 1, 0, part.shape[dim + 1]).copy_(part)
                start += part.shape[dim]
            return whole

        return cls(**{name: joined(name, dim) for name, dim in BATCH_DIM.items()})


class HistoryEncodingMixin(ItemCatalogueMixin):
    """Reading of histories: their checks, the part that is read, and its encoding for more than one request."""

    encoder: Any  # HistoryEncoder
    dtype: torch.dtype

    @torch.no_grad()
    def encode_history(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor | None = None,
        past: EncodedHistory | None = None,
    ) -> EncodedHistory:
        """Encodes histories, or only the items that came behind those of `past`.

        The result is that of the whole histories encoded at once. A history that grows beyond `max_history` items
        loses its first ones, which the others have seen, and is therefore encoded again from its last `max_history`
        items. All histories are encoded in one batch.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids of histories, or with
                `past` of each one's new items, which may be none.
            attention_mask (`torch.LongTensor` of the same shape, *optional*): 0 on padding, wherever it stands; by
                default on pad tokens.
            past ([`EncodedHistory`], *optional*): what comes before, of as many histories. It stays as it is.

        Returns:
            [`EncodedHistory`] of the whole histories.

        Raises:
            ValueError: a history of only padding or broken items, another number of histories in `past`, one that a
                model of other sizes encoded, or `past` with a bidirectional encoder.
        """
        if past is None:
            input_ids, attention_mask = _pad_right(*self._check_history(input_ids, attention_mask))
            read = _pad_right(*self._last_items(input_ids, attention_mask))
            return EncodedHistory(
                input_ids, attention_mask, *_encode_items(self.encoder, *read, self.item_vectors(read[0]))
            )
        self._check_past(past, input_ids)
        input_ids, attention_mask = _pad_right(*self._check_tokens(input_ids, attention_mask))
        added = attention_mask.sum(1)
        if not added.any():
            return past
        whole = _append(past, attention_mask, input_ids=input_ids, attention_mask=attention_mask)
        outgrown = (added > 0) & (whole["attention_mask"].sum(1) > self.config.max_history * self.config.code_length)
        if outgrown.any():
            again, extended = outgrown.nonzero().squeeze(1), (~outgrown).nonzero().squeeze(1)
            parts = [self.encode_history(whole["input_ids"][again], whole["attention_mask"][again])]
            if len(extended):
                parts.append(self.encode_history(input_ids[extended], attention_mask[extended], past[extended]))
            return EncodedHistory.join(parts)[torch.cat([again, extended]).argsort()]
        states, keys, values = _encode_items(
            self.encoder, input_ids, attention_mask, self.item_vectors(input_ids), past
        )
        return EncodedHistory(**whole, **_append(past, attention_mask, states=states, keys=keys, values=values))

    def _check_past(self, past: EncodedHistory, input_ids: torch.LongTensor) -> None:
        if self.config.encoder_attention != "causal":
            raise ValueError(
                f"`past` is given and `encoder_attention` is {self.config.encoder_attention!r}, in which a new item "
                "changes the states of all others; encode whole histories, or build and train the model with 'causal'."
            )
        if len(past) != len(input_ids):
            raise ValueError(
                f"`past` holds {len(past)} histories and `input_ids` {len(input_ids)} rows; give a row for each "
                "history, of padding where nothing is new."
            )
        self._check_encoded("past", past)

    def _check_encoded(self, name: str, encoded: EncodedHistory) -> None:
        """That a model of this one's sizes and dtype encoded these histories."""
        own = {size: getattr(self.config, size) for size in ("num_layers", "num_heads", "d_model", "d_kv")}
        if not torch.is_autocast_enabled(encoded.states.device.type):
            own["dtype"] = self.dtype
        for size, expected in own.items():
            if encoded.sizes[size] != expected:
                raise ValueError(
                    f"`{name}` was encoded with `{size}` {encoded.sizes[size]} and the model has {expected}; encode "
                    "the histories with this model."
                )

    def _check_history(
        self, input_ids: torch.LongTensor, attention_mask: torch.LongTensor | None
    ) -> tuple[torch.LongTensor, torch.LongTensor]:
        """Token ids, 0 where masked, and attention mask of histories that can be decoded."""
        input_ids, attention_mask = self._check_tokens(input_ids, attention_mask)
        empty = (attention_mask.sum(1) == 0).nonzero()
        if len(empty):
            raise ValueError(
                f"row {empty[0].item()} of `input_ids` is only padding; a history needs at least one item. "
                "Leave that user out, or recommend popular items."
            )
        return input_ids, attention_mask

    def _check_tokens(
        self, input_ids: torch.LongTensor, attention_mask: torch.LongTensor | None
    ) -> tuple[torch.LongTensor, torch.LongTensor]:
        """Token ids, 0 where masked, and attention mask of whole items, or none."""
        code_length = self.config.code_length
        if input_ids.ndim != 2 or input_ids.shape[1] % code_length:
            raise ValueError(
                f"`input_ids` has shape {tuple(input_ids.shape)}; it must be (batch, items * {code_length}): whole "
                "items of `code_length` token ids."
            )
        if attention_mask is None:
            attention_mask = input_ids != self.config.pad_token_id
        if attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"`attention_mask` has shape {tuple(attention_mask.shape)} and `input_ids` {tuple(input_ids.shape)}; "
                "both must agree."
            )
        if input_ids.numel() and not 0 <= input_ids.min() <= input_ids.max() < self.config.vocab_size:
            raise ValueError(
                f"`input_ids` range from {input_ids.min().item()} to {input_ids.max().item()}; the vocabulary has "
                f"0..{self.config.vocab_size - 1}: take the tokenizer that belongs to the model."
            )
        attention_mask = (attention_mask > 0).long()
        by_item = attention_mask.view(len(input_ids), input_ids.shape[1] // code_length, code_length)
        broken = (by_item.amin(2) != by_item.amax(2)).any(1).nonzero()
        if len(broken):
            raise ValueError(
                f"row {broken[0].item()} of `input_ids` holds part of an item, or padding that is no multiple of "
                f"{code_length} tokens; give whole items of `code_length` token ids."
            )
        return input_ids * attention_mask, attention_mask

    def _last_items(
        self, input_ids: torch.LongTensor, attention_mask: torch.LongTensor
    ) -> tuple[torch.LongTensor, torch.LongTensor]:
        """The last `max_history` items of each history."""
        kept = self.config.max_history * self.config.code_length
        if input_ids.shape[1] > kept:
            columns = torch.arange(input_ids.shape[1], device=input_ids.device)
            end = (columns * (attention_mask > 0)).amax(1, keepdim=True) + 1  # [batch, 1] behind the newest item
            columns = end - kept + columns[:kept]  # the last columns of each row
            inside = columns >= 0
            columns = columns.clamp(min=0)
            input_ids = input_ids.gather(1, columns).masked_fill(~inside, self.config.pad_token_id)
            attention_mask = attention_mask.gather(1, columns) * inside
        return input_ids, attention_mask


def _encode_items(
    encoder,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    item_vectors: torch.Tensor | None,
    past: EncodedHistory | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States, keys and values of items `[batch, tokens]` behind those of `past`, shaped as in [`EncodedHistory`]."""
    hidden = encoder.embed(input_ids, item_vectors)
    biases = [encoder_bias(encoder, attention_mask, hidden.dtype)]
    before: list = [((), ())] * len(encoder.block)
    if past is not None:
        biases.insert(0, _past_bias(encoder, past.states_mask, input_ids.shape[1], hidden.dtype))
        before = [((keys.flatten(0, 1),), (values.flatten(0, 1),)) for keys, values in zip(past.keys, past.values)]
    computed = []
    for block, (past_keys, past_values) in zip(encoder.block, before):
        hidden, key, value = encoder_block(block, hidden, biases, past_keys, past_values)
        computed.append((key, value))
    keys, values = (torch.stack(layers).unflatten(1, (-1, len(input_ids))) for layers in zip(*computed))
    return norm(encoder.final_layer_norm, hidden), keys, values


def _past_bias(encoder, past_mask: torch.Tensor, tokens: int, dtype: torch.dtype) -> torch.Tensor:
    """Position bias of new tokens, behind each row's last, on the past's: `[heads * batch, tokens, read]`."""
    read = past_mask.shape[1]
    farthest = read + tokens - 1
    attention = encoder.block[0].layer[0].SelfAttention
    by_distance = attention.compute_bias(1, farthest + 1, past_seen_tokens=farthest)[0, :, 0]  # -farthest to 0
    columns = torch.arange(farthest + 1, device=past_mask.device)
    position = past_mask.sum(1).view(-1, 1, 1) + columns[:tokens].unsqueeze(1)  # [batch, tokens, 1]
    distance = (columns[:read] - position).clamp(max=0)  # beyond 0 only on padding
    bias = by_distance[:, farthest + distance]  # [heads, batch, tokens, read]
    return (bias + additive(past_mask.unsqueeze(1) > 0, dtype)).flatten(0, 1)


def _pad_right(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same tokens in order, with all padding behind them and as little as there can be."""
    order = attention_mask.argsort(dim=1, descending=True, stable=True)[:, : attention_mask.sum(1).amax()]
    return input_ids.gather(1, order), attention_mask.gather(1, order)


def _append(past: EncodedHistory, added: torch.Tensor, **fields: torch.Tensor) -> dict[str, torch.Tensor]:
    """Fields of `past` with the tokens of `fields` that the mask `added` `[batch, tokens]` shows behind each row's."""
    rows, columns = added.nonzero(as_tuple=True)
    appended = {}
    for name, new in fields.items():
        before, dim = getattr(past, name), BATCH_DIM[name]
        width = before.shape[dim + 1]
        starts = past.attention_mask[:, :width].sum(1)
        longest = (starts + added.sum(1)).amax().item()
        appended[name] = _zeros(before, dim, len(past), longest)
        appended[name].narrow(dim + 1, 0, width).copy_(before)
        batch = (slice(None),) * dim
        appended[name][(*batch, rows, starts[rows] + columns)] = new[(*batch, rows, columns)]
    return appended


def _zeros(like: torch.Tensor, dim: int, users: int, tokens: int) -> torch.Tensor:
    """A tensor of zeros as wide as `like`, for other numbers of users (dimension `dim`) and tokens (the next one)."""
    return like.new_zeros((*like.shape[:dim], users, tokens, *like.shape[dim + 2 :]))
