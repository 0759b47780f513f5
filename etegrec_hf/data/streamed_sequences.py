"""Training sequences that are read as they are needed, for logs that don't fit into memory or on disk."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from huggingface_hub.errors import HTTPError  # of the client's HTTP library
from torch.utils.data import IterableDataset, Sampler, get_worker_info

from .checks import damaged
from .fingerprint import splits_hash
from .prepared import ROW_GROUP, Split, split_of
from .sequences import SequenceDataset, WholeSequenceDataset

SampleDataset = SequenceDataset | WholeSequenceDataset


class StreamedSequences:
    """Training sequences of which only one buffer at a time is in memory.

    Row groups of parquet files are read one by one. A buffer is a row group, or `buffer_rows` rows of a larger one,
    and becomes a dataset like that of a split in memory. Buffers are the same in every epoch, so that every epoch has
    the same number of batches. Each epoch shuffles the row groups, and the samples within each buffer.

    The constructor reads all rows once. It counts samples, which schedules of training need, looks up and counts all
    items, and hashes the sequences.

    Args:
        files (`list[str]`): parquet files with `user_id`, `history` (a list of item ids) and `target`: paths or
            addresses that `fsspec` opens (`hf://datasets/...`).
        item_ids (`list[str]`): ids of the items, in the order of item indices.
        samples_of (`Callable`): function that makes a [`SequenceDataset`] or [`WholeSequenceDataset`] of a [`Split`].
        buffer_rows (`int`, *optional*, defaults to 65,536): largest number of rows per buffer.

    Attributes:
        groups (`list[tuple[str, int]]`): file and number of each row group.
        counts (`list[np.ndarray]`): number of samples of each length, from 0, per buffer.
        n_targets (`int`): number of targets per epoch.
        item_counts (`np.ndarray` of shape `(n_items + 1,)`): number of times that each item occurs, by item index; 0
            for padding.
        fingerprint (`str`): hash of the sequences and their division into buffers. If one buffer holds all rows, it
            equals the hash of the same split in memory.

    Raises:
        ValueError: no row has a history.
        ValueError: an item that isn't in `item_ids`, or empty cells.
        ValueError: a damaged file.
        ConnectionError: reading was interrupted.
    """

    def __init__(
        self,
        files: list[str],
        item_ids: list[str],
        samples_of: Callable[[Split], SampleDataset],
        buffer_rows: int = ROW_GROUP,
    ):
        self.item_ids, self.samples_of, self.buffer_rows = pa.array(item_ids, pa.string()), samples_of, buffer_rows
        self.footers = {file: _footer(file) for file in files}
        self.groups = [(file, group) for file in files for group in range(self.footers[file].num_row_groups)]
        self.counts: list[np.ndarray] = []
        self.n_targets = 0
        self.item_counts = np.zeros(len(item_ids) + 1, dtype=np.int64)
        self.fingerprint = splits_hash(self._counted(self._splits(self.groups)))
        if not self.counts:
            raise ValueError(
                "the train split is empty: no row has both a history and a target; check the prepared dataset."
            )

    def __len__(self) -> int:
        """Number of samples per epoch."""
        return int(sum(counts.sum() for counts in self.counts))

    def buffers(self, groups: Iterable[tuple[str, int]]) -> Iterator[SampleDataset]:
        """Yields the datasets of the buffers in the given row groups; buffers without samples are left out."""
        for split in self._splits(groups):
            if _has_samples(split):
                yield self.samples_of(split)

    def _counted(self, splits: Iterable[Split]) -> Iterator[Split]:
        for split in splits:
            yield split
            self.item_counts += np.bincount(split.sequences, minlength=len(self.item_counts))
            if _has_samples(split):
                samples = self.samples_of(split)
                self.counts.append(np.bincount(samples.lengths))
                self.n_targets += samples.n_targets

    def _splits(self, groups: Iterable[tuple[str, int]]) -> Iterator[Split]:
        # pyarrow reads the row groups, as `load_dataset(..., streaming=True)` keeps all bytes that it has read of a
        # file in memory; also, a process that ends while it reads one hangs or aborts (apache/arrow#45214)
        for file, group in groups:
            footer = self.footers[file]
            first_row = sum(footer.row_group(earlier).num_rows for earlier in range(group))
            with _opened(file) as opened:
                reader = pq.ParquetFile(opened, metadata=footer)
                table = reader.read_row_group(group, columns=["user_id", "history", "target"], use_threads=False)
            for start in range(0, len(table), self.buffer_rows):
                yield split_of(table.slice(start, self.buffer_rows), self.item_ids, file, first_row + start)


class StreamedBatches(IterableDataset):
    """Batches of streamed sequences, equal to those that `__getitems__` of a dataset in memory returns.

    Use it in a `DataLoader` with `batch_size=None`, whose workers take turns. The order depends on random seed and
    epoch alone. If one buffer holds all rows, it is the order of the same batches in memory.

    Args:
        sequences ([`StreamedSequences`]): the sequences.
        batches_of (`Callable`): function from the lengths of a buffer's samples `[samples]` and the epoch to batches
            of sample indices, equally many in every epoch. In one of several processes, it returns the batches of
            this process.
        seed (`int`, *optional*, defaults to 0): random seed of the order of row groups.
    """

    def __init__(
        self,
        sequences: StreamedSequences,
        batches_of: Callable[[np.ndarray, int], Sampler[list[int]]],
        seed: int = 0,
    ):
        self.sequences, self.batches_of, self.seed = sequences, batches_of, seed
        self._batches_in(max(sequences.counts, key=len))  # first, so that an error names the longest sample of all
        self._length = sum(map(self._batches_in, sequences.counts))
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()  # so that persistent workers see it change

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, which decides the order of the next pass."""
        self._epoch.fill_(epoch)

    def _batches_in(self, counts: np.ndarray) -> int:
        """Returns the number of batches of a buffer, given its number of samples of each length."""
        return len(self.batches_of(np.repeat(np.arange(len(counts)), counts), 0))

    def __len__(self) -> int:
        """Number of batches per epoch."""
        return self._length

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        epoch, groups = int(self._epoch), self.sequences.groups
        order = np.random.default_rng((self.seed, epoch)).permutation(len(groups))
        batches = (
            (samples, indices)
            for samples in self.sequences.buffers(groups[number] for number in order)
            for indices in self.batches_of(samples.lengths, epoch)
        )
        worker = get_worker_info()
        for samples, indices in islice(batches, worker.id, None, worker.num_workers) if worker else batches:
            yield samples.__getitems__(indices)


def _has_samples(split: Split) -> bool:
    return np.diff(split.offsets).max() > 1


def _footer(file: str) -> pq.FileMetaData:
    with _opened(file) as opened:
        return pq.ParquetFile(opened).metadata


@contextmanager
def _opened(file: str) -> Iterator:
    """Opens a file for reading; errors say what to do."""
    try:
        with fsspec.open(file) as opened:
            yield opened
    except pa.ArrowException as error:
        raise damaged(file, error) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} doesn't exist; copy the dataset again, or prepare it again.") from error
    except (OSError, HTTPError) as error:
        raise ConnectionError(
            f"reading {file} was interrupted ({error}); try again, and continue with --resume true from a checkpoint."
        ) from error
