"""Item columns: columns of numbers and categories that have the same value in all of an item's rows."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .columns import is_text
from .source import TEXT_FIELDS

FIRST_ROWS = 1 << 16  # rows that are read first: in most columns that vary within an item, these show it
ROWS_PER_ITEM = 2  # smallest mean number of a log's rows per item: with one row, any column seems to be the item's
RESERVED = ("item_id", "embedding", "codes", *TEXT_FIELDS)  # columns of the table `items` with a meaning of their own
LEADING_ZERO = r"^\s*[+-]?0\d"  # beginning of a code, not of a number


def may_tell_of_items(kind: pa.DataType) -> bool:
    """Returns whether a column of that type holds numbers or categories."""
    if pa.types.is_dictionary(kind):
        return may_tell_of_items(kind.value_type)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    is_other = pa.types.is_boolean(kind) or pa.types.is_temporal(kind) or pa.types.is_binary(kind)
    return is_number or is_text(kind) or is_other


def tellers(schema: pa.Schema, names: Iterable[str]) -> list[str]:
    """Returns those of `names` that occur once, hold numbers or categories and aren't reserved names."""
    candidates = [name for name in names if name not in RESERVED and schema.names.count(name) == 1]
    return [name for name in candidates if may_tell_of_items(schema.field(name).type)]


def steady_columns(first_rows: pa.Table, item: str, names: Iterable[str]) -> list[str]:
    """Returns those of [`tellers`] that don't vary within an item, judging by the first rows of a log."""
    rows = first_rows.slice(0, FIRST_ROWS)
    items, ids = _encoded(rows[item])
    there = items >= 0
    encoded = ((name, _encoded(rows[name])[0]) for name in tellers(first_rows.schema, names))
    encoded = ((name, np.where(there, codes, -1)) for name, codes in encoded)
    return [name for name, codes in encoded if not _varies(codes, items, _first_codes(codes, items, len(ids)))]


def item_columns(
    table: pa.Table, names: Collection[str], item_rows: np.ndarray, n_items: int, rows_per_item: float
) -> dict[str, pa.Array]:
    """Returns columns that have the same value in all of an item's rows: numbers as numbers, all others as text.

    Columns that have the same value for all items are left out.

    Args:
        table (`pa.Table`): table with these columns; bytes are cells of a delimited file, which may be numbers.
        names (`Collection[str]`): names of the columns to consider.
        item_rows (`np.ndarray` of `int64`, shape `(rows,)`): the item of each row.
        n_items (`int`): number of items.
        rows_per_item (`float`): smallest mean number of rows per item with a value; columns with fewer are left out.

    Returns:
        `dict`: values of all items by name, null if unknown.
    """
    columns = {}
    for name in names:
        codes, values = _encoded(table[name])
        first = _first_codes(codes, item_rows, n_items)
        n_told = np.count_nonzero(first >= 0)
        told = np.count_nonzero(codes >= 0)
        if len(np.unique(first[first >= 0])) < 2 or told < rows_per_item * n_told:
            continue
        if _varies(codes, item_rows, first):
            continue
        values = _as_feature(values.take(pa.array(first, mask=first < 0)))
        if values is not None:
            columns[name] = values
    return columns


class ItemValues:
    """Collects numbers and categories of items from objects that are added one by one.

    Args:
        used (`Iterable[str]`): fields that have another use.
    """

    def __init__(self, used: Iterable[str]):
        self.others = {*used, *RESERVED}  # later also fields that vary within an item, or hold lists or objects
        self.values: dict[str, dict[str, str | int | float]] = {}
        self.told: Counter[str] = Counter()

    def add(self, item_id: str, entry: dict) -> None:
        """Adds the values that an object has for an item."""
        for name in [name for name in entry if name not in self.others]:
            value, known = entry[name], self.values.setdefault(name, {})
            if value is None or value == "" or value != value:
                continue
            if known.get(item_id) == value:
                self.told[name] += 1
            elif isinstance(value, (str, int, float)) and item_id not in known:
                known[item_id] = value
                self.told[name] += 1
            else:
                self.others.add(name)
                del self.values[name]

    def columns(self, item_ids: Sequence[str], rows_per_item: float) -> dict[str, pa.Array]:
        """Returns the columns of the given items, as [`item_columns`] does."""
        columns = {}
        for name, known in self.values.items():
            if len(set(known.values())) < 2 or self.told[name] < rows_per_item * len(known):
                continue
            kinds = {type(value) for value in known.values()}
            values = [known.get(item_id) for item_id in item_ids]
            if kinds == {int} and all(-(2**63) <= int(value) < 2**63 for value in known.values()):
                columns[name] = pa.array(values, pa.int64())
            elif kinds <= {int, float}:
                columns[name] = pa.array([None if value is None else float(value) for value in values], pa.float64())
            else:
                texts = (None if value is None else _text(value) for value in values)
                columns[name] = pa.array(texts, pa.string())
        return columns


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).encode(errors="replace").decode()


def _encoded(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Returns a column as numbers of its distinct values, -1 for missing values, and the distinct values."""
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    codes, values = pc.fill_null(encoded.indices.cast(pa.int32()), -1).to_numpy(), encoded.dictionary
    nothing = pc.is_null(values, nan_is_null=pa.types.is_floating(values.type)).to_numpy(zero_copy_only=False)
    if is_text(values.type) or pa.types.is_binary(values.type):
        nothing = nothing | (pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False) == 0)
    return (np.where(np.append(nothing, True)[codes], -1, codes) if nothing.any() else codes), values


def _first_codes(codes: np.ndarray, items: np.ndarray, n_items: int) -> np.ndarray:
    """Returns the first value of each item, as its number in `codes`, or -1: `[n_items]`."""
    rows = np.flatnonzero(codes >= 0)[::-1]
    first = np.full(n_items, -1)
    first[items[rows]] = codes[rows]  # in reverse: the first row of an item is written last, and stays
    return first


def _varies(codes: np.ndarray, items: np.ndarray, first: np.ndarray) -> bool:
    """Returns whether any item has a value other than its first."""
    return bool(((codes >= 0) & (codes != first[items])).any())


def _as_feature(values: pa.Array) -> pa.Array | None:
    """Converts values of items to whole numbers, floats or texts; returns `None` for bytes that aren't text."""
    kind = values.type
    try:
        if pa.types.is_integer(kind):
            return values.cast(pa.int64())
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return values.cast(pa.float64())
        if not pa.types.is_binary(kind):
            return values.cast(pa.string())
        texts = values.cast(pa.string())
    except pa.ArrowException:
        return None
    if pc.any(pc.match_substring_regex(texts, LEADING_ZERO)).as_py():
        return texts
    for number in (pa.int64(), pa.float64()):
        try:
            return texts.cast(number)
        except pa.ArrowException:
            continue
    return texts
