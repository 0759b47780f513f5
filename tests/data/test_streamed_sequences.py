"""Training sequences that are read as they are needed, against the same sequences in memory."""

import shutil
from functools import partial

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fsspec.implementations.memory import MemoryFile
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader

from etegrec_hf.data.fingerprint import fingerprint
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.sequences import LengthGroupedSampler, SequenceDataset, WholeSequenceDataset
from etegrec_hf.data.streamed_sequences import StreamedBatches, StreamedSequences
from etegrec_hf.hub.dataset_folder import training_files

ITEMS = [f"i{index}" for index in range(1, 10)]
KINDS = {
    "prefixes": partial(SequenceDataset.for_training, max_history=4),
    "whole": partial(WholeSequenceDataset, max_history=4, context=2),
}


def write(sequences: list[list[str]], group: int = 100, name: str = "train") -> list[str]:
    """A file of training rows in memory, `group` rows in each row group; the last item of each row is its target."""
    columns = {
        "user_id": [f"u{row}" for row in range(len(sequences))],
        "history": pa.array([sequence[:-1] for sequence in sequences], pa.list_(pa.string())),
        "target": [sequence[-1] for sequence in sequences],
    }
    with fsspec.open(f"memory://{name}.parquet", "wb") as file:
        pq.write_table(pa.table(columns), file, row_group_size=group)
    return [f"memory://{name}.parquet"]


def batches_of(lengths: np.ndarray, epoch: int) -> BatchSampler:
    sampler = LengthGroupedSampler(lengths, 3, seed=5)
    sampler.set_epoch(epoch)
    return BatchSampler(sampler, 3, drop_last=False)


def samples_in(batches) -> list[tuple]:
    """The samples of batches, without their padding."""
    names = ("history", "target") if "history" in batches[0] else ("input_ids", "labels")
    samples = []
    for batch in batches:
        for read, target in zip(*(batch[name] for name in names)):
            inside = read > 0
            samples.append((*read[inside].tolist(), *(target[inside] if target.dim() else target[None]).tolist()))
    return samples


SEQUENCES = st.lists(st.lists(st.sampled_from(ITEMS), min_size=1, max_size=9), min_size=1, max_size=12).filter(
    lambda rows: any(len(row) > 1 for row in rows)
)


@pytest.mark.parametrize("kind", KINDS)
@given(SEQUENCES, st.integers(1, 6), st.integers(1, 6), st.integers(0, 2))
def test_every_epoch_has_the_samples_of_memory(kind, sequences, group, buffer_rows, epoch):
    streamed = StreamedSequences(write(sequences, group), ITEMS, KINDS[kind], buffer_rows)
    index_of = {item: index for index, item in enumerate(ITEMS, start=1)}
    expected = []
    for sequence in ([index_of[item] for item in row] for row in sequences):
        if kind == "prefixes":
            expected += [tuple(sequence[max(0, end - 4) : end + 1]) for end in range(1, len(sequence))]
        else:
            for start in range(0, max(1, len(sequence) - 3), 2):
                read, labels = sequence[start:-1][:4], sequence[start + 1 :][:4]
                expected += [(*read, *([0, 0] if start else labels[:2]), *labels[2:])] if read else []
    batches = StreamedBatches(streamed, batches_of)
    batches.set_epoch(epoch)
    found = list(batches)
    assert sorted(samples_in(found)) == sorted(expected)
    assert (len(found), len(expected)) == (len(batches), len(streamed)), "as many in every epoch"
    targets = (batch["target" if kind == "prefixes" else "labels"] for batch in found)
    assert streamed.n_targets == sum(int((target > 0).sum()) for target in targets)
    for one, other in zip(found, batches, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one), "the order follows from seed and epoch"


def test_one_buffer_is_the_split_in_memory(prepared, prepared_folder):
    files = training_files(prepared_folder)
    make = partial(SequenceDataset.for_training, max_history=20)
    streamed = StreamedSequences(files, prepared.item_ids, make)
    assert streamed.fingerprint == fingerprint(prepared)["train"]
    assert StreamedSequences(files, prepared.item_ids, make, 50).fingerprint != streamed.fingerprint, "another order"
    memory = make(prepared.train)
    batches = StreamedBatches(streamed, batches_of)
    batches.set_epoch(3)
    for found, indices in zip(batches, batches_of(memory.lengths, 3), strict=True):
        expected = memory.__getitems__(indices)
        assert all(torch.equal(found[name], expected[name]) for name in ("history", "target"))


def test_a_dataset_loads_without_its_training_rows(prepared, prepared_folder, tmp_path):
    folder = shutil.copytree(prepared_folder, tmp_path / "data")
    (folder / "sequences/train.parquet").unlink()
    data = PreparedDataset.load(folder, ("validation", "test"))
    assert (len(data.train), len(data.validation)) == (0, len(prepared.validation))
    catalogue = ["new", *data.item_ids]
    assert data.with_items(catalogue).test.targets.tolist() == (prepared.test.targets + 1).tolist()
    with pytest.raises(FileNotFoundError, match=r"lacks sequences/train\.parquet; copy the dataset again"):
        PreparedDataset.load(folder)


def test_row_groups_of_all_files_come_in_another_order_each_epoch():
    rows = [[item, item] for item in ITEMS]
    files = write(rows[:6], 3, "a") + write(rows[6:], 3, "b")
    batches = StreamedBatches(StreamedSequences(files, ITEMS, KINDS["prefixes"]), batches_of, 1)
    orders = []
    for epoch in range(6):
        batches.set_epoch(epoch)
        orders.append([tuple(sorted(batch["target"].tolist())) for batch in batches])
        assert sorted(orders[-1]) == [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    assert len(set(map(tuple, orders))) > 2


@pytest.mark.parametrize("options", [{}, {"persistent_workers": True}])
def test_workers_give_the_batches_of_one_process(prepared, prepared_folder, options):
    make = partial(WholeSequenceDataset, max_history=20, context=10)
    streamed = StreamedSequences(training_files(prepared_folder), prepared.item_ids, make, 17)
    batches = StreamedBatches(streamed, batches_of)
    loader = DataLoader(batches, batch_size=None, num_workers=2, **options)
    for epoch in range(2):
        batches.set_epoch(epoch)
        for one, other in zip(batches, loader, strict=True):
            assert torch.equal(one["input_ids"], other["input_ids"])


def test_an_unknown_item_is_an_error_that_names_its_row():
    sequences = [["i1", "i2"], ["i3", "i4"], ["i5"], ["i6", "new", "i7"], ["i1", "i2"]]
    for buffer_rows in (1, 100):
        message = "row 3 of memory://train.parquet names the item 'new', which isn't in `items`"
        with pytest.raises(ValueError, match=message):
            StreamedSequences(write(sequences, 2), ITEMS, KINDS["prefixes"], buffer_rows)


@pytest.mark.parametrize("sequences", [[["i1"], ["i2"]], []])
def test_nothing_to_learn_is_an_error(sequences):
    with pytest.raises(ValueError, match="the train split is empty: no row has both a history and a target; check"):
        StreamedSequences(write(sequences), ITEMS, KINDS["whole"])


def test_a_damaged_file_is_an_error(prepared, prepared_folder, tmp_path):
    folder = shutil.copytree(prepared_folder, tmp_path / "data")
    path = folder / "sequences/train.parquet"
    table, content = pq.read_table(path), path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"train.parquet is damaged .*; copy the dataset again, or prepare it again"):
        StreamedSequences(training_files(str(folder)), prepared.item_ids, KINDS["prefixes"])
    targets = pa.array([None, *table["target"].to_pylist()[1:]], pa.string())
    pq.write_table(table.set_column(2, "target", targets), path)
    with pytest.raises(ValueError, match=r"column 'target' of .*train.parquet has 1 empty cells; prepare again"):
        StreamedSequences(training_files(str(folder)), prepared.item_ids, KINDS["prefixes"])


def test_a_file_that_is_missing_is_no_broken_connection(tmp_path):
    file = str(tmp_path / "train.parquet")
    with pytest.raises(FileNotFoundError, match=r"train.parquet doesn't exist; copy the dataset again"):
        StreamedSequences([file], ITEMS, KINDS["whole"])


def test_a_connection_that_breaks_is_an_error_with_its_remedy(monkeypatch):
    batches = iter(StreamedBatches(StreamedSequences(write([["i1", "i2"]] * 4, 1), ITEMS, KINDS["whole"]), batches_of))
    next(batches)

    def broken(*args):
        raise ConnectionError("the other side is gone")

    monkeypatch.setattr(MemoryFile, "seek", broken)
    message = r"reading memory://train.parquet was interrupted \(the other side is gone\); try again, and continue"
    with pytest.raises(ConnectionError, match=message):
        next(batches)
