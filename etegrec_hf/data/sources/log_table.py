"""Conversion of a table with one interaction per row to a log."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..interactions import Interactions, number_ids
from .columns import ids_as_text, is_text, split_number
from .csv_table import row_number
from .doubts import check_times
from .item_columns import ROWS_PER_ITEM, item_columns
from .item_texts import add_texts, texts_reader
from .log_builder import empty_log
from .source import ROW_ORDER, LogColumns, Malformed, Source, SourceOptions, Texts
from .values import parse_time, wrong_time

SLASHED = (
    r"^\s*(?P<first>\d{1,2})[/.](?P<second>\d{1,2})[/.](?P<year>\d{4})"
    r"(?:[ T](?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<seconds>\d\d))?)?\s*$"
)


@dataclass(frozen=True)
class LogTable:
    """A table with one interaction per row.

    Args:
        table (`pa.Table`): the columns that are needed, and others that may be item columns.
        malformed ([`Malformed`]): malformed rows of the file, and its number of rows.
        columns ([`LogColumns`]): the columns of the file.
        left_out (`np.ndarray` of `int64`, *optional*): numbers of the file's rows that aren't in the table, from 1.
    """

    table: pa.Table
    malformed: Malformed
    columns: LogColumns
    left_out: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class UsableRows:
    """The rows of a table that are interactions.

    Args:
        table (`pa.Table`): them, with all of its columns.
        users, items (`pa.ChunkedArray`): their ids as text.
        times (`np.ndarray`, *optional*): their times.
        broken (`np.ndarray` of `bool`): which rows of the whole table aren't among them.
    """

    table: pa.Table
    users: pa.ChunkedArray
    items: pa.ChunkedArray
    times: np.ndarray | None
    broken: np.ndarray


def usable_rows(log_table: LogTable) -> UsableRows:
    """Returns the rows with ids and a time; `log_table.malformed` takes the others.

    Raises:
        ValueError: ids that are neither text nor whole numbers.
    """
    malformed, left_out, path = log_table.malformed, log_table.left_out, log_table.malformed.path
    table, columns = log_table.table, log_table.columns
    table = table.cast(pa.schema([_with_plain_text(column) for column in table.schema]))
    users, items = (ids_as_text(table[name], name, path) for name in (columns.user, columns.item))
    broken = np.zeros(table.num_rows, dtype=bool)

    def leave_out(rows: np.ndarray, reason) -> None:
        nonlocal broken
        rows = rows & ~broken
        malformed.count += int(rows.sum())
        for row in np.flatnonzero(rows)[:3]:
            malformed.show(row_number(row, left_out), reason(row))
        broken = broken | rows

    for name, column in ((columns.user, users), (columns.item, items)):
        empty = pc.fill_null(pc.equal(column, ""), True).to_numpy()
        leave_out(empty, lambda row, name=name: f"{name!r} is empty or missing")
    time, times = columns.time, None
    if time is not None:
        times, unknown = _times(table[time])
        leave_out(unknown, lambda row: wrong_time(time, table[time][row].as_py()))
    if broken.any():
        kept = pa.array(~broken)
        table, users, items = table.filter(kept), users.filter(kept), items.filter(kept)
        times = None if times is None else times[~broken]
    return UsableRows(table, users, items, times, broken)


def source_of_table(log_table: LogTable, options: SourceOptions, aliases: dict[str, str] | None = None) -> Source:
    """Converts a table to a [`Source`].

    Args:
        log_table ([`LogTable`]): the table.
        options ([`SourceOptions`]): `items` and `max_malformed` are used.
        aliases (`dict[str, str]`, *optional*): further names of columns in the file of texts, as in [`text_columns`].

    Raises:
        ValueError: ids that are neither text nor whole numbers.
        ValueError: times of several kinds.
        ValueError: too many malformed rows, or no interaction.
        ValueError: a split that is missing or unknown.
    """
    malformed, columns = log_table.malformed, log_table.columns
    rows = usable_rows(log_table)
    if columns.time is not None and rows.times is not None:
        check_times(rows.times, columns.time, malformed.path)
    malformed.check(options.max_malformed)
    if rows.broken.all():
        raise empty_log(malformed.path)
    splits = None
    if columns.split is not None:
        column = log_table.table[columns.split]
        splits = _splits(column, rows.broken, log_table.left_out, malformed.path)[~rows.broken]
    user_ids, user_rows = number_ids(rows.users)
    item_ids, item_rows = number_ids(rows.items)
    log = Interactions.from_rows(user_ids, item_ids, user_rows, item_rows, rows.times, splits)
    table = rows.table
    texts = _texts_of_rows(table, item_ids, item_rows, columns.texts)
    read_texts, items_file = texts_reader(texts, options, columns, aliases)
    candidates = [name for name in table.column_names if name not in columns.needed()]
    told = item_columns(table, candidates, item_rows, len(item_ids), ROWS_PER_ITEM)
    return Source(
        log,
        read_texts,
        order=columns.time or ROW_ORDER,
        malformed=[malformed],
        unused=[name for name in columns.others() if name not in told],
        items_file=items_file,
        columns=columns,
        item_columns=told,
    )


def _with_plain_text(column: pa.Field) -> pa.Field:
    """Returns a column's field; views of texts, which pyarrow hardly supports, become texts."""
    return column.with_type(pa.string()) if pa.types.is_string_view(column.type) else column


def _times(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Converts timestamps to integers if they are integers or dates, otherwise to floats.

    Returns:
        timestamps `[rows]`, 0 if there is none, and a mask `[rows]` of rows without one.
    """
    if pa.types.is_dictionary(column.type) or is_text(column.type):
        return _times_as_text(column)
    try:
        if pa.types.is_boolean(column.type) or pa.types.is_time(column.type):  # a time of day without its date
            return _parsed(column)
        if pa.types.is_temporal(column.type):
            # types of 32 bits can't be cast to int64 at once
            column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
        numbers = column.cast(pa.int64() if pa.types.is_integer(column.type) else pa.float64())
    except pa.ArrowException:  # neither numbers nor dates, or too large
        return _parsed(column)
    return _filled(numbers)


def _times_as_text(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Converts texts as [`_times`] does; unless all are numbers, each distinct text is parsed once."""
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
    """Converts texts to numbers if all are numbers, or to nanoseconds since 1970 if all are dates."""
    for kind in (pa.int64(), pa.float64(), pa.timestamp("ns")):
        try:
            numbers = column.cast(kind)
        except pa.ArrowException:
            continue
        return numbers.cast(pa.int64()) if pa.types.is_timestamp(kind) else numbers
    return None


def _parsed(column: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Converts values as [`_times`] does, one by one if necessary."""
    numbers = _cast(column) if is_text(column.type) else None
    numbers = _slashed_dates(column) if numbers is None and is_text(column.type) else numbers
    if numbers is not None:
        return _filled(numbers)
    times = [parse_time(value) for value in column.to_pylist()]
    kind = np.float64 if any(isinstance(time, float) for time in times) else np.int64
    return np.array([time or 0 for time in times], kind), np.array([time is None for time in times], bool)


def _slashed_dates(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray | None:
    """Converts texts such as `12/31/2010 8:26` or `31.12.2010` to seconds since 1970, if most of the column are dates.

    Numbers above 12 show which of the first two is the day. If there are none, `None` is returned: it isn't guessed.
    """
    parts = pc.extract_regex(column, SLASHED)
    valid = len(column) - column.null_count
    if 2 * (len(parts) - parts.null_count) <= valid:
        return None
    numbers = [pc.struct_field(parts, index).cast(pa.string()) for index in range(6)]
    month_first = [pc.max(number.cast(pa.int32())).as_py() <= 12 for number in numbers[:2]]
    if month_first[0] == month_first[1]:
        return None
    month, day = numbers[:2] if month_first[0] else numbers[1::-1]
    date = [numbers[2], *(pc.utf8_lpad(number, 2, "0") for number in (month, day))]
    time = [pc.utf8_lpad(number, 2, "0") for number in numbers[3:]]
    moments = pc.binary_join_element_wise(
        pc.binary_join_element_wise(*date, "-"), pc.binary_join_element_wise(*time, ":"), " "
    )
    try:
        return moments.cast(pa.timestamp("s")).cast(pa.int64())
    except pa.ArrowException:  # a 31st of June
        return None


def _filled(numbers: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Returns numbers with 0 for missing ones, and a mask of the missing ones."""
    unknown = pc.is_null(numbers).to_numpy(zero_copy_only=False)
    times = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False)
    if times.dtype.kind == "f":
        unknown = unknown | ~np.isfinite(times)
    return times, unknown


def _splits(column: pa.ChunkedArray, broken: np.ndarray, left_out: np.ndarray, path: Path) -> np.ndarray:
    """Returns 0, 1 or 2 for the split of each row."""
    encoded = column.cast(pa.string()).dictionary_encode().combine_chunks()
    rows = pc.fill_null(encoded.indices, -1).to_numpy()
    missing = (rows < 0) & ~broken
    if missing.any():
        number = row_number(missing.argmax(), left_out)
        raise ValueError(f"the split of row {number} of {path} is missing; fill it in.")
    numbers = [split_number(value, f"a row of {path}") for value in encoded.dictionary.to_pylist()]
    return np.array(numbers, dtype=np.int8)[rows]


def _texts_of_rows(table: pa.Table, item_ids: np.ndarray, item_rows: np.ndarray, fields: dict[str, str]) -> Texts:
    """Returns each item's first text in the rows of a table, per field.

    Args:
        table (`pa.Table`): the log.
        item_ids (`np.ndarray` of `str`, shape `(n_items,)`): ids of the items.
        item_rows (`np.ndarray` of `int64`, shape `(rows,)`): the item of each row.
        fields (`dict[str, str]`): columns by field, for those of `TEXT_FIELDS` that the table has.
    """
    texts: Texts = {}
    for name, column in fields.items():
        values = table[column]
        there = values.is_valid()
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        if is_text(kind):
            there = pc.fill_null(pc.not_equal(values, ""), False)
        elif pa.types.is_floating(kind):
            there = pc.fill_null(pc.invert(pc.is_nan(values)), False)  # pandas writes NaN for missing texts
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            there = pc.fill_null(pc.greater(pc.list_value_length(values), 0), False)
        rows = np.flatnonzero(there.to_numpy())[::-1]
        first = np.full(len(item_ids), -1)
        first[item_rows[rows]] = rows  # in reverse: the first row of an item is written last, and stays
        has_text = first >= 0
        for item_id, value in zip(item_ids[has_text], values.take(pa.array(first[has_text])).to_pylist()):
            add_texts(texts, item_id, {name: value}, {name: name})
    return texts
