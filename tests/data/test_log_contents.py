"""`contents_of`: logs with other contents are told apart, however they are kept."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset

from etegrec_hf.data.sources.contents import contents_of

FRAME = pd.DataFrame({"user": ["a", "b", "c"], "item": pd.Categorical(["x", "y", "x"]), "price": [1.0, np.nan, 2.0]})


def other(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a frame with the same numbers of rows and bytes, in which one category has another name."""
    return frame.assign(item=frame["item"].cat.rename_categories({"y": "z"}))


@pytest.mark.parametrize("kept", [lambda frame: frame, pa.Table.from_pandas, Dataset.from_pandas])
def test_tables_of_other_contents_are_others(kept):
    assert contents_of(kept(FRAME)) == contents_of(kept(FRAME.copy()))
    assert contents_of(kept(FRAME)) != contents_of(kept(other(FRAME)))


def test_chunks_and_row_numbers_are_no_contents():
    table = pa.Table.from_pandas(FRAME.astype({"item": str}))
    parts = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert parts["user"].num_chunks == 2
    assert contents_of(parts) == contents_of(table)
    assert contents_of(FRAME.set_index(pd.Index([7, 8, 9]))) == contents_of(FRAME)


def test_files_of_the_same_size_are_others(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item\na,x\n")
    before = contents_of(path)
    assert contents_of(str(path)) == before
    path.write_text("user,item\na,y\n")
    assert contents_of(path) != before


def test_of_a_folder_the_files_of_a_log_count(tmp_path):
    (tmp_path / "part").mkdir()
    for name in ("u.data", "part/log.csv.gz"):
        (tmp_path / name).write_text("1")
    before = contents_of(tmp_path)
    (tmp_path / "notes.md").write_text("1")
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    for name in ("fit.json", "items.parquet"):
        (run / name).write_text("1")
    assert contents_of(tmp_path) == before
    (tmp_path / "part/log.csv.gz").write_text("2")
    assert contents_of(tmp_path) != before


@pytest.mark.parametrize("log", [None, 3, [["a", "b"]]])
def test_neither_path_nor_table_is_refused(log):
    with pytest.raises(ValueError, match=r"the log is a .*; give a path, a DataFrame"):
        contents_of(log)


def test_a_name_on_the_hub_is_kept():
    assert contents_of("user/log") == "user/log"
