import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from safetensors.numpy import save_file

from etegrec_hf.data.prepare import prepare
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.sources import Columns
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
        import pyarrow.csv

        pyarrow.csv.write_csv(table, path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    else:
        pq.write_table(table, path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_become_the_same_dataset(table, tmp_path, kind):
    path = write(table.take(np.random.default_rng(0).permutation(len(table))), tmp_path, kind)
    statistics = prepare(path, kind, tmp_path / "data", min_count=1)
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
    prepare(path, "parquet", tmp_path / "data", min_count=1, columns=Columns("who", "what", "when"))
    assert rows_of(tmp_path / "data")["test"][-1][1][:3] == ["i0", "i1", "i2"]
    with pytest.raises(
        ValueError, match=r"has no column 'user_id', only \['who', 'what', 'when'\]; name it with --user"
    ):
        prepare(path, "parquet", tmp_path / "other", min_count=1)


def test_letter_layout_is_numbered_by_item_and_ordered_as_written(tmp_path):
    (tmp_path / "Tiny.inter.json").write_text(json.dumps({"9": [4, 0, 2], "3": [2, 1, 4, 0]}))
    (tmp_path / "Tiny.item.json").write_text(json.dumps({"4": {"title": "Four", "description": "the fourth"}}))
    (tmp_path / "Tiny.index.json").write_text(json.dumps({"4": ["<a_1>"]}))
    prepare(tmp_path, "letter", tmp_path / "data", min_count=1)
    data = PreparedDataset.load(tmp_path / "data")
    assert data.item_ids == ["0", "1", "2", "4"]
    assert data.titles == ["", "", "", "Four"]
    assert rows_of(tmp_path / "data")["test"] == [("9", ["4", "0", "2"]), ("3", ["2", "1", "4", "0"])]
    with pytest.raises(FileNotFoundError, match=r"holds 0 files NAME.inter.json"):
        prepare(tmp_path / "data", "letter", tmp_path / "again")


def test_datasets_opens_the_folder(prepared_folder, prepared, tmp_path):
    sequences = load_dataset(prepared_folder, "sequences", cache_dir=str(tmp_path))
    assert {name: len(rows) for name, rows in sequences.items()} == dict.fromkeys(SPLIT_NAMES, 120)
    row = sequences["test"][7]
    start, end = prepared.test.offsets[7:9]
    assert [*row["history"], row["target"]] == [prepared.item_ids[i - 1] for i in prepared.test.sequences[start:end]]
    items = load_dataset(prepared_folder, "items", cache_dir=str(tmp_path))["train"]
    assert items["item_id"][:] == prepared.item_ids
    np.testing.assert_array_equal(np.array(items["embedding"][:], dtype=np.float32), prepared.embeddings)


def test_histories_keep_their_last_items(table, tmp_path):
    prepare(write(table, tmp_path, "csv"), "csv", tmp_path / "data", min_count=1, max_history=2)
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
        prepare(path, "csv", tmp_path / kind, min_count=1, embedding=str(tmp_path / f"e.{kind}"))
        data = PreparedDataset.load(tmp_path / kind)
        assert data.item_ids == ids
        np.testing.assert_array_equal(data.embeddings, array)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 3)), r"`embeddings` has shape \(5, 3\); expected \(6, width\)"),
        (np.zeros(6), r"`embeddings` has shape \(6,\)"),
        (
            np.where(np.arange(18).reshape(6, 3) == 7, np.nan, 0),
            "1 embeddings hold NaN or infinity, first that of item 'i2'",
        ),
        (np.where(np.arange(18).reshape(6, 3) == 3, np.inf, 0), "first that of item 'i1'; repair them"),
    ],
)
def test_broken_embeddings_are_an_error_and_nothing_is_written(table, tmp_path, array, message):
    np.save(tmp_path / "e.npy", array)
    with pytest.raises(ValueError, match=message):
        prepare(
            write(table, tmp_path, "csv"), "csv", tmp_path / "data", min_count=1, embedding=str(tmp_path / "e.npy")
        )
    assert not (tmp_path / "data").exists()


def test_items_without_or_with_two_embeddings_are_an_error(table, tmp_path):
    path = write(table, tmp_path, "csv")
    ids = [f"i{item}" for item in range(6)]
    for name, kept in (("missing", ids[:4]), ("twice", [*ids, "i1"])):
        pq.write_table(pa.table({"item_id": kept, "embedding": [[1.0]] * len(kept)}), tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match=r"2 items have no embedding in .*, first 'i4'; add them"):
        prepare(path, "csv", tmp_path / "data", min_count=1, embedding=str(tmp_path / "missing.parquet"))
    with pytest.raises(ValueError, match="holds 1 duplicate item ids; keep one row an item"):
        prepare(path, "csv", tmp_path / "data", min_count=1, embedding=str(tmp_path / "twice.parquet"))
    with pytest.raises(ValueError, match=r"is none of .npy, .safetensors and .parquet"):
        prepare(path, "csv", tmp_path / "data", min_count=1, embedding="e.txt")


def test_wrong_wishes_are_an_error(table, tmp_path):
    path = write(table, tmp_path, "csv")
    with pytest.raises(ValueError, match="`format` is 'xml'; choose one of letter, csv, jsonl, parquet"):
        prepare(path, "xml", tmp_path / "data")
    with pytest.raises(ValueError, match="`split` is 'random'; choose one of leave-one-out, time"):
        prepare(path, "csv", tmp_path / "data", split="random")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(
        FileExistsError, match=r"`output_dir` '.*full' already holds another run; choose another folder"
    ):
        prepare(path, "csv", tmp_path / "full")
    with pytest.raises(FileNotFoundError, match="is no prepared dataset; make one with `etegrec prepare`"):
        PreparedDataset.load(tmp_path)


def test_a_damaged_prepared_folder_is_an_error(table, tmp_path):
    prepare(write(table, tmp_path, "csv"), "csv", tmp_path / "data", min_count=1)
    items = pq.read_table(tmp_path / "data/items/items.parquet")
    pq.write_table(items.slice(1), tmp_path / "data/items/items.parquet")
    with pytest.raises(ValueError, match="names the item 'i0', which `items` doesn't hold; prepare again"):
        PreparedDataset.load(tmp_path / "data")
    pq.write_table(pa.concat_tables([items, items.slice(0, 2)]), tmp_path / "data/items/items.parquet")
    with pytest.raises(ValueError, match="holds 2 duplicate item ids"):
        PreparedDataset.load(tmp_path / "data")


def test_an_interrupted_write_leaves_nothing(table, tmp_path, monkeypatch):
    monkeypatch.setattr("etegrec_hf.data.prepared.json.dumps", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(write(table, tmp_path, "csv"), "csv", tmp_path / "data", min_count=1)
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_empty_cells_are_an_error(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\na,x,1\na,y,\n")
    with pytest.raises(ValueError, match=r"column 'timestamp' of .* has 1 empty cells"):
        prepare(path, "csv", tmp_path / "data")
    path.write_text("user_id,item_id,timestamp\na,x,soon\n")
    with pytest.raises(ValueError, match=r"column 'timestamp' of .* is no number and no date"):
        prepare(path, "csv", tmp_path / "data")
