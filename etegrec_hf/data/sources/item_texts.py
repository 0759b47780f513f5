"""Texts of items, usually from a file of their own."""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from .column_names import ITEMS_OF_FILE, named_like
from .columns import find_file_columns, ids_as_text
from .csv_table import csv_table, find_separator
from .item_columns import ItemValues, item_columns, tellers
from .lines import json_lines, with_names
from .source import TEXT_FIELDS, ItemsFile, LogColumns, Malformed, SourceOptions, Texts
from .values import text_of, wrong_id

JSON = (".jsonl", ".json")
SEPARATED = (".csv", ".tsv", ".item")
PARQUET = ".parquet"
ROWS_PER_ITEM_OF_FILE = 1
PACKED = (".gz", ".bz2", ".zst")  # endings that may follow these, except after .parquet


def texts_reader(
    texts: Texts, options: SourceOptions, log: LogColumns, aliases: dict[str, str] | None = None
) -> tuple[Callable[[Collection[str]], Texts], ItemsFile | None]:
    """Makes the `read_texts` of a [`Source`], which joins texts from the log with texts from a file.

    If both have a text of an item, the file's is used.

    Args:
        texts (`dict`): texts from the log.
        options ([`SourceOptions`]): names the file, which must exist, and its columns of ids and titles.
        log ([`LogColumns`]): the columns of the log.
        aliases (`dict[str, str]`, *optional*): as in [`text_columns`].

    Returns:
        the function, and the file or `None`.

    Raises:
        ValueError: another kind of file.
        ValueError: when the texts are read: no column of ids, or not the column of titles that the options name.
        ValueError: when the texts are read: too many malformed rows.
    """
    if options.items is None:
        return lambda item_ids: texts, None
    path = Path(options.items)
    name = path.with_suffix("") if path.suffix in PACKED else path
    if name.suffix not in (*JSON, *SEPARATED, PARQUET):
        raise ValueError(
            f"`items` {options.items!r} isn't a .csv, .tsv, .item, .jsonl or .parquet file; convert it to one."
        )
    unit = "line" if name.suffix in JSON else "row"
    file = ItemsFile(Malformed(path, unit=unit), log.item, dict(zip(TEXT_FIELDS, TEXT_FIELDS)))

    def read_texts(item_ids: Collection[str]) -> Texts:
        if name.suffix in JSON:
            names, entries = with_names(json_lines(path, file.malformed, literals=True))
            if names:
                find_file_columns(file, names, options, log, aliases)
            values = ItemValues((file.item_column, *file.fields.values()))
            of_file = texts_of_entries(entries, item_ids, file, values)
            file.item_columns = values.columns(list(item_ids), ROWS_PER_ITEM_OF_FILE)
        else:
            table = _read_table(file, name.suffix, options, log, aliases)
            of_file = _texts_of_table(table, file, item_ids)
        file.malformed.check(options.max_malformed)
        title = options.title_column
        if title is not None and title not in {**file.columns, **dict.fromkeys(log.names)}:
            raise ValueError(
                f"neither {path} nor the log has a column {title!r}, only {list(file.columns)} and {list(log.names)}; "
                "name it with --title-column."
            )
        return {item_id: texts.get(item_id, {}) | of_file.get(item_id, {}) for item_id in {**texts, **of_file}}

    return read_texts, file


def _read_table(
    file: ItemsFile, suffix: str, options: SourceOptions, log: LogColumns, aliases: dict[str, str] | None
) -> pa.Table:
    """Reads the columns of ids and texts, and further columns that may hold numbers or categories of items."""
    path = file.malformed.path

    def needed(names: list[str]) -> list[str]:
        file.columns = dict.fromkeys(names)
        find_file_columns(file, names, options, log, aliases)
        return list(dict.fromkeys([file.item_column, *(name for name in file.fields.values() if name in names)]))

    def besides(first_rows: pa.Table) -> list[str]:
        return tellers(first_rows.schema, file.unused())

    def fits(names: list[str]) -> bool:
        return log.item in names or (options.item_column is None and bool(named_like(names, ITEMS_OF_FILE)))

    if suffix != PARQUET:
        return csv_table(path, find_separator(path, fits), file.malformed, needed, besides).table
    try:
        with pyarrow.parquet.ParquetFile(path) as parquet:
            schema = parquet.schema_arrow
            return parquet.read([*needed(schema.names), *tellers(schema, file.unused())])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} can't be read as parquet: {error}; copy it again or convert it.") from error


def _texts_of_table(table: pa.Table, file: ItemsFile, item_ids: Collection[str]) -> Texts:
    """Returns the texts of the given items, and sets the file's item columns.

    Only a thousand rows at a time become Python objects.
    """
    asked = pa.array(list(item_ids), pa.string())
    ids = ids_as_text(table[file.item_column], file.item_column, file.malformed.path).cast(pa.string())
    file.first_id = ids[0].as_py() if len(ids) else None
    rows = pc.index_in(ids, value_set=asked)
    table, rows = table.filter(rows.is_valid()), rows.drop_null().to_numpy().astype(np.int64)
    others = [name for name in file.unused() if name in table.column_names]
    file.item_columns = item_columns(table, others, rows, len(asked), ROWS_PER_ITEM_OF_FILE)
    batches = table.drop_columns(others).to_batches(max_chunksize=1000)
    return texts_of_entries(((0, entry) for batch in batches for entry in batch.to_pylist()), item_ids, file)


def texts_of_entries(
    entries: Iterable[tuple[int, dict]], item_ids: Collection[str], file: ItemsFile, values: ItemValues | None = None
) -> Texts:
    """Returns the texts of the given items. If an item has several entries, the first one with a field counts.

    Args:
        entries (`Iterable`): line numbers and objects of a file of texts.
        item_ids (`Collection[str]`): ids of the items.
        file ([`ItemsFile`]): the file, with the names of its fields; its findings are updated.
        values ([`ItemValues`], *optional*): collector of numbers and categories, to which values are added.
    """
    asked = set(item_ids)
    texts: Texts = {}
    for number, entry in entries:
        if not entry.keys() <= file.columns.keys():
            file.columns |= dict.fromkeys(entry)
        value = entry.get(file.item_column)
        wrong = wrong_id(file.item_column, value)
        if wrong:
            file.malformed.add(number, wrong)
            continue
        file.first_id = file.first_id or str(value)
        if str(value) in asked:
            file.found.add(str(value))
            add_texts(texts, str(value), entry, file.fields)
            if values is not None:
                values.add(str(value), entry)
    return texts


def add_texts(texts: Texts, item_id: str, entry: dict, fields: dict[str, str]) -> None:
    """Adds those texts of an entry that aren't known yet."""
    known = texts.get(item_id, {})
    for name, key in fields.items():
        if name not in known and key in entry:
            text = text_of(entry[key])
            if text:
                known = texts.setdefault(item_id, known)
                known[name] = text
