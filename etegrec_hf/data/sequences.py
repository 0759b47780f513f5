"""Batches of histories and targets, made without a Python loop over rows."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from .prepared import Split


class SequenceDataset(Dataset):
    """Histories and targets of a split, as item indices.

    Each user's sequence is kept in memory once. A sample is the position of its target, and its history is cut from
    the sequence when the sample is read. [`SequenceDataset.for_training`] and [`SequenceDataset.for_evaluation`]
    choose the positions.

    Args:
        split ([`Split`]): sequences.
        max_history (`int`): number of a history's last items that are read.
        rows (`np.ndarray` of shape `(samples,)`): row of the split that each sample belongs to.
        position (`np.ndarray` of shape `(samples,)`): position of each sample's target in the split's sequences.

    Attributes:
        lengths (`np.ndarray` of shape `(samples,)`): number of items that are read of each history.

    Raises:
        ValueError: no samples.
    """

    def __init__(self, split: Split, max_history: int, rows: np.ndarray, position: np.ndarray):
        if not len(rows):
            raise ValueError("the split is empty: no row has both a history and a target; check the prepared dataset.")
        self.sequences, self.rows, self.position = split.sequences, rows, position
        self.lengths = np.minimum(position - split.offsets[rows], max_history)

    @classmethod
    def for_training(cls, split: Split, max_history: int) -> "SequenceDataset":
        """Makes a dataset in which each item of a row after the first is a target.

        Raises:
            ValueError: no row has a history.
        """
        rows = np.repeat(np.arange(len(split)), np.diff(split.offsets) - 1)
        return cls(split, max_history, rows, np.delete(np.arange(len(split.sequences)), split.offsets[:-1]))

    @classmethod
    def for_evaluation(cls, split: Split, max_history: int, limit: int | None = None) -> "SequenceDataset":
        """Makes a dataset in which the last item of each row is a target, sorted by the lengths of histories.

        Args:
            split, max_history: as in the constructor.
            limit (`int`, *optional*): largest number of samples, which are chosen at random, the same at every call.

        Raises:
            ValueError: no row has a history.
        """
        lengths = np.diff(split.offsets) - 1
        rows = np.flatnonzero(lengths)
        if limit is not None and limit < len(rows):
            rows = np.sort(np.random.default_rng(0).choice(rows, limit, replace=False))
        rows = rows[np.argsort(np.minimum(lengths[rows], max_history), kind="stable")]
        return cls(split, max_history, rows, split.offsets[rows + 1] - 1)

    def __len__(self) -> int:
        return len(self.position)

    @property
    def n_targets(self) -> int:
        """Number of targets, which is the number of samples."""
        return len(self)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """Returns one batch: `history` `[batch, longest]`, padded right with 0, and `target` `[batch]`."""
        position, length = self.position[indices], self.lengths[indices]
        column = np.arange(length.max())
        source = (position - length)[:, None] + column  # [B, T]
        inside = column < length[:, None]
        history = np.where(inside, self.sequences[np.where(inside, source, 0)], 0)
        return {"history": torch.from_numpy(history), "target": torch.from_numpy(self.sequences[position])}


class WholeSequenceDataset(Dataset):
    """Whole training sequences, in which each item after the first is predicted from the items before it.

    Sequences of more than `max_history + 1` items are cut into windows, so that every item is a target once.

    Args:
        split ([`Split`]): training sequences.
        max_history (`int`): largest number of items that are read per window.
        context (`int`, *optional*, defaults to 0): number of items that a window repeats from the window before. Each
            new target of the window then comes after more than `context` items.
        order_noise (`float`, *optional*, defaults to 0.0): standard deviation, in places, of random numbers that are
            added to the items' places before the items are sorted by place again. Each batch draws new numbers. Use
            it for logs that know the day of an interaction but not the order within the day. A window that repeats
            items of the window before keeps its order.
        seed (`int`, *optional*, defaults to 0): random seed of that noise, which depends on seed and batch alone.

    Attributes:
        lengths (`np.ndarray` of shape `(windows,)`): number of items that are read per window.

    Raises:
        ValueError: no sequence has two items.
    """

    def __init__(self, split: Split, max_history: int, context: int = 0, order_noise: float = 0.0, seed: int = 0):
        self.sequences, self.context = split.sequences, context
        self.order_noise, self.seed = order_noise, seed
        targets = np.diff(split.offsets) - 1  # of each sequence
        step = max_history - context
        windows = np.where(targets > 0, 1 + np.maximum(0, -(-(targets - max_history) // step)), 0)
        number = np.arange(windows.sum()) - np.repeat(
            windows.cumsum() - windows, windows
        )  # of a window in its sequence
        self.starts = np.repeat(split.offsets[:-1], windows) + number * step
        self.lengths = np.minimum(np.repeat(targets, windows) - number * step, max_history)
        self.is_later = number > 0
        if not len(self.starts):
            raise ValueError("no training sequence has two items, so there is nothing to learn; check the split.")

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def n_targets(self) -> int:
        """Number of targets in all windows; labels repeated from the window before don't count."""
        return int(self.lengths.sum() - self.context * self.is_later.sum())

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """Returns one batch: `input_ids` and `labels` `[batch, longest]`, item indices padded right with 0.

        A label is the item that follows the input of the same column. Labels of repeated items are 0.
        """
        start, length = self.starts[indices], self.lengths[indices]
        column = np.arange(length.max())
        inside = column < length[:, None]
        source = start[:, None] + self._places(indices, length)  # [B, T + 1]
        source = np.minimum(source, len(self.sequences) - 1)  # beyond a window, where nothing is read
        repeated = self.is_later[indices][:, None] & (column < self.context)
        items, labels = self.sequences[source[:, :-1]], self.sequences[source[:, 1:]]
        return {
            "input_ids": torch.from_numpy(np.where(inside, items, 0)),
            "labels": torch.from_numpy(np.where(inside & ~repeated, labels, 0)),
        }

    def _places(self, indices: list[int], length: np.ndarray) -> np.ndarray:
        """Returns the number of the window's item that is read in each place: `[batch, longest + 1]`."""
        place = np.arange(length.max() + 1)
        if not self.order_noise:
            return np.broadcast_to(place, (len(indices), len(place)))
        random = np.random.default_rng((self.seed, *indices))
        noise = self.order_noise * random.standard_normal((len(indices), len(place)))
        moves = (place <= length[:, None]) & ~self.is_later[indices][:, None]
        # places that don't move are in order already, and come after those that move
        return np.where(moves, place + noise, place + 1e6 * (place > length[:, None])).argsort(axis=1, kind="stable")


def as_batch(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns a batch unchanged: the collator for datasets that already make whole batches."""
    return batch


class EpochSampler(Sampler):
    """A sampler whose order depends on random seed and epoch alone, so that training can be resumed exactly.

    Args:
        seed (`int`): random seed of the shuffling.
    """

    def __init__(self, seed: int):
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, which decides the order of the next pass."""
        self.epoch = epoch

    def random(self) -> np.random.Generator:
        """Returns a new generator of random numbers for the epoch."""
        return np.random.default_rng((self.seed, self.epoch))


class LengthGroupedSampler(EpochSampler):
    """A sampler of random batches of samples with similar lengths, which need little padding.

    Each epoch shuffles all samples, sorts them by length within groups of `group` batches, and shuffles the batches.

    Args:
        lengths (`np.ndarray` of shape `(samples,)`): length of each sample.
        batch_size (`int`): samples per batch.
        seed (`int`, *optional*, defaults to 0): random seed of the shuffling.
        group (`int`, *optional*, defaults to 50): number of batches that are sorted together.
        drop_last (`bool`, *optional*, defaults to `False`): whether to leave out the last batch if it isn't full. Each
            epoch leaves out other samples.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int = 0, group: int = 50, drop_last: bool = False):
        super().__init__(seed)
        self.lengths, self.batch_size, self.group = lengths, batch_size, group
        self.kept = len(lengths) - len(lengths) % batch_size * drop_last  # samples of an epoch

    def __len__(self) -> int:
        return self.kept

    def __iter__(self) -> Iterator[int]:
        random = self.random()
        order = random.permutation(len(self.lengths))[: self.kept]
        groups = np.arange(len(order)) // (self.group * self.batch_size)
        order = order[np.lexsort((self.lengths[order], groups))]
        full = len(order) // self.batch_size * self.batch_size
        batches = order[:full].reshape(-1, self.batch_size)
        return iter([*batches[random.permutation(len(batches))].ravel().tolist(), *order[full:].tolist()])


class TokenBudgetBatches(EpochSampler):
    """A sampler of batches with similar lengths, which hold as many samples as a budget of tokens allows.

    Samples are sorted by length, with samples of equal length in random order, and cut into batches, which are
    shuffled. So every epoch has the same number of batches, and every batch has about the same number of tokens.
    Several processes get different batches of an epoch, and equally many of them. If the batches can't be divided
    evenly, the first ones are used twice.

    Args:
        tokens (`np.ndarray` of shape `(samples,)`): number of tokens of each sample.
        budget (`int`): largest number of tokens per batch, including padding.
        seed (`int`, *optional*, defaults to 0): random seed of the shuffling.
        processes, process (`int`, *optional*, default to 1 and 0): number of processes that share an epoch, and the
            number of this process.

    Raises:
        ValueError: a sample is longer than the budget.
    """

    def __init__(self, tokens: np.ndarray, budget: int, seed: int = 0, processes: int = 1, process: int = 0):
        if tokens.max() > budget:
            raise ValueError(
                f"`max_tokens_per_batch` is {budget}, but the longest history has {tokens.max()} tokens; give at "
                "least that many."
            )
        super().__init__(seed)
        self.tokens, self.processes, self.process = tokens, processes, process
        ascending = np.sort(tokens)
        ends = [0]
        while ends[-1] < len(ascending):
            candidates = ascending[ends[-1] :][: budget // ascending[ends[-1]]]
            fits = candidates * np.arange(1, len(candidates) + 1) <= budget
            ends.append(ends[-1] + int(fits.sum()))
        self.ends = np.array(ends)

    def __len__(self) -> int:
        return -(-(len(self.ends) - 1) // self.processes)

    def __iter__(self) -> Iterator[list[int]]:
        random = self.random()
        order = random.permutation(len(self.tokens))
        order = order[np.argsort(self.tokens[order], kind="stable")]
        chosen = np.resize(random.permutation(len(self.ends) - 1), len(self) * self.processes)
        for batch in chosen[self.process :: self.processes]:
            yield order[self.ends[batch] : self.ends[batch + 1]].tolist()
