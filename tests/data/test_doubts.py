"""What in a log may not be meant is refused or noted, however the log is written."""

import json
from contextlib import nullcontext

import pandas as pd
import pytest

from etegrec_hf.data.prepare import prepare
from etegrec_hf.data.prepared import split_file
from etegrec_hf.data.users.histories import read_histories

SECONDS = 1_588_291_200


def write(folder, rows: pd.DataFrame, kind: str):
    path = folder / f"log.{kind}"
    if kind == "parquet":
        rows.to_parquet(path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows.to_dict("records")))
    else:
        rows.to_csv(path, index=False)
    return path


def log_of(times: list) -> pd.DataFrame:
    return pd.DataFrame({"user_id": "u", "item_id": list("abcd")[: len(times)], "timestamp": times})


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("times", "shown"),
    [
        ([SECONDS, (SECONDS + 1) * 1000, SECONDS + 2], "1588291200 .seconds.* and 1588291201000 .milliseconds"),
        ([SECONDS * 10**9, SECONDS * 10**6, SECONDS * 10**9], "1588291200000000 .micro.* and 158829.* .nanoseconds"),
    ],
)
def test_times_of_two_units_are_an_error(kind, times, shown, tmp_path):
    path = write(tmp_path, log_of(times), kind)
    with pytest.raises(ValueError, match=rf"times of several kinds in 'timestamp', {shown}.*write all in one kind"):
        prepare(path, tmp_path / "data", min_count=1)
    assert not (tmp_path / "data").exists()
    with pytest.raises(ValueError, match="times of several kinds"):
        next(read_histories(path).tables())


@pytest.mark.parametrize(("other", "refused"), [(SECONDS * 1000, True), (0, False)])
def test_files_of_a_log_are_checked_together(other, refused, tmp_path):
    """A part that holds seconds and milliseconds is no error if another part holds a time that may be anything."""
    (tmp_path / "log").mkdir()
    mixed = log_of([SECONDS, SECONDS + 1] if refused else [SECONDS, SECONDS * 1000])
    mixed.to_parquet(tmp_path / "log/a.parquet")
    log_of([other]).to_parquet(tmp_path / "log/b.parquet")
    for read in (lambda path: prepare(path, tmp_path / "data", min_count=1), read_histories):
        with pytest.raises(ValueError, match=r"1588291200 .seconds.* and .* .milli") if refused else nullcontext():
            read(tmp_path / "log")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("other", ["1588291200000", "20200501"])
def test_dates_among_numbers_are_an_error(kind, other, tmp_path):
    path = write(tmp_path, log_of(["2020-05-01", other, "2020-05-03"]), kind)
    with pytest.raises(ValueError, match="times of several kinds"):
        prepare(path, tmp_path / "data", min_count=1)


@pytest.mark.parametrize(
    "times",
    [
        [SECONDS + 2, SECONDS + 1, SECONDS],
        [20200503, 20200502, 20200501],
        [3, 2, 1],
        [SECONDS * 1000, SECONDS, 0],  # since anything: 0 is of no kind
        [10**12, 10**10, 10**9],
    ],
)
def test_other_times_are_sorted(times, tmp_path):
    prepare(write(tmp_path, log_of(times), "csv"), tmp_path / "data", min_count=1)
    (test,) = pd.read_parquet(split_file(tmp_path / "data", "test")).to_dict("records")
    assert [*test["history"], test["target"]] == ["c", "b", "a"]


def test_ids_that_look_like_missing_ones_are_noted(tmp_path):
    rows = pd.DataFrame({"user_id": list("uuuvvv"), "item_id": ["a", "nan", "b", "a", "nan", "NULL"]})
    notes = prepare(write(tmp_path, rows, "csv"), tmp_path / "data", min_count=1)["notes"]
    assert [note.split(";")[0] for note in notes] == ["'nan' is the item of 2 rows", "'NULL' is the item of 1 row"]


def test_ids_in_two_spellings_are_noted(tmp_path):
    rows = pd.DataFrame({"user_id": ["u"] * 3 + ["01"] * 4, "item_id": ["12", "12.0", "0", "012", "7", "x12", "12x"]})
    (note,) = prepare(write(tmp_path, rows, "csv"), tmp_path / "data", min_count=1)["notes"]
    assert note.startswith("2 items may be another one in a second spelling, like '12' and '12.0'; they count")


def test_ids_as_they_mostly_are_need_no_note(tmp_path):
    rows = pd.DataFrame({"user_id": list("uuu"), "item_id": ["0012", "0013", "None of us"]})
    assert prepare(write(tmp_path, rows, "csv"), tmp_path / "data", min_count=1)["notes"] == []
