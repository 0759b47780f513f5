from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etegrec_hf.data.interactions import Interactions, drop_repeated, k_core, number_ids
from etegrec_hf.data.prepare import prepare
from etegrec_hf.data.sources import SourceOptions
from etegrec_hf.data.splits import (
    MIN_LENGTHS,
    SPLIT_NAMES,
    SPLITTERS,
    given_split,
    leave_one_out,
    ratio_split,
    time_split,
)

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


@given(LOGS)
def test_users_whose_times_go_backwards_are_counted(rows):
    backwards = set()
    for user in {row[0] for row in rows}:
        times = [row[2] for row in rows if row[0] == user]
        if times != sorted(times):
            backwards.add(user)
    assert build(rows).users_sorted == len(backwards)


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("kind", ["exact", "item", "none"])
@given(rows=LOGS)
def test_the_first_of_repeated_interactions_stays(rows, kind, timed):
    log = build(rows) if timed else replace(build(rows), times=None)
    seen: set = set()
    expected: dict[str, list[str]] = {}
    for user, item, time in zip(log.users, log.items, log.times if timed else range(len(rows))):
        key = {"exact": (user, item, time), "item": (user, item), "none": len(seen)}[kind]
        if key not in seen:
            seen.add(key)
            expected.setdefault(str(log.user_ids[user]), []).append(str(log.item_ids[item]))
    distinct = drop_repeated(log, kind)
    assert as_lists(distinct) == expected
    if timed:
        assert (np.diff(distinct.times)[np.diff(distinct.users) == 0] >= 0).all()


def test_another_kind_of_repetition_is_an_error():
    with pytest.raises(ValueError, match="`duplicates` is 'all'; choose one of exact, item, none"):
        drop_repeated(build([(0, 1, 0)]), "all")


@given(LOGS, st.data())
def test_selected_interactions_keep_order_and_are_numbered_without_gaps(rows, data):
    log = build(rows)
    log = replace(log, splits=np.arange(len(rows), dtype=np.int8))
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    chosen = log.select(kept)
    for ids, numbers in (("user_ids", "users"), ("item_ids", "items")):
        before, after = getattr(log, ids)[getattr(log, numbers)], getattr(chosen, ids)[getattr(chosen, numbers)]
        assert after.tolist() == before[kept].tolist()
        assert np.unique(getattr(chosen, numbers)).tolist() == list(range(len(getattr(chosen, ids))))
        there = set(getattr(chosen, ids))
        assert getattr(chosen, ids).tolist() == [name for name in getattr(log, ids) if name in there]
    assert (chosen.times.tolist(), chosen.splits.tolist()) == (log.times[kept].tolist(), log.splits[kept].tolist())


CHUNKS = st.lists(st.lists(st.sampled_from("dcbae"), max_size=6), min_size=1, max_size=4)


@given(CHUNKS, st.sampled_from([pa.string(), pa.large_string()]), st.booleans(), st.data())
def test_ids_are_numbered_by_their_first_row_whatever_the_column_is_made_of(chunks, kind, dictionary, data):
    arrays = [pa.array(chunk, kind) for chunk in chunks]
    # the dictionary of a chunk holds its own texts alone, in the order of their first row there
    column = pa.chunked_array([array.dictionary_encode() for array in arrays] if dictionary else arrays)
    rows = [name for chunk in chunks for name in chunk]
    kept = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    for expected, given_column in (
        (rows, column),
        ([name for name, keep in zip(rows, kept) if keep], column.filter(pa.array(kept, pa.bool_()))),
    ):
        ids, numbers = number_ids(given_column)
        assert ids.tolist() == list(dict.fromkeys(expected))
        assert ids[numbers].tolist() == expected
        assert numbers.dtype == np.int64


def test_ids_of_a_parquet_file_with_a_dictionary_for_each_row_group(tmp_path):
    names = ["c", "a", "c", "b", "d", "b", "a", "e"]
    pq.write_table(pa.table({"id": names}), tmp_path / "ids.parquet", row_group_size=2)
    column = pq.read_table(tmp_path / "ids.parquet", read_dictionary=["id"])["id"]
    assert column.num_chunks == 4
    ids, numbers = number_ids(column)
    assert (ids.tolist(), numbers.tolist()) == (["c", "a", "b", "d", "e"], [0, 1, 0, 2, 3, 2, 1, 4])


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
        with pytest.raises(ValueError, match=f"items with fewer than {min_count}; lower `min_count`"):
            k_core(build(rows), min_count)
    else:
        assert as_lists(k_core(build(rows), min_count)) == as_lists(build(kept))


@pytest.mark.parametrize("min_count", [1, 2])
def test_users_and_items_without_interactions_are_dropped(min_count):
    rows = np.array([0, 0, 2, 2])
    items = np.array([1, 2, 2, 1])
    log = Interactions.from_rows(np.array(["a", "b", "c", "d"]), np.array(["v", "w", "x", "y"]), rows, items)
    kept = k_core(log, min_count)
    assert (kept.user_ids.tolist(), kept.item_ids.tolist()) == (["a", "c"], ["w", "x"])
    assert as_lists(kept) == {"a": ["w", "x"], "c": ["x", "w"]}
    assert k_core(kept, min_count) is kept


def test_whole_numbers_as_ids_stay_as_they_are():
    large = [3, 2**63 + 1, 2**63 + 2]  # numpy makes floats of them, in which the last two are one
    log = Interactions.from_columns(large, large)
    assert log.item_ids.tolist() == log.user_ids.tolist() == list(map(str, large))


def test_short_users_are_dropped():
    log = k_core(build([(0, 1, 0), (0, 2, 1), (1, 1, 0), (1, 2, 1), (1, 3, 2)]), 1, min_length=3)
    assert as_lists(log) == {"1": ["1", "2", "3"]}
    with pytest.raises(ValueError, match=r"fewer than 3 interactions \(the split needs as many\) and items with"):
        k_core(build([(0, 1, 0)]), 1, min_length=3)
    # without user 1, who is too short, item 4 has one interaction, without which user 0 is too short
    rows = [
        (0, 1, 0),
        (0, 2, 1),
        (0, 4, 2),
        (1, 4, 0),
        (1, 1, 1),
        *((user, item, item) for user in (2, 3) for item in (1, 2, 3)),
    ]
    assert set(as_lists(k_core(build(rows), 2))) == {"0", "1", "2", "3"}
    assert set(as_lists(k_core(build(rows), 2, min_length=3))) == {"2", "3"}


def test_an_empty_log_is_an_error():
    with pytest.raises(ValueError, match="the log is empty"):
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
    with pytest.raises(ValueError, match="needs timestamps, but this data has none"):
        time_split(log)
    with pytest.raises(ValueError, match="split is empty: too few distinct timestamps"):
        time_split(build([(0, 1, 5), (0, 2, 5), (0, 3, 5)]))


def test_ratio_split_by_hand():
    # 25 interactions: 2 are test and 2 validation; 10: one each; 3: one each
    log = build([(user, item, item) for user, length in ((0, 25), (1, 10), (2, 3)) for item in range(length)])
    splits = ratio_split(log)
    assert [(start, target) for start, target in zip(splits["train"].start, splits["train"].target)] == [
        (0, 20), (25, 32), (35, 35),
    ]  # fmt: skip
    assert splits["validation"].target.tolist() == [21, 22, 33, 36]
    assert splits["test"].target.tolist() == [23, 24, 34, 37]
    assert splits["test"].start.tolist() == [0, 0, 25, 35]
    splits = ratio_split(log, validation=0.2, test=0.4)
    assert splits["test"].target.tolist() == [*range(15, 25), *range(31, 35), 37]
    assert splits["validation"].target.tolist() == [*range(10, 15), 29, 30, 36]


def with_splits(sequences: list[list[int]]) -> Interactions:
    rows = [(user, item, item) for user, splits in enumerate(sequences) for item in range(len(splits))]
    return replace(build(rows), splits=np.concatenate(sequences).astype(np.int8))


def test_given_split_by_hand():
    log = with_splits([[0, 0, 1, 1, 2], [0, 0, 0], [1, 2, 2], [0, 2, 2]])
    splits = given_split(log)
    assert histories(log, splits["train"]) == [(["0"], "1"), (["0", "1"], "2"), ([], "0")]
    assert histories(log, splits["validation"]) == [(["0", "1"], "2"), (["0", "1", "2"], "3")]
    assert [target for _, target in histories(log, splits["test"])] == ["4", "1", "2", "1", "2"]
    assert splits["test"].start.tolist() == [0, 8, 8, 11, 11]


def test_given_splits_that_go_backwards_are_an_error():
    message = "a user's splits go backwards in time 2 times, first for user '1', who has train after test; repair"
    with pytest.raises(ValueError, match=message):
        given_split(with_splits([[0, 1, 2], [0, 2, 0], [0, 2, 1]]))


@pytest.mark.parametrize(("numbers", "name"), [([0, 1, 1], "test"), ([0, 2, 2], "validation"), ([1, 1, 2], "train")])
def test_a_given_split_that_is_empty_is_an_error(numbers, name):
    with pytest.raises(ValueError, match=f"the {name} split is empty: check the split column"):
        given_split(with_splits([numbers]))


def test_given_splits_that_are_not_given_are_an_error():
    with pytest.raises(
        ValueError, match="`split` 'given' needs a column with the splits; name it with --split-column"
    ):
        given_split(build([(0, 1, 0)]))


def test_users_too_short_to_leave_one_out_are_an_error():
    with pytest.raises(ValueError, match="a user has fewer than 3 interactions; drop such users first"):
        leave_one_out(build([(0, 1, 0), (0, 2, 1)]))


# (user, item, time, a number that gives the split)
SPLIT_LOGS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 30), st.integers(0, 2)), min_size=9, max_size=60
)


@pytest.mark.parametrize("kind", list(SPLITTERS))
@given(rows=SPLIT_LOGS)
def test_no_split_sees_the_future(rows, kind):
    """Histories are what a user did before; training positions come before validation's, and those before test's."""
    try:
        log = k_core(build([row[:3] for row in rows]), 1, MIN_LENGTHS[kind])
        log = replace(log, splits=np.zeros(len(log.users), dtype=np.int8))
        for start, end in zip(log.starts[:-1], log.starts[1:]):
            log.splits[start:end] = sorted(rows[position % len(rows)][3] for position in range(start, end))
        splits = SPLITTERS[kind](log)
    except ValueError as error:
        assert "split is empty" in str(error) or "no interaction is left" in str(error)  # noqa: PT017 - both outcomes are fine
        return
    assert list(splits) == list(SPLIT_NAMES)
    trained: set[int] = set()
    for start, target in zip(splits["train"].start, splits["train"].target):
        assert not trained & set(range(start, target + 1)), "each user trains once"
        trained |= set(range(start, target + 1))
    targets = {name: splits[name].target.tolist() for name in SPLIT_NAMES[1:]}
    assert len(set(targets["validation"]) | set(targets["test"])) == len(targets["validation"]) + len(targets["test"])
    assert not trained & {*targets["validation"], *targets["test"]}
    for name, rows_of_split in splits.items():
        for start, target in zip(rows_of_split.start, rows_of_split.target):
            assert start == log.starts[log.users[target]], "a history starts with the user's first item"
            assert start < target or name == "train"
    for user, (start, end) in enumerate(zip(log.starts[:-1], log.starts[1:])):
        order = [position for position in range(start, end) if position in trained]
        for name in SPLIT_NAMES[1:]:
            order += [target for target in targets[name] if log.users[target] == user]
        assert order == sorted(order)
        if kind in ("leave-one-out", "ratio"):
            assert order == list(range(start, end)), "every interaction is in one split"
    if kind == "time":
        latest, first, second = (
            log.times[list(trained)].max(), log.times[targets["validation"]].min(), log.times[targets["test"]].min(),
        )  # fmt: skip
        assert latest < first <= log.times[targets["validation"]].max() < second
    if kind == "given":
        expected = {name: np.flatnonzero(log.splits == number) for number, name in enumerate(SPLIT_NAMES)}
        assert sorted(trained) == expected["train"].tolist()
        for name, positions in targets.items():
            assert positions == [at for at in expected[name] if at not in log.starts]


@pytest.mark.parametrize("changed", [("test",), ("validation", "test")], ids="+".join)
@pytest.mark.parametrize("kind", list(SPLITTERS))
def test_training_data_knows_nothing_of_what_is_evaluated(tmp_path, kind, changed):
    """With other items as targets, training sequences, catalogue and co-occurrence embedding are the same bytes."""
    random = np.random.default_rng(0)
    n_items = 12
    rows = [("everything", item % n_items, item / 100) for item in range(4 * n_items)]  # so that the catalogue stays
    for user in range(30):
        length = random.integers(6, 25)
        times = np.sort(random.choice(1000, length, replace=False)) + 1
        rows += [(f"u{user}", item, time) for item, time in zip(random.integers(n_items, size=length), times)]
    users, items, times = (np.array(column) for column in zip(*rows))
    log = Interactions.from_columns(users, items, times)
    fold = np.zeros(len(rows), dtype=np.int8)
    for end in log.starts[1:]:
        fold[end - 4 : end] = [1, 1, 2, 2]
    splits = SPLITTERS[kind](replace(log, splits=fold))
    others = items.copy()
    for name in changed:
        target = splits[name].target
        others[target] = (items[target] + random.integers(1, n_items, size=len(target))) % n_items
    for folder, column in (("before", items), ("after", others)):
        columns = {"user_id": users, "item_id": column, "timestamp": times}
        columns |= {"fold": np.array(SPLIT_NAMES)[fold]} if kind == "given" else {}
        pyarrow.csv.write_csv(pa.table(columns), tmp_path / "log.csv")
        options = SourceOptions(split_column="fold" if kind == "given" else None)
        prepare(tmp_path / "log.csv", tmp_path / folder, "csv", 3, kind, embedding="cooccurrence", options=options)
    same = [
        file.relative_to(tmp_path / "before").as_posix()
        for file in sorted((tmp_path / "before").rglob("*.parquet"))
        if file.read_bytes() == (tmp_path / "after" / file.relative_to(tmp_path / "before")).read_bytes()
    ]
    assert {"items/items.parquet", "sequences/train.parquet"} <= set(same)
    assert [f"sequences/{name}.parquet" in same for name in SPLIT_NAMES[1:]] == ["validation" not in changed, False]
    embedding = pq.read_table(tmp_path / "after/items/items.parquet")["embedding"]
    assert np.any(np.stack(embedding.to_numpy()) != 0)


def test_a_split_that_needs_more_than_min_count_is_named():
    rows = build([(user, 0, user) for user in range(5)])
    message = (
        r"users with fewer than 3 interactions \(the split needs as many\) and items with fewer than 1; check that"
    )
    with pytest.raises(ValueError, match=message):
        k_core(rows, 1, 3)
    with pytest.raises(ValueError, match=r"fewer than 3 interactions \(.*fewer than 2; lower `min_count`, or check"):
        k_core(rows, 2, 3)
