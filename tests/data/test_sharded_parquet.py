import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etegrec_hf.data.sharded_parquet import ShardedParquet

SCHEMA = pa.schema({"number": pa.int64()})


@pytest.fixture
def file(tmp_path) -> ShardedParquet:
    """Ten rows in shards of four, in a folder that isn't there yet."""
    return ShardedParquet(tmp_path / "new/out.parquet", SCHEMA, 10, 4, {"of": "numbers"})


def numbers(*values: int) -> pa.Table:
    return pa.table([pa.array(values)], schema=SCHEMA)


def test_shards_are_joined_in_order_however_they_came(file):
    assert file.rows_of == [4, 4, 2]
    file.start()
    file.write(2, numbers(8, 9))
    assert file.missing() == [0, 1]
    file.write(0, numbers(0, 1, 2, 3))
    file.write(1, numbers(4, 5, 6))
    assert file.missing() == [1]  # a row short
    file.write(1, numbers(4, 5, 6, 7))
    assert file.missing() == []
    file.finish()
    assert pq.read_table(file.path)["number"].to_pylist() == list(range(10))
    assert [path.name for path in file.path.parent.iterdir()] == ["out.parquet"]


def test_what_is_left_beside_a_finished_file_is_removed(file):
    file.start()
    for number, values in enumerate(((0, 1, 2, 3), (4, 5, 6, 7), (8, 9))):
        file.write(number, numbers(*values))
    file._join(file.path)  # and then a kill
    file.shard(1).unlink()
    file.check(resume=True)
    assert file.missing() == []
    file.finish()
    assert pq.read_table(file.path)["number"].to_pylist() == list(range(10))
    assert not file.folder.exists()


def test_no_rows_make_an_empty_file(tmp_path):
    file = ShardedParquet(tmp_path / "out.parquet", SCHEMA, 0, 4, {})
    assert file.missing() == []
    file.finish()
    assert pq.read_table(file.path).num_rows == 0


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_other_kinds_of_files(tmp_path, ending):
    schema = pa.schema({"user": pa.string(), "items": pa.list_(pa.string())})
    file = ShardedParquet(tmp_path / f"out{ending}", schema, 2, 1, {})
    file.start()
    for number, row in enumerate(({"user": "a, b", "items": ["x", 'é,"']}, {"user": "c", "items": []})):
        file.write(number, pa.Table.from_pylist([row], schema=schema))
    file.finish()
    text = file.path.read_text(encoding="utf-8")
    if ending == ".csv":
        assert [row[0] for row in csv.reader(text.splitlines())] == ["user", "a, b", "c"]
        assert [json.loads(row[1]) for row in csv.reader(text.splitlines()[1:])] == [["x", 'é,"'], []]
    else:
        assert text == '{"user": "a, b", "items": ["x", "é,\\""]}\n{"user": "c", "items": []}\n'
    assert [path.name for path in tmp_path.iterdir()] == [f"out{ending}"]


def test_a_kind_that_nobody_writes(tmp_path):
    for name in ("out.xlsx", "out"):
        with pytest.raises(ValueError, match=r"`output` is '.*out.*'; name a file that ends in .parquet, .csv or"):
            ShardedParquet(tmp_path / name, SCHEMA, 1, 1, {})
