import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etegrec_hf.data.prepared import Split
from etegrec_hf.data.sequences import LengthGroupedSampler, SequenceDataset


def make_split(sequences: list[list[int]]) -> Split:
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])])
    return Split([str(row) for row in range(len(sequences))], np.concatenate(sequences), offsets)


SEQUENCES = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=6).filter(
    lambda rows: any(len(row) > 1 for row in rows)
)


@given(SEQUENCES, st.integers(1, 4))
def test_training_samples_are_all_prefixes(rows, max_history):
    dataset = SequenceDataset(make_split(rows), max_history, every_position=True)
    expected = [(row[max(0, end - max_history) : end], row[end]) for row in rows for end in range(1, len(row))]
    batch = dataset.__getitems__(list(range(len(dataset))))
    seen = [
        (history[history > 0].tolist(), target) for history, target in zip(batch["history"], batch["target"].tolist())
    ]
    assert seen == expected
    assert dataset.lengths.tolist() == [len(history) for history, _ in expected]
    one = dataset[len(dataset) - 1]
    assert (one["history"].tolist(), one["target"].item()) == expected[-1]


@given(SEQUENCES)
def test_evaluation_samples_are_last_positions_by_length(rows):
    dataset = SequenceDataset(make_split(rows), 50, every_position=False)
    batch = dataset.__getitems__(list(range(len(dataset))))
    assert dataset.lengths.tolist() == sorted(len(row) - 1 for row in rows if len(row) > 1)
    for row, history, target in zip(dataset.rows, batch["history"], batch["target"].tolist()):
        assert [*history[history > 0].tolist(), target] == rows[row]


def test_batches_pad_right_to_their_own_longest():
    dataset = SequenceDataset(make_split([[1, 2, 3], [4, 5]]), 50, every_position=False)
    assert dataset.__getitems__([0, 1])["history"].tolist() == [[4, 0], [1, 2]]
    assert dataset.__getitems__([0])["history"].dtype == torch.long


def test_a_limit_chooses_the_same_samples_each_time():
    split = make_split([[row, row + 1] for row in range(1, 50)])
    one, two = (SequenceDataset(split, 50, every_position=False, limit=10) for _ in range(2))
    assert len(one) == 10
    assert one.rows.tolist() == two.rows.tolist()
    assert len(SequenceDataset(split, 50, every_position=False, limit=100)) == 49


def test_a_split_without_histories_is_an_error():
    with pytest.raises(ValueError, match="the split is empty: no row has both a history and a target"):
        SequenceDataset(make_split([[1], [2]]), 50, every_position=True)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(1, 16), st.integers(0, 5))
def test_every_sample_comes_once_an_epoch(lengths, batch_size, epoch):
    sampler = LengthGroupedSampler(np.array(lengths), batch_size, seed=3, group=4)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths)))
    assert list(sampler) == order, "the order follows from seed and epoch alone"


def test_batches_hold_like_lengths_in_random_order():
    lengths = np.random.default_rng(0).integers(1, 51, 4000)
    sampler = LengthGroupedSampler(lengths, 40, seed=0)
    batches = lengths[np.array(list(sampler)).reshape(-1, 40)]
    padded, real = (batches.max(axis=1) * 40).sum(), lengths.sum()
    assert padded < 1.05 * real
    longest = batches.max(axis=1)
    assert np.corrcoef(np.arange(len(longest)), longest)[0, 1] < 0.5, "not from short to long"
    sampler.set_epoch(1)
    assert not np.array_equal(lengths[np.array(list(sampler)).reshape(-1, 40)], batches)
