"""Histories as token ids: their checks, the part of them that is read, and their encoder states."""

from dataclasses import dataclass

import torch

from .configuration_etegrec import ETEGRecConfig


@dataclass(frozen=True, eq=False)
class Histories:
    """A checked batch of histories: whole items, oldest first, padded anywhere.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids, 0 on padding.
        attention_mask (`torch.LongTensor` of the same shape): 0 on padding, else 1.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor

    @classmethod
    def checked(
        cls, config: ETEGRecConfig, input_ids: torch.LongTensor, attention_mask: torch.LongTensor | None = None
    ) -> "Histories":
        """Returns histories, after a check that their tokens are whole items; a row may be only padding.

        Args:
            config ([`ETEGRecConfig`]): the model's configuration.
            input_ids (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids.
            attention_mask (`torch.LongTensor` of the same shape, *optional*): 0 on padding; by default on pad tokens.

        Raises:
            ValueError: anything other than tensors of whole numbers.
            ValueError: a shape that isn't that of whole items.
            ValueError: a mask of another shape than the token ids.
            ValueError: a token id outside the vocabulary.
            ValueError: a row that holds part of an item.
        """
        code_length = config.code_length
        check_tensors(input_ids, attention_mask)
        if input_ids.ndim != 2 or input_ids.shape[1] % code_length:
            raise ValueError(
                f"`input_ids` has shape {tuple(input_ids.shape)}; it must be (batch, items * {code_length}), as each "
                "item has `code_length` token ids."
            )
        if attention_mask is None:
            attention_mask = input_ids != config.pad_token_id
        if attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"`attention_mask` has shape {tuple(attention_mask.shape)} and `input_ids` {tuple(input_ids.shape)}; "
                "the shapes must be equal."
            )
        if input_ids.numel() and not 0 <= input_ids.min() <= input_ids.max() < config.vocab_size:
            raise ValueError(
                f"`input_ids` range from {input_ids.min().item()} to {input_ids.max().item()}, but the vocabulary is "
                f"0..{config.vocab_size - 1}; use the tokenizer from the model's folder."
            )
        attention_mask = (attention_mask > 0).long()
        by_item = attention_mask.view(len(input_ids), input_ids.shape[1] // code_length, code_length)
        broken = (by_item.amin(2) != by_item.amax(2)).any(1).nonzero()
        if len(broken):
            raise ValueError(
                f"row {broken[0].item()} of `input_ids` holds part of an item, or padding that isn't a multiple of "
                f"{code_length} tokens; give whole items, each with `code_length` token ids."
            )
        return cls(input_ids * attention_mask, attention_mask)

    def check_not_empty(self) -> None:
        """Checks that no row is only padding.

        Raises:
            ValueError: a history without items.
        """
        empty = (self.attention_mask.sum(1) == 0).nonzero()
        if len(empty):
            raise ValueError(
                f"row {empty[0].item()} of `input_ids` is only padding; a history needs at least one item. "
                "Leave that user out, or recommend popular items."
            )

    def __len__(self) -> int:
        return len(self.input_ids)

    def last(self, tokens: int) -> "Histories":
        """Returns the last `tokens` token ids of each history, which is the part that a model reads."""
        if self.input_ids.shape[1] <= tokens:
            return self
        columns = torch.arange(self.input_ids.shape[1], device=self.input_ids.device)
        end = (columns * (self.attention_mask > 0)).amax(1, keepdim=True) + 1  # [batch, 1] after the newest item
        columns = end - tokens + columns[:tokens]  # the last columns of each row
        inside = columns >= 0
        columns = columns.clamp(min=0)
        return Histories(
            self.input_ids.gather(1, columns).masked_fill(~inside, 0), self.attention_mask.gather(1, columns) * inside
        )

    def padded_right(self) -> "Histories":
        """Returns the same tokens in the same order, padded only on the right, to the longest history."""
        longest = self.attention_mask.sum(1).amax() if len(self) else 0
        order = self.attention_mask.argsort(dim=1, descending=True, stable=True)[:, :longest]
        return Histories(self.input_ids.gather(1, order), self.attention_mask.gather(1, order))

    def part(self, rows: torch.LongTensor, columns: slice) -> "Histories":
        """Returns the given columns of the given rows."""
        return Histories(self.input_ids[rows, columns], self.attention_mask[rows, columns])


def check_tensors(input_ids, attention_mask=None) -> None:
    """Checks that histories are tensors of token ids; a mask is optional and may hold any numbers.

    Raises:
        ValueError: `input_ids` that aren't a tensor of whole numbers.
        ValueError: an `attention_mask` that isn't a tensor.
    """
    for name, given in {"input_ids": input_ids, "attention_mask": attention_mask}.items():
        if given is None and name == "attention_mask":
            continue
        is_tensor = isinstance(given, torch.Tensor)
        if not is_tensor or (name == "input_ids" and (given.is_floating_point() or given.dtype == torch.bool)):
            found = given.dtype if is_tensor else type(given).__name__
            raise ValueError(
                f"`{name}` is {found}; give a tensor of whole numbers, for example with "
                '`**tokenizer(histories, padding=True, return_tensors="pt")`.'
            )


def newer_than_each(is_real: torch.Tensor) -> torch.LongTensor:
    """Returns how many real places of a row come after each place of `is_real` `[batch, places]`.

    >>> newer_than_each(torch.tensor([[True, True, False, True, False]])).tolist()
    [[2, 1, 1, 0, 0]]
    """
    return is_real.flip(1).cumsum(1).flip(1) - is_real.long()


def newest_items(items: torch.LongTensor, count: int) -> torch.LongTensor:
    """Returns the newest `count` of `items` `[batch, items]`, which may be padded anywhere.

    Returns:
        `torch.LongTensor` of shape `(batch, count)`: newest first; rows with fewer items are padded with 0.
    """
    is_item = items > 0
    place = newer_than_each(is_item).masked_fill(~is_item, count).clamp(max=count)
    return items.new_zeros(len(items), count + 1).scatter_(1, place, items)[:, :count]


def newest_items_before(items: torch.LongTensor, history_lengths: torch.LongTensor, count: int) -> torch.LongTensor:
    """Returns for each target the newest `count` of the items that come before it: `[batch, targets, count]`.

    Before a target come the first `history_lengths` `[batch, targets]` items of its row. Rows of `items`
    `[batch, items]` are padded right.
    """
    place = history_lengths.unsqueeze(2) - 1 - torch.arange(count, device=items.device)  # [batch, targets, count]
    within = place.clamp(0, items.shape[1] - 1)  # lengths of targets that are padding may be anything
    chosen = items.unsqueeze(1).expand(-1, place.shape[1], -1).gather(2, within)
    return chosen.masked_fill(place < 0, 0)


@dataclass(frozen=True, eq=False)
class EncodedBatch:
    """A batch of encoded histories, from which alone codes are decoded.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch, tokens)`, *optional*): token ids of the histories, which models
            with a repeat bias or item logits need.
        attention_mask (`torch.LongTensor` of shape `(batch, tokens)`): 0 on padding.
        states (`torch.FloatTensor` of shape `(batch, positions, d_model)`): encoder states; a position is one token or
            one item.
    """

    input_ids: torch.Tensor | None
    attention_mask: torch.Tensor
    states: torch.Tensor

    @classmethod
    def checked(
        cls,
        config: ETEGRecConfig,
        input_ids: torch.LongTensor | None,
        attention_mask: torch.LongTensor | None,
        states: torch.FloatTensor,
    ) -> "EncodedBatch":
        """Returns a batch of states that a caller gave, after a check of the mask.

        Args:
            config ([`ETEGRecConfig`]): the model's configuration.
            input_ids (`torch.LongTensor` of shape `(batch, tokens)`, *optional*): token ids of the histories.
            attention_mask (`torch.LongTensor` of shape `(batch, tokens)` or `(batch, positions)`, *optional*): 0 on
                padding; by default there is none.
            states (`torch.FloatTensor` of shape `(batch, positions, d_model)`): encoder states.

        Raises:
            ValueError: a mask of another length than the states.
        """
        positions, per_position = states.shape[1], config.tokens_per_position
        if attention_mask is None:
            attention_mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
        if attention_mask.shape[1] == positions:
            attention_mask = attention_mask.repeat_interleave(per_position, dim=1)
        if attention_mask.shape[1] != positions * per_position:
            raise ValueError(
                f"`encoder_outputs` hold {positions} states per history, but `attention_mask` "
                f"{attention_mask.shape[1]} tokens, with {per_position} per state; encode exactly the items of "
                "`input_ids`, at most `max_history` of them."
            )
        return cls(input_ids, attention_mask, states)

    @property
    def tokens_per_position(self) -> int:
        """Number of token ids per state."""
        return self.attention_mask.shape[1] // max(1, self.states.shape[1])

    @property
    def positions_mask(self) -> torch.LongTensor:
        """The attention mask of `states`, `[batch, positions]`."""
        return self.attention_mask[:, :: self.tokens_per_position]

    def mean_states(self) -> torch.FloatTensor:
        """Returns means `[batch, d_model]` of the states, padding left out."""
        mask = self._mask()
        return (self.states * mask).sum(1) / mask.sum(1).clamp(min=1)

    def last_states(self) -> torch.FloatTensor:
        """Returns the last states of the newest items, `[batch, 1, d_model]`; any state for a row of padding."""
        columns = torch.arange(self.states.shape[1], device=self.states.device)
        newest = (columns * (self.positions_mask > 0)).amax(1)
        return self.states.take_along_dim(newest.view(-1, 1, 1), dim=1)

    def mean_states_before(self, tokens: torch.LongTensor) -> torch.FloatTensor:
        """Returns means `[batch, targets, d_model]` of the states of each row's first `tokens` `[batch, targets]`."""
        mask, last = self._mask(), self._last_of(tokens)
        sums, counts = (part.cumsum(1).take_along_dim(last, dim=1) for part in (self.states * mask, mask))
        return sums / counts.clamp(min=1)

    def last_states_before(self, tokens: torch.LongTensor) -> torch.FloatTensor:
        """Returns the last states `[batch, targets, d_model]` of each row's first `tokens` `[batch, targets]`."""
        return self.states.take_along_dim(self._last_of(tokens), dim=1)

    def _last_of(self, tokens: torch.LongTensor) -> torch.LongTensor:
        return (tokens // self.tokens_per_position - 1).clamp(min=0).unsqueeze(-1)  # [batch, targets, 1]

    def _mask(self) -> torch.Tensor:
        return self.positions_mask.unsqueeze(-1).to(self.states.dtype)  # [batch, positions, 1]
