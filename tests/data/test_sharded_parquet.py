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
