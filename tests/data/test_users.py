"""Histories of users and items per user, read from tables and logs."""

import gc
import gzip
import json
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from etegrec_hf import SourceOptions, read_histories
from etegrec_hf.data.interactions import drop_repeated
from etegrec_hf.data.sources import read_source
from etegrec_hf.data.users import items, spilled_log, table_file
from etegrec_hf.data.users.histories import repeated_user, split_histories
from etegrec_hf.data.users.items import ItemsFile, ItemsForAll
from etegrec_hf.data.users.table_file import in_pieces

USERS = {"u1": ["a", "b, c"], "7": [], "ü": ["a"], "u4": ["d", "d", "a"]}


def as_table() -> pa.Table:
    return pa.table({"user_id": list(USERS), "history": list(USERS.values()), "age": [1, 2, 3, 4]})


def write(path, table: pa.Table) -> None:
    """Writes a table as its ending says, lists in a CSV as JSON."""
    rows = table.to_pylist()
    if ".parquet" in path.suffixes:
        pq.write_table(table, path, row_group_size=3)
    elif ".csv" in path.suffixes:
        cells = [[json.dumps(cell) if isinstance(cell, list) else cell for cell in row.values()] for row in rows]
        quoted = [";".join('"' + str(cell).replace('"', '""') + '"' for cell in row) for row in cells]
        path.write_text("\n".join([";".join(table.column_names), *quoted]) + "\n", encoding="utf-8")
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def read(histories) -> dict[str, list[str]]:
    table = pa.concat_tables(histories.tables())
    assert table.schema.equals(pa.schema({"user_id": pa.string(), "history": pa.list_(pa.string())}))
    return dict(zip(*(table[name].to_pylist() for name in ("user_id", "history"))))


@pytest.mark.parametrize("name", ["users.parquet", "users.csv", "users.jsonl", "users.jsonl.gz"])
def test_a_table_of_any_format_gives_users_in_its_order(name, tmp_path, monkeypatch):
    monkeypatch.setattr(table_file, "ROWS", 3)
    write(tmp_path / name, as_table())
    histories = read_histories(tmp_path / name)
    for _ in range(2):  # it can be gone through again
        assert list(read(histories).items()) == list(USERS.items())
    assert [len(piece) for piece in histories.pieces(3)] == [3, 1]


def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    for part, rows in enumerate((as_table().slice(0, 1), as_table().slice(1))):
        write(tmp_path / f"part-{part}.parquet", rows)
    assert read(read_histories(tmp_path)) == USERS


def test_numbers_and_other_types_become_text(tmp_path):
    table = pa.table(
        {"uid": pa.array([1, 2], pa.int32()), "History": pa.array([[5, 6], None], pa.large_list(pa.int16()))}
    )
    write(tmp_path / "users.parquet", table)
    write(tmp_path / "users.jsonl", table)
    for name in ("users.parquet", "users.jsonl"):
        assert read(read_histories(tmp_path / name)) == {"1": ["5", "6"], "2": []}
    (tmp_path / "mixed.jsonl").write_text('{"uid": "x", "history": [1, "a"]}\n')
    assert read(read_histories(tmp_path / "mixed.jsonl")) == {"x": ["1", "a"]}


def test_a_log_is_read_in_the_order_of_its_times_once_each(tmp_path):
    rows = [
        "customer,sku,date",
        "u2,b,2024-01-02",
        "u1,x,2024-01-01",
        "u2,a,2024-01-01",
        "u2,a,2024-01-01",
        "u2,b,2024-01-03",
    ]
    (tmp_path / "log.csv").write_text("\n".join(rows) + "\n")
    histories = read_histories(tmp_path / "log.csv", size=1)
    assert read(histories) == {"u2": ["a", "b", "b"], "u1": ["x"]}
    by_name = SourceOptions(user_column="sku", item_column="customer", time_column="date")
    assert read(read_histories(tmp_path / "log.csv", by_name))["b"] == ["u2", "u2"]


WRONG_ROWS = [
    ('{"user_id": "a", "history": "b"}', "row 1 of .*: 'history' is 'b'; write a list of item ids"),
    ('{"user_id": "a", "history": []}\n{"user_id": "b", "history": [1.5]}', "row 2 of .*1.5, neither text nor a wh"),
    ('{"user_id": "a", "history": [null]}', "row 1 of .*: 'history' is empty or missing; write ids as text"),
    ('{"user_id": "", "history": ["a"]}', "row 1 of .*: 'user_id' is empty; write an id, or leave the row out"),
    ('{"user_id": null, "history": ["a"]}', "row 1 of .*: 'user_id' is empty or missing"),
    ('{"user_id": "a", "history": []}\n{"user_id": ', "1 malformed line in .*line 2: .*; write one JSON object per"),
    (
        'user_id,history\na,"[""b"""',
        r"1 of .*: 'history' is '\[\"b\"'; write a JSON list of ids, like \[\"a\", \"b\"\]",
    ),
    ("user_id,history\na,b", "row 1 of .*: 'history' is 'b'; write a JSON list of ids"),
    ("user_id,history\na,[],c", "row 1 of .* has 3 cells instead of 2; put cells that hold ',' into double quotes"),
    ('user_id,history\na,[]\n"b,[]', "can't be read as CSV after row 1: .*; check that its quotes are closed"),
    (
        "name,history\na,[]",
        r"has no column whose name says that it holds users, only \['name', 'history'\]; name it wi",
    ),
]


@pytest.mark.parametrize(("text", "message"), WRONG_ROWS)
def test_a_wrong_row_is_an_error_that_names_it(text, message, tmp_path):
    (tmp_path / "users").write_text(text + "\n")
    with pytest.raises(ValueError, match=message):
        list(read_histories(tmp_path / "users").tables())


def test_a_table_is_read_with_quotes_as_a_log_is(tmp_path):
    path = tmp_path / "items.tsv"
    path.write_text('user_id\thistory\tnote\na\t["x", "y"]\t"Best" song\n')
    assert read(read_histories(path)) == {"a": ["x", "y"]}
    path.write_text('"user_id"\t"history"\n"a"\t"[""x"", ""y""]"\n')
    assert read(read_histories(path)) == {"a": ["x", "y"]}


def test_a_history_may_be_long(tmp_path):
    ids = [f"item {number}" for number in range(20_000)]
    (tmp_path / "users.csv").write_text('user_id,history\na,"' + json.dumps(ids).replace('"', '""') + '"\n')
    assert read(read_histories(tmp_path / "users.csv")) == {"a": ids}


def test_malformed_lines_of_a_log_are_left_out_as_prepare_leaves_them_out(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"user_id": "u", "item_id": "a"}\nbroken\n{"user_id": "u", "item_id": "b"}\n')
    with pytest.raises(ValueError, match=r"1 malformed line in .*line 2: .*raise --max-malformed"):
        read_histories(tmp_path / "log.jsonl")
    histories = read_histories(tmp_path / "log.jsonl", SourceOptions(max_malformed=0.5))
    assert read(histories) == {"u": ["a", "b"]}
    assert "1 malformed line" in histories.notes[0]


def test_wrong_options_and_columns_are_an_error(tmp_path):
    write(tmp_path / "users.parquet", as_table())
    with pytest.raises(
        ValueError,
        match=r"`item_column` is 'x', but has no effect on .*, a table with a column 'history'; leave it out",
    ):
        read_histories(tmp_path / "users.parquet", SourceOptions(item_column="x"))
    for options, format in ((SourceOptions(max_malformed=0.5), "auto"), (SourceOptions(), "csv")):
        with pytest.raises(ValueError, match=r"`(max_malformed|format)` is .*, but has no effect on .*users.parquet"):
            read_histories(tmp_path / "users.parquet", options, format)
    with pytest.raises(ValueError, match=r"has no column 'x', only \['user_id', .*name it with --user-column"):
        read_histories(tmp_path / "users.parquet", SourceOptions(user_column="x"))
    write(tmp_path / "users.parquet", as_table().set_column(1, "history", [[0.5, 1.5, 2.5, 3.5]]))
    with pytest.raises(ValueError, match=r"column 'history' of .* holds double; write lists of item ids"):
        list(read_histories(tmp_path / "users.parquet").tables())
    write(tmp_path / "users.parquet", as_table().set_column(1, "history", [[[], ["a"], ["b", None], []]]))
    with pytest.raises(ValueError, match=r"row 3 of .*: 'history' holds an empty id; leave the id out"):
        list(read_histories(tmp_path / "users.parquet").tables())
    damaged = tmp_path / "users.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"users.parquet can't be read as parquet \(.*\); copy it again"):
        read_histories(damaged)
    with pytest.raises(FileNotFoundError, match="is neither a file nor a folder; check the path"):
        read_histories(tmp_path / "nothing.jsonl")
    write(tmp_path / "log.parquet", made_up_log(20, pa.int64()))
    with pytest.raises(ValueError, match="`hub_split` is 'x', but the format 'parquet' has no such option"):
        read_histories(tmp_path / "log.parquet", SourceOptions(hub_split="x"))


@pytest.mark.parametrize("column", ["items", "item_ids", "sequence"])
def test_lists_in_a_column_of_another_name_are_an_error_that_names_it(column, tmp_path):
    table = as_table().select([0, 1]).rename_columns(["user_id", column])
    for name in ("users.jsonl", "users.parquet", "users.csv"):
        write(tmp_path / name, table)
        with pytest.raises(
            ValueError,
            match=rf"has the columns \['user_id', '{column}'\], but lists of item ids are expected in a column called "
            "'history'; rename the column of lists",
        ):
            read_histories(tmp_path / name)


def test_rows_of_a_split_have_their_target(prepared_folder, prepared):
    histories = split_histories(prepared_folder, "test")
    table = pa.concat_tables(histories.pieces(50))
    assert histories.is_split
    assert table.column_names == ["user_id", "history", "target"]
    assert table["user_id"].to_pylist() == prepared.test.user_ids


def test_pieces_are_all_rows_in_order():
    tables = [pa.table({"x": list(range(start, end))}) for start, end in ((0, 5), (5, 5), (5, 6), (6, 17))]
    for size in range(1, 20):
        pieces = [piece["x"].to_pylist() for piece in in_pieces(tables, size)]
        assert {len(piece) for piece in pieces[:-1]} <= {size}
        assert [x for piece in pieces for x in piece] == list(range(17))


def test_a_user_of_several_rows_is_named():
    assert repeated_user(pa.chunked_array([["a", "b"], ["c", "b"]])) == "b"
    assert repeated_user(pa.chunked_array([["a", "b"], ["c"]])) is None


ITEM_IDS = ["a", "b, c", "d", "e"]
ROWS = pa.chunked_array([["u1", "u2"], ["u3", "u1", "u5"]])  # one user has two rows


def items_of(path, part_size: int):
    return ItemsFile(path, "exclude", ITEM_IDS).read(ROWS, part_size)


@pytest.mark.parametrize("part_size", [1, 2, 5])
def test_items_per_user_are_those_of_each_of_its_rows(part_size, tmp_path, monkeypatch):
    for name in ("ROWS_OF_ONE", "ROWS_OF_LISTS"):
        monkeypatch.setattr(items, name, 2)
    named = {"u5": ["e"], "nobody": ["a"], "u1": ["d", "unknown", "a"], "u3": ["unknown"]}
    pairs = [(user, item) for user, items in named.items() for item in items]
    write(
        tmp_path / "rows.csv",
        pa.table({"user_id": [user for user, _ in pairs], "item_id": [item for _, item in pairs]}),
    )
    write(tmp_path / "lists.jsonl", pa.table({"user_id": list(named), "items": list(named.values())}))
    expected = [{"a", "d"}, set(), set(), {"a", "d"}, {"e"}]
    for name in ("rows.csv", "lists.jsonl"):
        found = items_of(tmp_path / name, part_size)
        for _ in range(2):  # in any order, and again
            matrices = [found.of_part(number) for number in reversed(range(-(-5 // part_size)))][::-1]
            rows = np.concatenate([matrix.toarray() for matrix in matrices])
            assert [{ITEM_IDS[item] for item in np.flatnonzero(row)} for row in rows] == expected
        assert found.fingerprint == items_of(tmp_path / name, part_size).fingerprint


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("all.txt", "e\r\nb, c\n\nunknown\ne"),
        ("all.txt", "\ufeffe\nb, c"),
        ("all.csv", 'sku\ne\n"b, c"\nunknown'),
        ("all.jsonl", '{"item_id": "e"}\n{"item_id": "b, c"}'),
    ],
)
def test_items_for_all(name, text, tmp_path):
    (tmp_path / name).write_text(text + "\n")
    found = items_of(tmp_path / name, 2)
    assert isinstance(found, ItemsForAll)
    assert found.items.tolist() == [2, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,item_id\nu1,x", "names no item of the catalogue for any of the 5 users .*doesn't know is 'x'"),
        ("user_id,item_id\nx,a", "names no item of the catalogue for any of the 5 users; use the ids of the model"),
        (
            "item_id\nx",
            r"`exclude` .* names no item of the catalogue \(its first id .* is 'x'\); check its ids",
        ),
        (
            "user_id,what\nx,a",
            r"has the columns \['user_id', 'what'\], but none of items; write `item_id`, or `user_id` with",
        ),
    ],
)
def test_files_of_items_that_fit_nothing_are_an_error(text, message, tmp_path):
    (tmp_path / "file.csv").write_text(text + "\n")
    with pytest.raises(ValueError, match=message):
        items_of(tmp_path / "file.csv", 2)


def test_text_in_another_encoding_is_an_error(tmp_path):
    (tmp_path / "all.txt").write_bytes("\u00dcber\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"`exclude` .*all.txt isn't text in UTF-8 .*; save it as UTF-8"):
        items_of(tmp_path / "all.txt", 2)


@pytest.mark.parametrize("name", ["item00007", "nothing.txt"])
def test_a_file_of_items_that_does_not_exist_is_named_with_its_option(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"`exclude` is '.*{name}', but there is no such file; name a table"):
        items_of(tmp_path / name, 2)


def made_up_log(n_rows: int, times: pa.DataType | None) -> pa.Table:
    """Users, items and times that all repeat, with rows that lack one of them."""
    generator = np.random.default_rng(0)
    times_of_rows = generator.integers(6, size=n_rows)
    columns = {
        "user_id": pa.array([f"u{number}" for number in generator.integers(30, size=n_rows)]),
        "item_id": pa.array(generator.integers(9, size=n_rows)),
        "timestamp": pa.array(times_of_rows, pa.int32() if times == pa.date32() else pa.int64()).cast(
            times or pa.int64()
        ),
    }
    missing = {"user_id": 5, "item_id": 77, "timestamp": 123}
    columns = {
        name: pc.if_else(pa.array(np.arange(n_rows) == missing[name]), None, column)
        for name, column in columns.items()
    }
    return pa.table(columns if times is not None else {name: columns[name] for name in ("user_id", "item_id")})


@pytest.mark.parametrize("times", [pa.int64(), pa.float64(), pa.timestamp("s"), pa.date32(), None])
def test_a_log_of_parquet_in_parts_is_what_it_is_as_a_whole(times, tmp_path, monkeypatch):
    """Parts have 7 rows, and files 4 users; the reader of `prepare` gives the same."""
    for name, value in {"ROWS_READ": 7, "USERS_PER_FILE": 4}.items():
        monkeypatch.setattr(spilled_log, name, value)
    table = made_up_log(400, times)
    (tmp_path / "log").mkdir()
    write(tmp_path / "log/a.parquet", table.slice(0, 150))
    write(tmp_path / "log/b.parquet", table.slice(150))
    options = SourceOptions(max_malformed=0.01)
    histories = read_histories(tmp_path / "log", options, size=3)
    source, _ = read_source(tmp_path / "log", "auto", options)
    log = drop_repeated(source.interactions, "exact")
    assert len(log.items) < 399 if times is not None else len(log.items) == 398  # repetitions count once
    wanted = {
        user: log.item_ids[log.items[log.starts[row] : log.starts[row + 1]]].tolist()
        for row, user in enumerate(log.user_ids)
    }
    for _ in range(2):
        assert list(read(histories).items()) == list(wanted.items())
    assert histories.notes == tuple(map(str, source.malformed))


def test_a_log_in_parts_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    write(tmp_path / "log.parquet", made_up_log(400, pa.int64()))
    with pytest.raises(ValueError, match=r"3 malformed rows in .*row 6: 'user_id' is empty.*that is 0.75% of all"):
        read_histories(tmp_path / "log.parquet")
    histories = read_histories(tmp_path / "log.parquet", SourceOptions(max_malformed=0.01))
    gc.collect()
    assert len(list((tmp_path / "scratch").iterdir())) == 1
    del histories
    gc.collect()
    assert not list((tmp_path / "scratch").iterdir())


def test_an_empty_log_of_parquet_is_an_error(tmp_path):
    for table in (made_up_log(0, pa.int64()), made_up_log(6, pa.int64()).slice(5)):
        write(tmp_path / "log.parquet", table)
        with pytest.raises(ValueError, match=r"the log is empty: .* holds no interaction"):
            read_histories(tmp_path / "log.parquet", SourceOptions(max_malformed=1.0))
