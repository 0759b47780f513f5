"""Batches of histories and targets, made without a Python loop over rows."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from .prepared import Split


class SequenceDataset(Dataset):
    """Histories and targets of a split, as item indices.

    Each user's sequence is kept once; a sample is a position in it, whose history is read when it is asked for.

    Args:
        split ([`Split`]): sequences.
        max_history (`int`): items of a history that are read, the last ones.
        every_position (`bool`): whether each position with a history is a target (training), or only each row's last
            (evaluation). The latter samples stand in the order of their lengths, and `rows` `[samples]` says which
            row of the split each is.
        limit (`int`, *optional*): use a random choice of this many samples, the same at every call.

    Raises:
        ValueError: no row has a history.
    """

    def __init__(self, split: Split, max_history: int, every_position: bool, limit: int | None = None):
        self.sequences = split.sequences
        starts = np.repeat(split.offsets[:-1], np.diff(split.offsets))
        position = np.arange(len(self.sequences))
        is_target = position > starts
        if not every_position:
            last = np.zeros_like(is_target)
            last[split.offsets[1:] - 1] = True
            is_target &= last
        self.position = position[is_target]  # [samples] where the target stands
        self.lengths = np.minimum(self.position - starts[is_target], max_history)  # [samples] items of the history
        self.rows = np.repeat(np.arange(len(split)), np.diff(split.offsets))[is_target]
        chosen = np.arange(len(self.position))
        if limit is not None and limit < len(chosen):
            chosen = np.sort(np.random.default_rng(0).choice(len(chosen), limit, replace=False))
        if not every_position:
            chosen = chosen[np.argsort(self.lengths[chosen], kind="stable")]
        self.position, self.lengths, self.rows = self.position[chosen], self.lengths[chosen], self.rows[chosen]
        if not len(self.position):
            raise ValueError("the split is empty: no row has both a history and a target; check the prepared dataset.")

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """One batch: `history` `[batch, longest]`, padded right with 0, and `target` `[batch]`."""
        position, length = self.position[indices], self.lengths[indices]
        column = np.arange(length.max())
        source = (position - length)[:, None] + column  # [B, T]
        inside = column < length[:, None]
        history = np.where(inside, self.sequences[np.where(inside, source, 0)], 0)
        return {"history": torch.from_numpy(history), "target": torch.from_numpy(self.sequences[position])}


class WholeSequenceDataset(Dataset):
    """Whole training sequences, each of whose items after the first is to be foretold from those before it.

    Sequences of more than `max_history + 1` items are cut into windows in which every item is a target once.

    Args:
        split ([`Split`]): training sequences.
        max_history (`int`): items that are read at most.

    Raises:
        ValueError: no sequence has two items.
    """

    def __init__(self, split: Split, max_history: int):
        self.sequences = split.sequences
        targets = np.diff(split.offsets) - 1  # of each sequence
        windows = -(-targets // max_history)
        number = np.arange(windows.sum()) - np.repeat(
            windows.cumsum() - windows, windows
        )  # of a window in its sequence
        self.starts = np.repeat(split.offsets[:-1], windows) + number * max_history
        self.lengths = np.minimum(np.repeat(targets, windows) - number * max_history, max_history) + 1
        if not len(self.starts):
            raise ValueError("no training sequence has two items, so there is nothing to learn; check the split.")

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """One batch: `input_ids` and `labels` `[batch, longest - 1]`, padded right with 0."""
        start, length = self.starts[indices], self.lengths[indices]
        column = np.arange(length.max())
        inside = column < length[:, None]
        items = torch.from_numpy(np.where(inside, self.sequences[np.where(inside, start[:, None] + column, 0)], 0))
        return {"input_ids": items[:, :-1], "labels": items[:, 1:]}  # [B, T] each


def as_batch(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The collator of datasets that already make whole batches."""
    return batch


class LengthGroupedSampler(Sampler[int]):
    """Random batches of samples of like length, so that work is proportional to real tokens.

    Each epoch shuffles all samples, sorts them by length within groups of `group` batches, and shuffles the batches.
    The order follows from seed and epoch alone, which is what an exact resume needs.

    Args:
        lengths (`np.ndarray` of shape `(samples,)`): length of each sample.
        batch_size (`int`): samples a batch.
        seed (`int`, *optional*, defaults to 0): of the shuffling.
        group (`int`, *optional*, defaults to 50): batches that are sorted together.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int = 0, group: int = 50):
        self.lengths, self.batch_size, self.seed, self.group = lengths, batch_size, seed, group
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        groups = np.arange(len(order)) // (self.group * self.batch_size)
        order = order[np.lexsort((self.lengths[order], groups))]
        full = len(order) // self.batch_size * self.batch_size
        batches = order[:full].reshape(-1, self.batch_size)
        return iter([*batches[random.permutation(len(batches))].ravel().tolist(), *order[full:].tolist()])
