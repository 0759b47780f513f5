import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etegrec_hf.data.prepared import Split
from etegrec_hf.data.sequences import LengthGroupedSampler, SequenceDataset, TokenBudgetBatches, WholeSequenceDataset


def make_split(sequences: list[list[int]]) -> Split:
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])])
    return Split([str(row) for row in range(len(sequences))], np.concatenate(sequences), offsets)


SEQUENCES = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=6).filter(
    lambda rows: any(len(row) > 1 for row in rows)
)


@given(SEQUENCES, st.integers(1, 4))
def test_training_samples_are_all_prefixes(rows, max_history):
    dataset = SequenceDataset.for_training(make_split(rows), max_history)
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
    dataset = SequenceDataset.for_evaluation(make_split(rows), 50)
    batch = dataset.__getitems__(list(range(len(dataset))))
    assert dataset.lengths.tolist() == sorted(len(row) - 1 for row in rows if len(row) > 1)
    for row, history, target in zip(dataset.rows, batch["history"], batch["target"].tolist()):
        assert [*history[history > 0].tolist(), target] == rows[row]


def test_batches_pad_right_to_their_own_longest():
    dataset = SequenceDataset.for_evaluation(make_split([[1, 2, 3], [4, 5]]), 50)
    assert dataset.__getitems__([0, 1])["history"].tolist() == [[4, 0], [1, 2]]
    assert dataset.__getitems__([0])["history"].dtype == torch.long


def test_a_limit_chooses_the_same_samples_each_time():
    split = make_split([[row, row + 1] for row in range(1, 50)])
    one, two = (SequenceDataset.for_evaluation(split, 50, limit=10) for _ in range(2))
    assert len(one) == 10
    assert one.rows.tolist() == two.rows.tolist()
    assert len(SequenceDataset.for_evaluation(split, 50, limit=100)) == 49


def test_a_split_without_histories_is_an_error():
    with pytest.raises(ValueError, match="the split is empty: no row has both a history and a target"):
        SequenceDataset.for_training(make_split([[1], [2]]), 50)


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


@given(SEQUENCES, st.integers(1, 6), st.data())
def test_every_item_but_the_first_is_a_target_of_one_window(rows, max_history, data):
    context = data.draw(st.integers(0, max_history - 1))
    dataset = WholeSequenceDataset(make_split(rows), max_history, context)
    assert all(0 < length <= max_history for length in dataset.lengths)
    batch = dataset.__getitems__(list(range(len(dataset))))
    seen = []
    for items, labels, length in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), dataset.lengths):
        assert not any(items[length:])
        for position, target in enumerate(labels):
            if target:
                seen.append((items[: position + 1], target))
    expected = [(row[:end], row[end]) for row in rows for end in range(1, len(row))]
    assert len(seen) == len(expected)
    for (read, target), (before, item) in zip(seen, expected):
        assert target == item
        assert before[-len(read) :] == read
        assert len(read) == len(before) or len(read) > context, "all that came before, or more than the context"


@given(SEQUENCES, st.integers(1, 6), st.floats(0.1, 20), st.data())
def test_noise_moves_items_within_their_window(rows, max_history, noise, data):
    context = data.draw(st.integers(0, max_history - 1))
    plain = WholeSequenceDataset(make_split(rows), max_history, context)
    noisy = WholeSequenceDataset(make_split(rows), max_history, context, noise, seed=3)
    every = list(range(len(plain)))
    before, after = plain.__getitems__(every), noisy.__getitems__(every)
    for row, length in enumerate(plain.lengths):
        items, labels = after["input_ids"][row].tolist(), after["labels"][row].tolist()
        if plain.is_later[row]:
            assert items == before["input_ids"][row].tolist()
            assert labels == before["labels"][row].tolist()
        else:
            assert items[1:length] == labels[: length - 1], "a label is the item that comes next"
            window = [*before["input_ids"][row, :length].tolist(), before["labels"][row, length - 1].item()]
            assert sorted([*items[:length], labels[length - 1]]) == sorted(window)
        assert not any(items[length:])
        assert not any(labels[length:])


def test_noise_is_as_large_as_said_and_another_in_each_batch():
    rows = [list(range(1, 42))] * 300
    noisy = WholeSequenceDataset(make_split(rows), 50, order_noise=2.0)
    first, again = noisy.__getitems__(list(range(300))), noisy.__getitems__(list(range(300)))
    assert torch.equal(first["input_ids"], again["input_ids"]), "it follows from seed and batch alone"
    middle = first["input_ids"][:, 10:30]
    moved = (middle - torch.arange(11, 31)).float()
    assert abs(moved.mean()) < 0.1
    assert 1.5 < moved.std() < 2.5
    other = noisy.__getitems__(list(range(299, -1, -1)))["input_ids"].flip(0)
    assert not torch.equal(other, first["input_ids"])
    seeded = WholeSequenceDataset(make_split(rows), 50, order_noise=2.0, seed=1)
    assert not torch.equal(seeded.__getitems__(list(range(300)))["input_ids"], first["input_ids"])


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=40),
    st.integers(9, 30),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_batches_keep_to_their_budget_and_hold_every_sample(tokens, budget, processes, epoch):
    parts = [TokenBudgetBatches(np.array(tokens), budget, 1, processes, process) for process in range(processes)]
    for part in parts:
        part.set_epoch(epoch)
    batches = [list(part) for part in parts]
    assert {len(part) for part in batches} == {len(parts[0])}, "each process as many"
    every = [batch for step in zip(*batches) for batch in step]
    assert all(len(batch) * max(tokens[row] for row in batch) <= budget for batch in every)
    distinct = {tuple(batch) for batch in every}
    assert len(every) - len(distinct) < processes, "the first come twice, if they don't go round"
    assert sorted(row for batch in distinct for row in batch) == list(range(len(tokens)))
    again = TokenBudgetBatches(np.array(tokens), budget, 1)
    again.set_epoch(epoch)
    assert set(map(tuple, again)) == distinct


def test_batches_of_a_budget_are_as_full_as_they_can_be():
    tokens = np.array([1, 5, 2, 2, 5, 1])
    batches = TokenBudgetBatches(tokens, 6)
    assert sorted(sorted(tokens[batch].tolist()) for batch in batches) == [[1, 1, 2], [2], [5], [5]]
    orders = [list(batches)]
    batches.set_epoch(1)
    orders.append(list(batches))
    assert orders[0] != orders[1]
    with pytest.raises(ValueError, match="`max_tokens_per_batch` is 4, but the longest history has 5 tokens; give"):
        TokenBudgetBatches(np.array([1, 5]), 4)
