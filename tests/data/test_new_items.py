import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etegrec_hf.data.new_items import read_new_items


def test_a_parquet_file(tmp_path):
    path = tmp_path / "new.parquet"
    fractions, whole = [[0.5, 1.0], [2.0, 3.0]], [[1, 2], [3, 4]]
    kinds = {pa.list_(pa.float64()): fractions, pa.list_(pa.float32(), 2): fractions, pa.large_list(pa.int32()): whole}
    for kind, values in kinds.items():
        table = pa.table({"title": ["A", None], "item_id": [7, 8], "embedding": pa.array(values, kind)})
        pq.write_table(table, path)
        items = read_new_items(path)
        assert items.item_ids == ["7", "8"]
        assert items.title_of == {"7": "A"}
        assert items.embeddings.dtype == np.float32
        assert items.embeddings.tolist() == values


def test_a_csv_file_takes_ids_as_they_are_written(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text('item_id,embedding\n007,"[0.5, 1]"\n1e3,"[2, -3e-1]"\n')
    items = read_new_items(path)
    assert items.item_ids == ["007", "1e3"]
    assert items.title_of == {}
    assert items.embeddings.tolist() == np.array([[0.5, 1], [2, -0.3]], np.float32).tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item_id,title\na,A\n", "has no column 'embedding', only ['item_id', 'title']; it needs `item_id`"),
        ('id,embedding\na,"[1]"\n', "has no column 'item_id'"),
        ("item_id,embedding\n", "holds no items"),
        ('item_id,embedding\na,"[1]"\na,"[2]"\n', "holds 1 duplicate item ids"),
        ('item_id,embedding\n,"[1]"\n', "1 item ids in"),
        ('item_id,embedding\na,"[1, 2]"\nb,"[2]"\n', "have the widths [1, 2]"),
        ('item_id,embedding\na,"[1]"\nb,\n', "1 embeddings in"),
        ('item_id,embedding\na,"[NaN]"\n', "hold nothing, NaN or infinity, first that of item 'a'"),
        ("item_id,embedding\na,0.5 1.0\n", "holds other text; it needs lists of numbers"),
        ("item_id,embedding\na,0.5\n", "holds other text; it needs lists of numbers"),
        ('item_id,embedding\na,"[""x""]"\n', "holds other text; it needs lists of numbers"),
        ("", "can't be read"),
    ],
)
def test_what_is_no_table_of_items_is_an_error(tmp_path, text, message):
    path = tmp_path / "new.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_new_items(path)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("new.parquet", None, FileNotFoundError, "new.parquet' is no file; check the path"),
        ("new.parquet", "nothing", ValueError, "new.parquet' is damaged .*; copy it again"),
        ("new.npy", "nothing", ValueError, "is no .parquet or .csv file and no prepared dataset; convert it"),
    ],
)
def test_other_files_are_an_error(tmp_path, name, content, error, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        read_new_items(tmp_path / name)


def test_a_table_of_numbers_is_an_error(tmp_path):
    pq.write_table(pa.table({"item_id": ["a"], "embedding": [1.5]}), tmp_path / "new.parquet")
    with pytest.raises(ValueError, match="holds double; it needs lists of numbers"):
        read_new_items(tmp_path / "new.parquet")
