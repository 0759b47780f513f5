"""Tables of one interaction a row: CSV, RecBole's atomic files, parquet, and data sets of the Hub."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from ..interactions import Interactions
from .columns import needed_columns, split_number, time_column
from .csv_table import csv_table
from .item_texts import read_item_texts
from .lines import parse_time
from .source import ROW_ORDER, TEXT_FIELDS, Malformed, Source, SourceOptions, Texts


def read_csv(
    path: Path, options: SourceOptions, renamed: dict[str, str] | None = None, separator: str = ","
) -> Source:
    """Reads a CSV with a header, plain or gzip; ids and texts are taken as written.

    `renamed` says which column holds one of `TEXT_FIELDS` under another name in the file of `options.items`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no CSV, missing columns, or too many malformed rows.
    """
    malformed = Malformed(path)
    table = csv_table(
        path,
        separator,
        malformed,
        needed=lambda names: needed_columns(names, path, options),
        inferred=lambda names: {time_column(names, path, options)},
    )
    return _read_table(table, malformed, options, renamed)


def read_recbole(path: Path, options: SourceOptions) -> Source:
    """Reads RecBole's atomic files: `NAME.inter`, and `NAME.item` beside it for texts.

    `path` is the `.inter` or a folder that holds one.

    Raises:
        FileNotFoundError: no `.inter`, or several.
        ValueError: as [`read_csv`].
    """
    found = sorted(path.glob("*.inter")) if path.is_dir() else [path]
    if len(found) != 1:
        raise FileNotFoundError(f"{path} holds {len(found)} files NAME.inter; give the path of the one to read.")
    items = found[0].with_suffix(".item")
    if options.items is None and items.exists():
        options = replace(options, items=str(items))
    return read_csv(found[0], options, separator="\t")


def read_parquet(path: Path, options: SourceOptions) -> Source:
    """Reads a parquet file, or a folder of them; only the columns that count.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: no parquet, missing columns, or too many malformed rows.
    """
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} doesn't exist; check the path.")
    try:
        schema = pyarrow.dataset.dataset(path, format="parquet").schema
        needed = needed_columns(schema.names, path, options)
        texts = [name for name in needed if pa.types.is_string(schema.field(name).type)]
        # ids repeat, so that their numbers take less memory than themselves
        kind = pyarrow.dataset.ParquetFileFormat(dictionary_columns=texts)
        table = pyarrow.dataset.dataset(path, format=kind).to_table(columns=needed)
    except pa.ArrowException as error:
        raise ValueError(f"{path} can't be read as parquet: {error}; check --format and the file.") from error
    return _read_table(table, Malformed(path), options)


def read_hub(path: Path, options: SourceOptions) -> Source:
    """Reads what `datasets.load_dataset` opens: an id on the Hub, or a local folder.

    Raises:
        FileNotFoundError: no such data set.
        ValueError: no such configuration or split, missing columns, or too many malformed rows.
    """
    from datasets import load_dataset  # takes a second, and other formats don't need it

    data = load_dataset(str(path), options.hub_config, split=options.hub_split)
    needed = needed_columns(data.column_names, path, options)
    return _read_table(data.select_columns(needed).with_format("arrow")[:], Malformed(path), options)


def _read_table(
    table: pa.Table, malformed: Malformed, options: SourceOptions, renamed: dict[str, str] | None = None
) -> Source:
    """A table with one interaction a row. Times stay integers where the column holds integers or dates."""
    path = malformed.path
    users, items = (_ids(table[name], name, path) for name in (options.user_column, options.item_column))
    time = time_column(table.column_names, path, options)
    times = None if time is None else _times(table[time])
    broken = np.zeros(table.num_rows, dtype=bool)
    for name, column in ((options.user_column, users), (options.item_column, items)):
        empty = pc.fill_null(pc.equal(column, ""), True).to_numpy(zero_copy_only=False)
        _note(malformed, ~broken & empty, f"{name!r} is empty or missing")
        broken |= empty
    if times is not None:
        unknown = np.ma.getmaskarray(times)
        written = table[time]
        for row in np.flatnonzero(unknown & ~broken)[:3]:
            value = written[row].as_py()
            reason = "is missing" if value is None or value != value else f"is {value!r}, no number and no date"
            malformed.add(f"row {row + 1}", f"{time!r} {reason}", 0)
        malformed.count += int((unknown & ~broken).sum())
        broken |= unknown
    malformed.rows += int((malformed.rows == 0) * table.num_rows)
    malformed.check(options.max_malformed)
    if broken.any():
        table, kept = table.filter(pa.array(~broken)), pa.array(~broken)
        users, items = users.filter(kept), items.filter(kept)
        times = None if times is None else times[~broken]
    splits = None
    if options.split_column is not None:
        splits = _splits(table[options.split_column], path)
    texts = _texts_of_rows(table, items, options)
    log = Interactions.from_columns(users, items, None if times is None else times.data, splits)
    read_texts = partial(read_item_texts, texts, options, renamed=renamed)
    return Source(log, read_texts, order=time or ROW_ORDER, malformed=[malformed])


def _note(malformed: Malformed, rows: np.ndarray, reason: str) -> None:
    for row in np.flatnonzero(rows)[:3]:
        malformed.add(f"row {row + 1}", reason, 0)
    malformed.count += int(rows.sum())


def _ids(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    """A column of ids as text.

    Raises:
        ValueError: ids that are neither text nor whole numbers.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column if kind == pa.string() else column.cast(pa.string())
    if not pa.types.is_integer(kind):
        raise ValueError(f"column {name!r} of {path} holds {kind}; ids are text or whole numbers: convert the column.")
    return column.cast(pa.string())


def _times(column: pa.ChunkedArray) -> np.ma.MaskedArray:
    """A column of timestamps as numbers, masked where there is none."""
    try:
        if pa.types.is_temporal(column.type):
            # what has 32 bits can't become int64 at once
            column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
        if pa.types.is_integer(column.type):
            empty = column.is_null().to_numpy()
            return np.ma.array(pc.fill_null(column.cast(pa.int64()), 0).to_numpy(), mask=empty)
        numbers = column.cast(pa.float64())
    except pa.ArrowException:  # some of it is no number
        parsed = (parse_time(value) for value in column.to_pylist())
        numbers = pa.chunked_array(
            [pa.array([None if time is None else float(time) for time in parsed], pa.float64())]
        )
    return np.ma.masked_invalid(pc.fill_null(numbers, np.nan).to_numpy())


def _splits(column: pa.ChunkedArray, path: Path) -> np.ndarray:
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    rows = pc.fill_null(encoded.indices, -1).to_numpy()
    numbers = [split_number(value, f"a row of {path}") for value in encoded.dictionary.to_pylist()]
    if (rows < 0).any():
        raise ValueError(f"the split of row {(rows < 0).argmax() + 1} of {path} is missing; write one.")
    return np.array(numbers, dtype=np.int8)[rows]


def _texts_of_rows(table: pa.Table, items: pa.ChunkedArray, options: SourceOptions) -> Texts:
    """For each item the first text that its rows have, where the table has such columns."""
    texts: Texts = {}
    fields = {options.title_column: "title"} | {name: name for name in TEXT_FIELDS[1:]}
    for column, field in fields.items():
        if column not in table.column_names:
            continue
        values = table[column].cast(pa.string())
        there = pc.fill_null(pc.not_equal(values, ""), False)
        first = pa.table({"item": items.cast(pa.string()), "text": values}).filter(there)
        first = first.group_by("item", use_threads=False).aggregate([("text", "first")])
        for item_id, text in zip(first["item"].to_pylist(), first["text_first"].to_pylist()):
            texts.setdefault(item_id, {})[field] = text
    return texts
