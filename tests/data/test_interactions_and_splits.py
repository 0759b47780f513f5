import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etegrec_hf.data.interactions import Interactions, drop_short_users, k_core
from etegrec_hf.data.splits import leave_one_out, time_split

LOGS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=60)


def build(rows) -> Interactions:
    users, items, times = (np.array(column) for column in zip(*rows))
    return Interactions.from_columns(users, items, times.astype(float))


def as_lists(log: Interactions) -> dict[str, list[str]]:
    return {
        str(user): log.item_ids[log.items[start:end]].tolist()
        for user, start, end in zip(log.user_ids, log.starts[:-1], log.starts[1:])
    }


@given(LOGS)
def test_users_are_in_time_order_and_ties_keep_the_order_of_rows(rows):
    expected: dict[str, list[str]] = {}
    for user, item, _ in sorted(rows, key=lambda row: row[2]):  # sorted() is stable
        expected.setdefault(str(user), []).append(str(item))
    assert as_lists(build(rows)) == expected


@given(LOGS, st.integers(1, 4))
def test_k_core_is_the_fixed_point(rows, min_count):
    kept = list(rows)
    while True:
        users, items = [row[0] for row in kept], [row[1] for row in kept]
        smaller = [r for r in kept if users.count(r[0]) >= min_count and items.count(r[1]) >= min_count]
        if len(smaller) == len(kept):
            break
        kept = smaller
    if not kept:
        with pytest.raises(ValueError, match=f"`min_count` {min_count} interactions, .*; lower it"):
            k_core(build(rows), min_count)
    else:
        assert as_lists(k_core(build(rows), min_count)) == as_lists(build(kept))


def test_short_users_are_dropped():
    log = drop_short_users(build([(0, 1, 0), (0, 2, 1), (1, 1, 0), (1, 2, 1), (1, 3, 2)]))
    assert as_lists(log) == {"1": ["1", "2", "3"]}
    with pytest.raises(ValueError, match="none of 1 users has 3 interactions"):
        drop_short_users(build([(0, 1, 0)]))


def test_an_empty_log_is_an_error():
    with pytest.raises(ValueError, match="the data set is empty"):
        Interactions.from_columns(np.array([]), np.array([]))


def histories(log: Interactions, rows) -> list[tuple[list[str], str]]:
    ids = log.item_ids[log.items]
    return [(ids[start:target].tolist(), str(ids[target])) for start, target in zip(rows.start, rows.target)]


def test_leave_one_out_by_hand():
    log = build([(0, item, item) for item in range(1, 6)] + [(1, item, item) for item in (7, 8, 9)])
    splits = leave_one_out(log)
    assert histories(log, splits["train"]) == [(["1", "2"], "3"), ([], "7")]
    assert histories(log, splits["validation"]) == [(["1", "2", "3"], "4"), (["7"], "8")]
    assert histories(log, splits["test"]) == [(["1", "2", "3", "4"], "5"), (["7", "8"], "9")]


def test_time_split_by_hand():
    log = build([(0, item, item) for item in range(10)] + [(1, 20, 0), (1, 21, 8), (1, 22, 9), (2, 30, 9)])
    splits = time_split(log, validation=0.25, test=0.25)
    times = np.sort(log.times)
    first, second = np.quantile(times, [0.5, 0.75])
    for name, low, high in (("validation", first, second), ("test", second, np.inf)):
        targets = [
            position
            for position in range(len(log.users))
            if low <= log.times[position] < high and position > log.starts[log.users[position]]
        ]
        assert splits[name].target.tolist() == targets
    assert (log.times[splits["train"].target] < first).all()
    user_two = splits["test"].start == log.starts[2]
    assert not user_two.any(), "a first interaction has no history"


def test_time_split_tells_nanoseconds_apart():
    times = 1_700_000_000_000_000_000 + np.arange(10)
    splits = time_split(Interactions.from_columns(np.zeros(10), np.arange(10), times), validation=0.2, test=0.2)
    assert [splits[name].target.tolist() for name in ("train", "validation", "test")] == [[5], [6, 7], [8, 9]]


def test_time_split_needs_time():
    log = Interactions.from_columns(np.array([0, 0, 0]), np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="needs timestamps and this data has none"):
        time_split(log)
    with pytest.raises(ValueError, match="split is empty: too few distinct timestamps"):
        time_split(build([(0, 1, 5), (0, 2, 5), (0, 3, 5)]))
