"""Tables of one interaction a row: CSV, RecBole's atomic files, parquet, and data sets of the Hub."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from ..hub_ids import split_revision
from ..interactions import Interactions, number_ids
from .columns import ids_as_text, is_text, needed_columns, split_number, text_columns, time_column
from .csv_table import csv_table, find_separator, may_hold_rows, row_number, rows_inside
from .item_texts import add_texts, texts_reader
from .log_builder import empty_log
from .source import ROW_ORDER, Malformed, Source, SourceOptions, Texts
from .values import parse_time, wrong_time

if TYPE_CHECKING:
    from datasets import Dataset, Features

# RecBole's `.item` files call their columns by the data set's words; ours for them
RECBOLE_NAMES = {"movie_title": "title", "item_name": "title", "genre": "categories", "class": "categories"}


def read_csv(path: Path, options: SourceOptions, aliases: dict[str, str] | None = None) -> Source:
    """Reads delimited text with a header, packed or not; ids and texts are taken as written.

    Args:
        path (`Path`): the file.
        options ([`SourceOptions`]): name its columns, and maybe its separator; else [`find_separator`] finds that.
        aliases (`dict[str, str]`, *optional*): of the file `options.items`, as in [`text_columns`].

    Raises:
        FileNotFoundError: no such file.
        ValueError: no CSV, missing columns, or too many malformed rows.
    """
    malformed = Malformed(path, unit="row")
    separator = options.separator or find_separator(path, [options.user_column, options.item_column])
    found = csv_table(path, separator, malformed, needed=lambda names: needed_columns(names, path, options))
    log = LogTable(found.table, malformed, found.names, found.left_out)
    return _source(log, options, aliases)


def read_recbole(path: Path, options: SourceOptions) -> Source:
    """Reads RecBole's atomic files: `NAME.inter`, and `NAME.item` beside it for texts.

    `path` is the `.inter` or a folder that holds one.

    Raises:
        FileNotFoundError: no `.inter`, or several.
        ValueError: as [`read_csv`].
    """
    found = sorted(path.glob("*.inter")) if path.is_dir() else [path]
    of_splits = {file.name.removesuffix(".inter").rpartition(".")[2] for file in found} & {"train", "valid", "test"}
    if len(found) > 1 and len(of_splits) == len(found):
        raise ValueError(
            f"{path} holds {', '.join(file.name for file in found)}; join them into one file with a column that says "
            "train, valid or test of each row, and name that with --split-column, for --split given."
        )
    if len(found) != 1:
        raise FileNotFoundError(f"{path} holds {len(found)} files NAME.inter; give the path of the one to read.")
    items = found[0].with_suffix(".item")
    if options.items is None and items.is_file():
        options = replace(options, items=str(items))
    return read_csv(found[0], options, RECBOLE_NAMES)


def read_parquet(path: Path, options: SourceOptions) -> Source:
    """Reads a parquet file, or all that lie in a folder, in the order of their paths; only the columns that count.

    Raises:
        FileNotFoundError: no such file, or a folder without one.
        ValueError: no parquet, missing columns, or too many malformed rows.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"{str(path)!r} is no file and no folder with .parquet files; check the path.")
    try:
        schema = pyarrow.dataset.dataset(files, format="parquet").schema
        needed = needed_columns(schema.names, path, options)
        texts = [name for name in needed if pa.types.is_string(schema.field(name).type)]
        # ids repeat, so that their numbers take less memory than themselves
        kind = pyarrow.dataset.ParquetFileFormat(dictionary_columns=texts)
        table = pyarrow.dataset.dataset(files, format=kind).to_table(columns=needed)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} can't be read as parquet: {error}; check --format and the file.") from error
    log = LogTable(table, Malformed(path, unit="row", rows=table.num_rows), schema.names)
    return _source(log, options)


def read_hub(path: Path, options: SourceOptions) -> Source:
    """Reads what `datasets.load_dataset` or `load_from_disk` opens: an id on the Hub, maybe `@revision`, or a folder.

    Ids that are classes of a `ClassLabel` are the names of these, and those of CSV files stay as they are written.

    Raises:
        FileNotFoundError: no such data set.
        ConnectionError: the Hub can't be reached.
        ValueError: no such configuration or split, broken files, missing columns, or too many malformed rows.
    """
    from datasets import ClassLabel, Features, Value  # takes a second, and other formats don't need it

    if path.is_file():
        raise ValueError(
            f"{path.as_posix()!r} is a file; give its folder, or read it with --format csv, jsonl or parquet."
        )
    data = _open_hub(path, options)
    names = data.column_names
    needed = needed_columns(names, path, options)
    if data.info.builder_name == "csv":
        _check_quotes(data, path)
        ids = [name for name in (options.user_column, options.item_column) if isinstance(data.features[name], Value)]
        # pandas makes the number 7 of 007
        data = _open_hub(path, options, Features({**data.features, **dict.fromkeys(ids, Value("string"))}))
    table = data.select_columns(needed).with_format("arrow")[:]
    for row, name in enumerate(table.column_names):
        kind = data.features[name]
        if isinstance(kind, ClassLabel):
            known = pc.if_else(pc.less(table[name], 0), None, table[name])  # -1 is no class
            table = table.set_column(row, name, pc.take(pa.array(kind.names, pa.string()), known))
    return _source(LogTable(table, Malformed(path, unit="row", rows=table.num_rows), names), options)


def _open_hub(path: Path, options: SourceOptions, features: "Features | None" = None) -> "Dataset":
    """Opens a data set, whose columns may be given other types."""
    from datasets import load_dataset, load_from_disk
    from datasets.exceptions import DatasetsError

    name = path.as_posix()
    repo_id, revision = split_revision(name)
    try:
        if (path / "state.json").is_file():
            return load_from_disk(name)
        if (path / "dataset_dict.json").is_file():
            return load_from_disk(f"{name}/{options.hub_split}")
        return load_dataset(repo_id, options.hub_config, split=options.hub_split, revision=revision, features=features)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no data set {name!r}: {error}; check the folder or the id.") from error
    except (ValueError, DatasetsError, RuntimeError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(
            f"the data set {name!r} can't be opened: {reason}; check its files, --hub-config and --hub-split."
        ) from error
    except OSError as error:
        raise ConnectionError(
            f"{name!r} is no local folder, and the Hub doesn't give it: {error}; check the id, the network and "
            "HF_HUB_OFFLINE."
        ) from error


def _check_quotes(data: "Dataset", path: Path) -> None:
    """Raises a `ValueError` if a cell holds rows of the CSV that it comes from."""
    n_columns = len(data.column_names)
    kinds = {name: getattr(kind, "dtype", None) for name, kind in data.features.items()}
    texts = data.select_columns([name for name, kind in kinds.items() if kind in ("string", "large_string")])
    number = 0
    for batch in texts.with_format("arrow").iter(10_000):
        for column in batch.columns:
            for row in np.flatnonzero(may_hold_rows(column, n_columns)).tolist():
                text = column[row].as_py()
                inside = max(rows_inside(text, separator, n_columns) for separator in ",\t;|")  # it isn't told which
                if inside:
                    raise ValueError(
                        f"a quote that opens in row {number + row + 1} of {path} holds the next {inside} lines; close "
                        "it, or double it where it is text."
                    )
        number += len(batch)


@dataclass(frozen=True)
class LogTable:
    """A table with one interaction a row.

    Args:
        table (`pa.Table`): with the columns of [`needed_columns`].
        malformed ([`Malformed`]): of its file, with the number of rows.
        names (`list[str]`): all columns of the file.
        left_out (`np.ndarray` of `int64`, *optional*): numbers of the file's rows that aren't in the table, from 1.
    """

    table: pa.Table
    malformed: Malformed
    names: list[str]
    left_out: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))


def _source(log_table: LogTable, options: SourceOptions, aliases: dict[str, str] | None = None) -> Source:
    """What a table tells.

    Args:
        log_table ([`LogTable`]): the table.
        options ([`SourceOptions`]): name the columns.
        aliases (`dict[str, str]`, *optional*): as in [`read_csv`].
    """
    malformed, left_out, path = log_table.malformed, log_table.left_out, log_table.malformed.path
    table = log_table.table
    table = table.cast(pa.schema([_with_plain_text(column) for column in table.schema]))
    users, items = (ids_as_text(table[name], name, path) for name in (options.user_column, options.item_column))
    broken = np.zeros(table.num_rows, dtype=bool)

    def leave_out(rows: np.ndarray, reason) -> None:
        nonlocal broken
        rows = rows & ~broken
        malformed.count += int(rows.sum())
        for row in np.flatnonzero(rows)[:3]:
            malformed.show(row_number(row, left_out), reason(row))
        broken = broken | rows

    for name, column in ((options.user_column, users), (options.item_column, items)):
        empty = pc.fill_null(pc.equal(column, ""), True).to_numpy()
        leave_out(empty, lambda row, name=name: f"{name!r} is empty or missing")
    time = time_column(table.column_names, options)
    times = None
    if time is not None:
        times, unknown = _times(table[time])
        leave_out(unknown, lambda row: wrong_time(time, table[time][row].as_py()))
    malformed.check(options.max_malformed)
    if broken.all():
        raise empty_log(path)
    splits = None
    if options.split_column is not None:
        splits = _splits(table[options.split_column], broken, left_out, path)
    if broken.any():
        kept = pa.array(~broken)
        table, users, items = table.filter(kept), users.filter(kept), items.filter(kept)
        times, splits = (None if column is None else column[~broken] for column in (times, splits))
    user_ids, user_rows = number_ids(users)
    item_ids, item_rows = number_ids(items)
    log = Interactions.from_rows(user_ids, item_ids, user_rows, item_rows, times, splits)
    texts = _texts_of_rows(table, item_ids, item_rows, options)
    read_texts, items_file = texts_reader(texts, options, log_table.names, aliases)
    unused = [name for name in dict.fromkeys(log_table.names) if name not in table.column_names]
    return Source(
        log, read_texts, order=time or ROW_ORDER, malformed=[malformed], unused=unused, items_file=items_file
    )


def _with_plain_text(column: pa.Field) -> pa.Field:
    """The type of a column, but views of texts, which little can be done with, as texts."""
    return column.with_type(pa.string()) if pa.types.is_string_view(column.type) else column


def _times(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """A column of timestamps as integers where it holds integers or dates, else as floats; and where there is none."""
    if pa.types.is_dictionary(column.type) or is_text(column.type):
        return _times_as_text(column)
    try:
        if pa.types.is_boolean(column.type) or pa.types.is_time(column.type):  # a time of day is none without its date
            return _parsed(column)
        if pa.types.is_temporal(column.type):
            # what has 32 bits can't become int64 at once
            column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
        numbers = column.cast(pa.int64() if pa.types.is_integer(column.type) else pa.float64())
    except pa.ArrowException:  # neither numbers nor dates, or too large
        return _parsed(column)
    return _filled(numbers)


def _times_as_text(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """As [`_times`], each distinct text once unless all are numbers."""
    if not pa.types.is_dictionary(column.type):
        numbers = _cast(column)
        if numbers is not None:
            return _filled(numbers)
        column = column.dictionary_encode()
    encoded = column.combine_chunks()
    rows = pc.fill_null(encoded.indices, -1).to_numpy()
    times, unknown = _parsed(encoded.dictionary)
    times, unknown = np.append(times, 0), np.append(unknown, True)  # for rows -1
    return times[rows], unknown[rows]


def _cast(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray | None:
    """Texts as numbers if they all are some, or as nanoseconds since 1970 if all are dates."""
    for kind in (pa.int64(), pa.float64(), pa.timestamp("ns")):
        try:
            numbers = column.cast(kind)
        except pa.ArrowException:
            continue
        return numbers.cast(pa.int64()) if pa.types.is_timestamp(kind) else numbers
    return None


def _parsed(column: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """As [`_times`], value by value if need be."""
    numbers = _cast(column) if is_text(column.type) else None
    if numbers is not None:
        return _filled(numbers)
    times = [parse_time(value) for value in column.to_pylist()]
    kind = np.float64 if any(isinstance(time, float) for time in times) else np.int64
    return np.array([time or 0 for time in times], kind), np.array([time is None for time in times], bool)


def _filled(numbers: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers with 0 where there is none, and where that is."""
    unknown = pc.is_null(numbers).to_numpy(zero_copy_only=False)
    times = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False)
    if times.dtype.kind == "f":
        unknown = unknown | ~np.isfinite(times)
    return times, unknown


def _splits(column: pa.ChunkedArray, broken: np.ndarray, left_out: np.ndarray, path: Path) -> np.ndarray:
    """0, 1 or 2 for each row."""
    encoded = column.cast(pa.string()).dictionary_encode().combine_chunks()
    rows = pc.fill_null(encoded.indices, -1).to_numpy()
    missing = (rows < 0) & ~broken
    if missing.any():
        raise ValueError(f"the split of row {row_number(missing.argmax(), left_out)} of {path} is missing; write one.")
    numbers = [split_number(value, f"a row of {path}") for value in encoded.dictionary.to_pylist()]
    return np.array(numbers, dtype=np.int8)[rows]


def _texts_of_rows(table: pa.Table, item_ids: np.ndarray, item_rows: np.ndarray, options: SourceOptions) -> Texts:
    """For each item the first text that its rows have, where the table has such columns.

    Args:
        table (`pa.Table`): the log.
        item_ids (`np.ndarray` of `str`, shape `(n_items,)`): items.
        item_rows (`np.ndarray` of `int64`, shape `(rows,)`): the item of each row.
        options ([`SourceOptions`]): name the columns.
    """
    texts: Texts = {}
    for name, column in text_columns(table.column_names, options).items():
        values = table[column]
        there = values.is_valid()
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        if is_text(kind):
            there = pc.fill_null(pc.not_equal(values, ""), False)
        elif pa.types.is_floating(kind):
            there = pc.fill_null(pc.invert(pc.is_nan(values)), False)  # which pandas writes where there is none
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            there = pc.fill_null(pc.greater(pc.list_value_length(values), 0), False)
        rows = np.flatnonzero(there.to_numpy())[::-1]
        first = np.full(len(item_ids), -1)
        first[item_rows[rows]] = rows  # of several writes to one place the last, the first row's, stays
        has_text = first >= 0
        for item_id, value in zip(item_ids[has_text], values.take(pa.array(first[has_text])).to_pylist()):
            add_texts(texts, item_id, {name: value}, {name: name})
    return texts
