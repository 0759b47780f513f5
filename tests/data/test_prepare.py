import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from safetensors.numpy import save_file

from etegrec_hf.cli.prepare import run
from etegrec_hf.data.folders import complete_or_absent, replace_file
from etegrec_hf.data.prepare import prepare
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.sources import SourceOptions
from etegrec_hf.data.splits import SPLIT_NAMES

ROWS = [(f"u{user}", f"i{(user + step) % 6}", step) for user in range(8) for step in range(4 + user % 2)]


def rows_of(folder) -> dict[str, list]:
    data = PreparedDataset.load(folder)
    return {
        name: [
            (user, [data.item_ids[index - 1] for index in split.sequences[start:end]])
            for user, start, end in zip(split.user_ids, split.offsets[:-1], split.offsets[1:])
        ]
        for name, split in ((name, getattr(data, name)) for name in SPLIT_NAMES)
    }


@pytest.fixture
def table() -> pa.Table:
    users, items, steps = zip(*ROWS)
    titles = [f"Title of {item}" for item in items]
    return pa.table({"user_id": users, "item_id": items, "timestamp": steps, "title": titles})


def write(table: pa.Table, folder, kind: str):
    path = folder / f"log.{kind}"
    if kind == "csv":
        pyarrow.csv.write_csv(table, path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    else:
        pq.write_table(table, path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_become_the_same_dataset(table, tmp_path, kind):
    path = write(table.take(np.random.default_rng(0).permutation(len(table))), tmp_path, kind)
    statistics = prepare(path, tmp_path / "data", kind, min_count=1)
    assert (statistics["users"], statistics["items"], statistics["interactions"]) == (8, 6, len(ROWS))
    sequences = {
        user: [item for other, item, _ in ROWS if other == user] for user in dict.fromkeys(r[0] for r in ROWS)
    }
    rows = rows_of(tmp_path / "data")
    for back, name in ((2, "train"), (1, "validation"), (0, "test")):
        assert dict(rows[name]) == {user: items[: len(items) - back] for user, items in sequences.items()}
    data = PreparedDataset.load(tmp_path / "data")
    assert data.titles == [f"Title of {item_id}" for item_id in data.item_ids]
    assert data.embeddings is None


def test_other_column_names_and_dates(table, tmp_path):
    days = pa.array(np.array(table["timestamp"]).astype("datetime64[D]"))
    renamed = pa.table({"who": table["user_id"], "what": table["item_id"], "when": days}).slice(0)
    path = write(renamed.take(list(range(len(renamed)))[::-1]), tmp_path, "parquet")
    prepare(path, tmp_path / "data", "parquet", min_count=1, options=SourceOptions("who", "what", "when"))
    assert rows_of(tmp_path / "data")["test"][-1][1][:3] == ["i0", "i1", "i2"]
    with pytest.raises(
        ValueError, match=r"whose name says that it holds users, only \['who', 'what', 'when'\]; name it with --user"
    ):
        prepare(path, tmp_path / "other", "parquet", min_count=1)


def order_of(rows: pa.Table, folder, kind: str = "parquet", **wishes) -> tuple[str, list[str]]:
    """Returns the order that `prepare` reports, and the items of the only user."""
    statistics = prepare(write(rows, folder, kind), folder / "data", kind, min_count=1, **wishes)
    ((_, items),) = rows_of(folder / "data")["test"]
    return statistics["order"], items


def test_the_order_is_that_of_the_named_column_or_of_timestamp_or_of_the_rows(tmp_path):
    columns = {"user_id": ["u"] * 3, "item_id": ["x", "y", "z"], "timestamp": [2, 1, 3], "when": [3, 2, 1]}
    for name, kept, wishes, expected in (
        ("default", 4, {}, ("timestamp", ["y", "x", "z"])),
        ("named", 4, {"options": SourceOptions(time_column="when")}, ("when", ["z", "y", "x"])),
        ("none", 2, {}, ("rows of the file", ["x", "y", "z"])),
    ):
        (tmp_path / name).mkdir()
        assert order_of(pa.table(columns).select(range(kept)), tmp_path / name, **wishes) == expected
    rows = write(pa.table(columns).drop(["timestamp"]), tmp_path, "csv")
    for given in ("whne", "timestamp"):
        with pytest.raises(ValueError, match=rf"no column '{given}', only \['user_id', .*'when'\]; .* --time-column"):
            prepare(rows, tmp_path / "data", "csv", min_count=1, options=SourceOptions(time_column=given))
    with pytest.raises(ValueError, match="`split` 'time' needs timestamps, but this data has none"):
        prepare(rows, tmp_path / "data", "csv", min_count=1, split="time")


def test_the_command_says_when_rows_are_taken_to_be_in_order(table, tmp_path, capsys):
    (tmp_path / "Tiny.inter.json").write_text(json.dumps({"9": [4, 0, 2]}))
    timed, untimed = write(table, tmp_path, "csv"), write(table.drop(["timestamp"]), tmp_path, "parquet")
    for path, kind, noted in ((timed, "csv", False), (untimed, "parquet", True), (tmp_path, "letter", False)):
        run([str(path), "--format", kind, "--output-dir", str(tmp_path / f"data-{kind}"), "--min-count", "1"])
        assert ("name one with --time-column" in capsys.readouterr().err) == noted


DAY = 86_400_000  # in milliseconds
NANOSECONDS = [1_700_000_000_000_000_000 + later for later in (2, 1, 0)]


@pytest.mark.parametrize(
    "times",
    [
        pa.array(NANOSECONDS),
        pa.array(NANOSECONDS, pa.timestamp("ns")),
        pa.array(NANOSECONDS, pa.timestamp("ns", "UTC")),
        pa.array(NANOSECONDS, pa.duration("ns")),
        pa.array([2 * DAY, DAY, 0], pa.date64()),
        pa.array([2, 1, 0], pa.date32()),
        pa.array([2, 1, 0], pa.timestamp("s")),
        pa.array([2, 1, 0], pa.uint8()),
        pa.array([0.2, 0.1, 0.0]),
        pa.array(["10.5", "9", "-1"]),
    ],
    ids=lambda times: str(times.type),
)
def test_times_one_unit_apart_keep_their_order(tmp_path, times):
    rows = pa.table({"user_id": ["u"] * 3, "item_id": ["x", "y", "z"], "timestamp": times})
    assert order_of(rows, tmp_path) == ("timestamp", ["z", "y", "x"])


def test_nanoseconds_in_a_csv_keep_their_order(tmp_path):
    path = tmp_path / "log.csv"
    times = [f"2024-01-01 00:00:00.00000000{step}" for step in (2, 1, 0)]
    path.write_text("user_id,item_id,timestamp\n" + "".join(f"u,i{row},{time}\n" for row, time in enumerate(times)))
    prepare(path, tmp_path / "data", "csv", min_count=1)
    assert rows_of(tmp_path / "data")["test"] == [("u", ["i2", "i1", "i0"])]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([[1], [2], [3]]),
        pa.array([2**64 - 1, 1, 2], pa.uint64()),
        pa.array([2, 1, 0], pa.time32("s")),  # times of day, which start again at midnight
        pa.array(["23:58:00", "23:59:00", "00:01:00"]),
    ],
)
def test_times_that_are_none_are_an_error(tmp_path, times):
    rows = pa.table({"user_id": ["u"] * 3, "item_id": ["x", "y", "z"], "timestamp": times})
    with pytest.raises(ValueError, match=r"row 1: 'timestamp' is .*, neither a number nor a date"):
        order_of(rows, tmp_path)


@pytest.mark.parametrize(("min_count", "users", "short", "rare"), [(1, 5, 1, 0), (2, 3, 1, 2), (3, 3, 1, 2)])
def test_users_and_items_that_go_are_counted_and_add_up(tmp_path, min_count, users, short, rare):
    histories = {**dict.fromkeys(("a", "b", "c"), "xyz"), "two": "xy", "left": "xyp", "rare": "qwv"}
    rows = pa.table(dict(zip(("user_id", "item_id"), zip(*((u, i) for u, items in histories.items() for i in items)))))
    found = prepare(write(rows, tmp_path, "csv"), tmp_path / "data", "csv", min_count=min_count)
    assert (found["users_read"], found["items_read"], found["interactions_read"]) == (6, 7, 17)
    assert found["users"] == users
    assert found["users_below_3_interactions_dropped"] == short
    assert found["users_below_min_count_dropped"] == rare
    assert found["users_read"] == found["users"] + short + rare
    assert found["items"] == len(PreparedDataset.load(tmp_path / "data").item_ids) == (7 if min_count == 1 else 3)
    assert found["items_read"] == found["items"] + found["items_dropped"]


def test_letter_layout_is_numbered_by_item_and_ordered_as_written(tmp_path):
    (tmp_path / "Tiny.inter.json").write_text(json.dumps({"9": [4, 0, 2], "3": [2, 1, 4, 0]}))
    (tmp_path / "Tiny.item.json").write_text(json.dumps({"4": {"title": "Four", "description": "the fourth"}}))
    (tmp_path / "Tiny.index.json").write_text(json.dumps({"4": ["<a_1>"]}))
    prepare(tmp_path, tmp_path / "data", "letter", min_count=1)
    data = PreparedDataset.load(tmp_path / "data")
    assert data.item_ids == ["0", "1", "2", "4"]
    assert data.titles == ["", "", "", "Four"]
    assert rows_of(tmp_path / "data")["test"] == [("9", ["4", "0", "2"]), ("3", ["2", "1", "4", "0"])]
    with pytest.raises(FileNotFoundError, match=r"holds 0 files NAME.inter.json"):
        prepare(tmp_path / "data", tmp_path / "again", "letter")


def test_numbers_of_items_that_a_letter_file_writes_as_text_are_ordered_as_numbers(tmp_path):
    history = ["2", "11", "0", "10", "1"]
    (tmp_path / "Tiny.inter.json").write_text(json.dumps({"u": history}))
    np.save(tmp_path / "e.npy", np.array([[0.0], [1], [2], [10], [11]]))
    prepare(tmp_path, tmp_path / "data", "letter", min_count=1, embedding=str(tmp_path / "e.npy"))
    data = PreparedDataset.load(tmp_path / "data")
    assert data.item_ids == ["0", "1", "2", "10", "11"]
    assert data.embeddings.ravel().tolist() == [0, 1, 2, 10, 11]


def test_users_without_items_in_a_letter_file_are_counted(tmp_path):
    (tmp_path / "Tiny.inter.json").write_text(json.dumps({"1": [], "2": [0, 1, 2], "3": [0], "4": []}))
    found = prepare(tmp_path, tmp_path / "data", "letter", min_count=1)
    assert (found["users_read"], found["users"], found["users_below_3_interactions_dropped"]) == (4, 1, 3)
    assert rows_of(tmp_path / "data")["test"] == [("2", ["0", "1", "2"])]


def test_codes_that_came_with_a_letter_file_are_kept(tmp_path):
    (tmp_path / "Tiny.inter.json").write_text(json.dumps({"9": [4, 0, 2], "3": [2, 4, 0], "1": [7]}))
    codes = {"4": ["<a_1>", "<b_2>"], "0": ["<a_3>", "<b_0>"], "7": ["<a_0>", "<b_0>"]}
    (tmp_path / "Tiny.index.json").write_text(json.dumps(codes))
    prepare(tmp_path, tmp_path / "data", "letter", min_count=2)
    items = load_dataset(str(tmp_path / "data"), "items", cache_dir=str(tmp_path / "cache"))["train"]
    assert dict(zip(items["item_id"], items["codes"])) == {"0": codes["0"], "2": None, "4": codes["4"]}
    assert "codes" in (tmp_path / "data/README.md").read_text()


def test_datasets_opens_the_folder(prepared_folder, prepared, tmp_path):
    sequences = load_dataset(prepared_folder, "sequences", cache_dir=str(tmp_path))
    assert {name: len(rows) for name, rows in sequences.items()} == dict.fromkeys(SPLIT_NAMES, 120)
    row = sequences["test"][7]
    start, end = prepared.test.offsets[7:9]
    assert [*row["history"], row["target"]] == [prepared.item_ids[i - 1] for i in prepared.test.sequences[start:end]]
    items = load_dataset(prepared_folder, "items", cache_dir=str(tmp_path))["train"]
    assert items["item_id"][:] == prepared.item_ids
    np.testing.assert_array_equal(np.array(items["embedding"][:], dtype=np.float32), prepared.embeddings)


def test_training_sequences_keep_all_items(table, tmp_path):
    prepare(write(table, tmp_path, "csv"), tmp_path / "data", "csv", min_count=1, max_history=1)
    rows = rows_of(tmp_path / "data")
    assert max(len(items) for _, items in rows["train"]) > 2
    assert {len(items) for _, items in rows["test"]} == {2}, "one and the target"


def test_histories_keep_their_last_items(table, tmp_path):
    prepare(write(table, tmp_path, "csv"), tmp_path / "data", "csv", min_count=1, max_history=2)
    rows = rows_of(tmp_path / "data")
    assert {len(items) for _, items in rows["test"]} == {3}
    assert max(len(items) for _, items in rows["train"]) == 3, "training keeps whole sequences"


def test_given_embeddings_follow_their_items(table, tmp_path):
    path = write(table, tmp_path, "csv")
    ids = [f"i{item}" for item in range(6)]  # in the order of their first row
    array = np.arange(18, dtype=np.float32).reshape(6, 3)
    np.save(tmp_path / "e.npy", array)
    save_file({"embedding": array}, tmp_path / "e.safetensors")
    order = [3, 0, 5, 1, 2, 4]
    pq.write_table(
        pa.table({"item_id": [ids[i] for i in order], "embedding": array[order].tolist()}), tmp_path / "e.parquet"
    )
    for kind in ("npy", "safetensors", "parquet"):
        prepare(path, tmp_path / kind, "csv", min_count=1, embedding=str(tmp_path / f"e.{kind}"))
        data = PreparedDataset.load(tmp_path / kind)
        assert data.item_ids == ids
        np.testing.assert_array_equal(data.embeddings, array)


@pytest.mark.parametrize("kind", ["npy", "safetensors", "parquet"])
def test_given_embeddings_follow_the_items_that_filtering_left(tmp_path, kind):
    histories = {"a": ["rare", "x", "y", "z"], "b": ["z", "other", "y", "x"]}
    users, items = zip(*((user, item) for user, history in histories.items() for item in history))
    path = write(pa.table({"user_id": users, "item_id": items}), tmp_path, "csv")
    array = np.array([[np.nan], [1], [2], [3], [np.inf]], dtype=np.float32)  # rare x y z other
    given = tmp_path / f"e.{kind}"
    if kind == "npy":
        np.save(given, array)
    elif kind == "safetensors":
        save_file({"embedding": array}, given)
    else:
        rows = {"z": [3.0], "other": None, "x": [1.0], "y": [2.0]}
        pq.write_table(pa.table({"item_id": list(rows), "embedding": list(rows.values())}), given)
    prepare(path, tmp_path / "data", "csv", min_count=2, embedding=str(given))
    data = PreparedDataset.load(tmp_path / "data")
    assert dict(zip(data.item_ids, data.embeddings.ravel().tolist())) == {"x": 1, "y": 2, "z": 3}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 3)), r"has shape \(5, 3\); expected \(6, width\): .* unfiltered log, .* give a .parquet"),
        (np.zeros(6), r"the embedding in .*e.npy has shape \(6,\)"),
        (
            np.where(np.arange(18).reshape(6, 3) == 7, np.nan, 0),
            "1 embedding in .*e.npy is missing or holds NaN or infinity, first that of item 'i2'",
        ),
        (np.where(np.arange(18).reshape(6, 3) == 3, np.inf, 0), "first that of item 'i1'; repair them"),
    ],
)
def test_broken_embeddings_are_an_error_and_nothing_is_written(table, tmp_path, array, message):
    np.save(tmp_path / "e.npy", array)
    with pytest.raises(ValueError, match=message):
        prepare(
            write(table, tmp_path, "csv"), tmp_path / "data", "csv", min_count=1, embedding=str(tmp_path / "e.npy")
        )
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([0, 1, 2, 3], r"2 items have no embedding in .*, first 'i4'; add embeddings"),
        ([0, 1, 2, 3, 4, 5, 1], "holds 1 duplicate item id; keep one row per item"),
    ],
    ids=["without", "two"],
)
def test_items_without_or_with_two_embeddings_are_an_error(table, tmp_path, kept, message):
    rows = {"item_id": [f"i{item}" for item in kept], "embedding": [[1.0]] * len(kept)}
    pq.write_table(pa.table(rows), tmp_path / "e.parquet")
    with pytest.raises(ValueError, match=message):
        prepare(
            write(table, tmp_path, "csv"), tmp_path / "data", "csv", min_count=1, embedding=str(tmp_path / "e.parquet")
        )


def test_empty_ids_are_an_error_in_every_table(table, tmp_path):
    rows = table.to_pylist()
    rows[3]["item_id"] = ""
    for kind in ("csv", "jsonl", "parquet"):
        path = write(pa.Table.from_pylist(rows), tmp_path, kind)
        with pytest.raises(ValueError, match=r"malformed (row|line) in .*: 'item_id' is empty or missing.* repair"):
            prepare(path, tmp_path / "data", kind, min_count=1)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("inter", '{"9": [4, 0', SourceOptions(), r"Tiny.inter.json isn't JSON: .*; copy it again or repair it"),
        (
            "index",
            '{"4": [1, 2]}',
            SourceOptions(),
            r"item '4' in .*Tiny.index.json has \[1, 2\]; expected token strings",
        ),
        (
            "inter",
            '{"9": [4, 0, 2]}',
            SourceOptions("who"),
            "`user_column` is 'who', but the format 'letter' has no such option",
        ),
    ],
)
def test_broken_letter_files_are_an_error(tmp_path, name, content, options, message):
    (tmp_path / "Tiny.inter.json").write_text('{"9": [4, 0, 2]}')
    (tmp_path / f"Tiny.{name}.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, tmp_path / "data", "letter", min_count=1, options=options)


def test_an_embedding_table_with_other_columns_is_an_error(table, tmp_path):
    pq.write_table(pa.table({"asin": ["i0"], "vector": [[1.0]]}), tmp_path / "e.parquet")
    with pytest.raises(
        ValueError, match=r"has the columns \['asin', 'vector'\]; rename those to use to `item_id` and"
    ):
        prepare(
            write(table, tmp_path, "csv"), tmp_path / "data", "csv", min_count=1, embedding=str(tmp_path / "e.parquet")
        )


@pytest.mark.parametrize(
    ("kind", "wishes", "message"),
    [
        ("xml", {}, r"`format` is 'xml'; choose one of auto, amazon2014, .*, csv, jsonl, parquet, hub"),
        ("csv", {"split": "random"}, "`split` is 'random'; choose one of leave-one-out, time, ratio, given"),
        ("csv", {"normalize": "l2"}, "`normalize` is 'l2', but there is no `embedding` to normalize"),
        (
            "csv",
            {"split": "time", "options": SourceOptions(split_column="fold")},
            "`split_column` is 'fold', but has no effect on the split 'time'; pass --split given, or leave",
        ),
        (
            "csv",
            {"embedding": "e.txt"},
            r"isn't a .npy, .safetensors or .parquet file; convert it, or use 'cooccurrence'",
        ),
        (
            "csv",
            {"options": SourceOptions("item_id", "item_id")},
            "column 'item_id' would be both users and items; name another with --item-column",
        ),
    ],
)
def test_wrong_wishes_are_an_error(table, tmp_path, kind, wishes, message):
    with pytest.raises(ValueError, match=message):
        prepare(write(table, tmp_path, "csv"), tmp_path / "data", kind, min_count=1, **wishes)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"embedding": "cooccurence"}, "isn't a .npy, .safetensors or .parquet file; did you mean 'cooccurrence'"),
        ({"embedding": ["cooccurrence", "none.npy"]}, "embedding 'none.npy' isn't a file; check the path"),
        ({"duplicates": "all"}, "`duplicates` is 'all'; choose one of exact, item, none"),
        ({"seed": -1}, "`seed` is -1; give a whole number from 0 to 4294967295"),
    ],
)
def test_wrong_wishes_are_found_before_the_log_is_read(tmp_path, wishes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare(tmp_path / "no such log.csv", tmp_path / "data", **wishes)


def test_a_folder_that_holds_files_is_left_alone(table, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(FileExistsError, match=r"`output_dir` '.*full' already holds another run; choose another fol"):
        prepare(write(table, tmp_path, "csv"), tmp_path / "full", "csv")


def test_a_place_where_no_folder_can_be_made_is_named(table, tmp_path, monkeypatch):
    path = write(table, tmp_path, "csv")
    with pytest.raises(ValueError, match=r"`output_dir` '/dev/null/data' can't be made \(Not a dir"):
        prepare(path, "/dev/null/data", "csv", min_count=1)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(FileExistsError, match=r"`output_dir` '\.' is there already; name a new folder"):
        prepare(path, ".", "csv", min_count=1)


def test_a_folder_that_is_no_prepared_dataset_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="isn't a prepared dataset; make one with `etegrec prepare`"):
        PreparedDataset.load(tmp_path)


def test_a_damaged_prepared_folder_is_an_error(table, tmp_path):
    prepare(write(table, tmp_path, "csv"), tmp_path / "data", "csv", min_count=1)
    items = pq.read_table(tmp_path / "data/items/items.parquet")
    pq.write_table(items.slice(1), tmp_path / "data/items/items.parquet")
    with pytest.raises(ValueError, match="names the item 'i0', which isn't in `items`; prepare again"):
        PreparedDataset.load(tmp_path / "data")
    pq.write_table(pa.concat_tables([items, items.slice(0, 2)]), tmp_path / "data/items/items.parquet")
    with pytest.raises(ValueError, match="holds 2 duplicate item ids"):
        PreparedDataset.load(tmp_path / "data")


@pytest.mark.parametrize("list_type", [pa.list_(pa.float32(), 2), pa.list_(pa.float64())], ids=["fixed", "list"])
@pytest.mark.parametrize("broken", [None, [1.0, None], [np.nan, 1.0], [np.inf, 1.0]])
def test_a_prepared_folder_with_broken_embeddings_is_an_error(table, tmp_path, list_type, broken):
    prepare(write(table, tmp_path, "csv"), tmp_path / "data", "csv", min_count=1)
    path = tmp_path / "data/items/items.parquet"
    items = pq.read_table(path)
    rows = [[float(row), 0.0] for row in range(6)]
    pq.write_table(items.append_column("embedding", pa.array(rows, list_type)), path)
    assert PreparedDataset.load(tmp_path / "data").embeddings.tolist() == rows
    rows[2] = broken
    pq.write_table(items.append_column("embedding", pa.array(rows, list_type)), path)
    with pytest.raises(ValueError, match=r"1 embedding in .*data is missing .* item 'i2'; .* prepare again"):
        PreparedDataset.load(tmp_path / "data")


def test_a_prepared_folder_with_embeddings_of_several_widths_is_an_error(table, tmp_path):
    prepare(write(table, tmp_path, "csv"), tmp_path / "data", "csv", min_count=1)
    items = pq.read_table(tmp_path / "data/items/items.parquet")
    rows = pa.array([[1.0], [1.0, 2.0, 3.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])  # 12 numbers in 6 rows
    pq.write_table(items.append_column("embedding", rows), tmp_path / "data/items/items.parquet")
    with pytest.raises(ValueError, match=r"have the widths \[1, 2, 3\]; all rows need the same"):
        PreparedDataset.load(tmp_path / "data")


@pytest.mark.parametrize("column", ["history", "target"])
def test_a_prepared_folder_with_empty_cells_is_an_error(table, tmp_path, column):
    prepare(write(table, tmp_path, "csv"), tmp_path / "data", "csv", min_count=1)
    path = tmp_path / "data/sequences/test.parquet"
    rows = pq.read_table(path)
    position = rows.column_names.index(column)
    cells = pa.array([None, *rows[column].to_pylist()[1:]], rows[column].type)
    pq.write_table(rows.set_column(position, column, cells), path)
    with pytest.raises(ValueError, match=rf"column '{column}' of .*test.parquet has 1 empty cells; prepare again"):
        PreparedDataset.load(tmp_path / "data")
    pq.write_table(rows.drop_columns(column), path)
    with pytest.raises(
        ValueError, match=rf"test.parquet is damaged \(it has no column '{column}'\); copy the dataset"
    ):
        PreparedDataset.load(tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sequences/test.parquet", None, "lacks sequences/test.parquet; copy the dataset again"),
        ("statistics.json", None, "lacks statistics.json; copy the dataset again"),
        ("statistics.json", "{", r"statistics.json is damaged .*; copy the dataset again"),
        ("items/items.parquet", "PAR1", r"items.parquet is damaged .*; copy the dataset again"),
        ("sequences/train.parquet", "", r"train.parquet is damaged .*; copy the dataset again"),
    ],
)
def test_a_prepared_folder_that_is_not_whole_is_an_error(table, tmp_path, name, content, message):
    prepare(write(table, tmp_path, "csv"), tmp_path / "data", "csv", min_count=1)
    (tmp_path / "data" / name).unlink()
    if content is not None:
        (tmp_path / "data" / name).write_text(content)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        PreparedDataset.load(tmp_path / "data")


def test_splits_by_time_keep_users_of_one_interaction(tmp_path):
    rows = [("long", f"i{step % 3}", step) for step in range(30)] + [("short", "i0", 1)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user_id,item_id,timestamp", *(f"{u},{i},{t}" for u, i, t in rows)]))
    by_time = prepare(path, tmp_path / "time", "csv", min_count=1, split="time")
    assert (by_time["users"], "users_below_3_interactions_dropped" in by_time) == (2, False)
    left_out = prepare(path, tmp_path / "loo", "csv", min_count=1)
    assert (left_out["users"], left_out["users_below_3_interactions_dropped"]) == (1, 1)


def test_brackets_in_names_are_no_markup(table, tmp_path, capsys):
    (tmp_path / "raw[bold]").mkdir()
    path = write(table, tmp_path / "raw[bold]", "csv").rename(tmp_path / "raw[bold]/log[b].csv")
    run([str(path), "--format", "csv", "--output-dir", str(tmp_path / "d[/b]"), "--min-count", "1"])
    printed = "".join(capsys.readouterr().out.split())
    assert "d[/b]" in printed
    assert "log[b].csv" in printed


def test_an_interrupted_write_leaves_nothing(table, tmp_path, monkeypatch):
    monkeypatch.setattr("etegrec_hf.data.prepared.json.dumps", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(write(table, tmp_path, "csv"), tmp_path / "data", "csv", min_count=1)
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_an_empty_folder_that_a_link_points_to_is_filled(table, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    prepare(write(table, tmp_path, "csv"), tmp_path / "link", "csv", min_count=1)
    assert (tmp_path / "link").is_symlink()
    assert PreparedDataset.load(tmp_path / "real").item_ids
    assert {path.name for path in tmp_path.iterdir()} == {"log.csv", "real", "link"}


def test_a_folder_that_another_call_has_filled_is_kept_and_so_is_the_result(tmp_path):
    target = tmp_path / "data"

    def write_both() -> None:
        with complete_or_absent(target) as mine:
            (mine / "file").write_text("mine")
            with complete_or_absent(target) as other:
                (other / "file").write_text("other")

    with pytest.raises(FileExistsError, match=r"data' can't be replaced \(Dir.*so the finished folder is '") as raised:
        write_both()
    (kept,) = (path for path in tmp_path.iterdir() if path != target)
    assert f"{str(kept)!r}; use it from there, or rename it" in str(raised.value)
    assert [(folder / "file").read_text() for folder in (target, kept)] == ["other", "mine"]


def test_a_file_that_two_calls_write_at_once_is_whole(tmp_path):
    path = tmp_path / "file"

    def write_slowly(beside: Path) -> None:
        beside.write_text("whole")
        replace_file(path, lambda other: other.write_text("other"))
        assert path.read_text() == "other"
        assert beside.read_text() == "whole"

    replace_file(path, write_slowly)
    assert path.read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_modes_of_new_folders_and_files_are_the_usual_ones(tmp_path):
    (tmp_path / "usual").mkdir()
    (tmp_path / "usual/file").touch()
    with complete_or_absent(tmp_path / "data") as folder:
        (folder / "file").touch()
    replace_file(tmp_path / "file", Path.touch)
    assert (tmp_path / "data").stat().st_mode == (tmp_path / "usual").stat().st_mode
    for name in ("data/file", "file"):
        assert (tmp_path / name).stat().st_mode == (tmp_path / "usual/file").stat().st_mode


def test_leftovers_of_a_killed_call_are_removed_by_the_next(tmp_path):
    for name in ("data", "file"):
        (tmp_path / f".{name}.0123abcd.incomplete").mkdir()
        (tmp_path / f".{name}.0123abcd.incomplete/part").touch()
    with complete_or_absent(tmp_path / "data"):
        pass
    replace_file(tmp_path / "file", Path.touch)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "file"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,y,", r"1 malformed row in .*\(row 2: 'timestamp' is .*\), that is 50.00%"),
        ("a,y,nan", r"1 malformed row in .*\(row 2: 'timestamp' is .*\), that is 50.00%"),
        ("a,y,soon", r"row 2: 'timestamp' is 'soon', neither a number nor a date"),
        (",x,1", r"\(row 2: 'user_id' is empty or missing\), that is 50"),
        ("a,,1", r"\(row 2: 'item_id' is empty or missing\), that is 50"),
        ('a,"",1', r"\(row 2: 'item_id' is empty or missing\), that is 50"),
    ],
)
def test_broken_cells_are_an_error(tmp_path, row, message):
    path = tmp_path / "log.csv"
    path.write_text(f"user_id,item_id,timestamp\na,x,1\n{row}\n")
    with pytest.raises(ValueError, match=message):
        prepare(path, tmp_path / "data", "csv")


def test_ids_and_titles_of_a_csv_are_taken_as_written(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,title\nNA,null,007\nNA,nan,1.50\nNA,01,\n")
    prepare(path, tmp_path / "data", "csv", min_count=1)
    data = PreparedDataset.load(tmp_path / "data")
    assert dict(zip(data.item_ids, data.titles)) == {"null": "007", "nan": "1.50", "01": ""}
    assert data.test.user_ids == ["NA"]
