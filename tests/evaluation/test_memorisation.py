"""Memorised targets, compared with plain loops, and metrics of both parts of the users."""

from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import make_model, random_codes

from etegrec_hf import ETEGRecTokenizer
from etegrec_hf.data.prepared import PreparedDataset, Split
from etegrec_hf.evaluation.baselines import baselines
from etegrec_hf.evaluation.evaluate import EvaluateOptions, evaluate
from etegrec_hf.evaluation.memorisation import memorised_targets, metrics_by_part

N_ITEMS = 6
rows_of_items = st.lists(st.lists(st.integers(1, N_ITEMS), min_size=1, max_size=6), max_size=8)


def split_of(rows: list[list[int]]) -> Split:
    offsets = np.cumsum([0, *map(len, rows)])
    sequences = np.array([*chain(*rows)], dtype=np.int64)
    return Split([str(row) for row in range(len(rows))], sequences, offsets)


def data_of(train: list[list[int]], test: list[list[int]], n_items: int = N_ITEMS) -> PreparedDataset:
    ids = [str(item) for item in range(1, n_items + 1)]
    splits = map(split_of, (train, test, test))
    return PreparedDataset(ids, [""] * n_items, None, *splits, statistics={})


@pytest.mark.parametrize(
    ("row", "memorised"),
    [
        ([1, 2], True),
        ([1, 5, 2], True),  # an older item counts, too
        ([6, 4, 4, 2], True),  # 4 came before 2 in the other sequence
        ([3, 5, 5], True),  # a repetition that was one in training
        ([3, 3], False),  # a repetition that wasn't
        ([2, 1], False),  # 1 came before 2, not after it
        ([1, 3], False),  # two places apart
        ([5, 4], False),  # the end of one user's sequence, and the start of the next one's
        ([3, 6], False),  # an item that training doesn't know
        ([2], False),  # no history
    ],
)
def test_memorised_targets_by_hand(row, memorised):
    data = data_of([[1, 2, 3, 5, 5], [4, 2]], [row])
    assert memorised_targets(data, data.test).tolist() == [memorised]


@given(train=rows_of_items, test=rows_of_items)
def test_memorised_targets_agree_with_plain_loops(train, test):
    data = data_of(train, test)
    pairs = {pair for row in train for pair in pairwise(row)}
    expected = [any((item, target) in pairs for item in history) for *history, target in test]
    assert memorised_targets(data, data.test).tolist() == expected


def test_metrics_of_both_parts_by_hand():
    targets = np.array([1, 2, 3, 4])
    model = np.array([[1, 9], [2, 9], [9, 3], [9, 9]])
    other = np.array([[9, 9], [2, 9], [3, 9], [4, 9]])
    parts = metrics_by_part(np.array([True, False, True, True]), targets, {"other": other}, model)
    assert list(parts) == ["memorisation", "generalisation"]
    assert (parts["memorisation"]["users"], parts["memorisation"]["share"]) == (3, 0.75)
    assert (parts["generalisation"]["users"], parts["generalisation"]["share"]) == (1, 0.25)
    assert parts["memorisation"]["metrics"] == {"recall@1": pytest.approx(1 / 3), "ndcg@1": pytest.approx(1 / 3)}
    assert parts["memorisation"]["baselines"]["other"]["recall@1"] == pytest.approx(2 / 3)
    assert parts["generalisation"]["metrics"]["recall@1"] == 1
    assert parts["generalisation"]["baselines"]["other"]["recall@1"] == 1


@pytest.mark.parametrize(("memorised", "name"), [(True, "memorisation"), (False, "generalisation")])
def test_a_part_without_users_is_left_out(memorised, name):
    lists = np.array([[1], [3]])
    parts = metrics_by_part(np.array([memorised] * 2), np.array([1, 2]), {"other": lists})
    metrics = {"recall@1": 0.5, "ndcg@1": 0.5}
    assert parts == {name: {"users": 2, "share": 1.0, "baselines": {"other": metrics}}}


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_parts_add_up_to_the_whole(prepared, exclude_seen):
    codes = random_codes(prepared.n_items, 3, 8)
    tokenizer = ETEGRecTokenizer.from_item_codes(prepared.item_ids, codes, 8)
    options = EvaluateOptions(num_beams=10, exclude_seen=exclude_seen)
    evaluation = evaluate(make_model(codes, 8), tokenizer, prepared, options)
    parts = list(evaluation.parts.values())
    assert len(parts) == 2
    assert sum(part["users"] for part in parts) == len(prepared.test)
    assert sum(part["share"] for part in parts) == pytest.approx(1)
    whole = {"this model": evaluation.metrics, **evaluation.baselines}
    by_part = [{"this model": part["metrics"], **part["baselines"]} for part in parts]
    for system, metrics in whole.items():
        for name, value in metrics.items():
            mean = sum(part["share"] * of_part[system][name] for part, of_part in zip(parts, by_part))
            assert mean == pytest.approx(value, abs=1e-12), (system, name)
    assert evaluation.baselines == baselines(prepared, prepared.test, exclude_seen=exclude_seen)


def test_catalogues_in_another_order_have_the_same_parts(prepared):
    ids = prepared.item_ids[::-1]
    reordered = prepared.with_items(ids)
    same = memorised_targets(prepared, prepared.test) == memorised_targets(reordered, reordered.test)
    assert same.all()
