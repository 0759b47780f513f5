"""Texts of items, mostly from a file of their own."""

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from .columns import ids_as_text, text_columns
from .csv_table import csv_table, find_separator
from .lines import json_lines
from .source import TEXT_FIELDS, ItemsFile, Malformed, SourceOptions, Texts
from .values import text_of, wrong_id

JSON = (".jsonl", ".json")
SEPARATED = (".csv", ".tsv", ".item")
PARQUET = ".parquet"
PACKED = (".gz", ".bz2", ".zst")  # what may follow these, but for parquet


def texts_reader(
    texts: Texts, options: SourceOptions, columns: Collection[str], aliases: dict[str, str] | None = None
) -> tuple[Callable[[Collection[str]], Texts], ItemsFile | None]:
    """The `read_texts` of a [`Source`]: what the rows of a log told of its items, and before it what a file tells.

    Args:
        texts (`dict`): of the log.
        options ([`SourceOptions`]): names the file, which exists, and its columns of ids and titles.
        columns (`Collection[str]`): all columns of the log.
        aliases (`dict[str, str]`, *optional*): as in [`text_columns`].

    Returns:
        the function, and the file, if there is one.

    Raises:
        ValueError: another kind of file; when the texts are read, no column of ids or of the title that was named, or
            too many malformed rows.
    """
    if options.items is None:
        return lambda item_ids: texts, None
    path = Path(options.items)
    name = path.with_suffix("") if path.suffix in PACKED else path
    if name.suffix not in (*JSON, *SEPARATED, PARQUET):
        raise ValueError(f"`items` {options.items!r} is none of .csv, .tsv, .item, .jsonl and .parquet; convert it.")
    fields = dict(zip(TEXT_FIELDS, TEXT_FIELDS)) | {"title": options.title_column}
    unit = "line" if name.suffix in JSON else "row"
    file = ItemsFile(Malformed(path, unit=unit), options.item_column, fields)

    def read_texts(item_ids: Collection[str]) -> Texts:
        if name.suffix in JSON:
            entries = json_lines(path, file.malformed, literals=True)
        else:
            table = _read_table(file, name.suffix, options, aliases)
            entries = _entries(table, file, item_ids)
        of_file = texts_of_entries(entries, item_ids, file)
        file.malformed.check(options.max_malformed)
        title = options.title_column
        if title != SourceOptions.title_column and title not in {**file.columns, **dict.fromkeys(columns)}:
            raise ValueError(
                f"neither {path} nor the log has a column {title!r}, only {list(file.columns)} and {list(columns)}; "
                "name it with --title-column."
            )
        return {item_id: texts.get(item_id, {}) | of_file.get(item_id, {}) for item_id in {**texts, **of_file}}

    return read_texts, file


def _read_table(file: ItemsFile, suffix: str, options: SourceOptions, aliases: dict[str, str] | None) -> pa.Table:
    """The columns of ids and texts."""
    path = file.malformed.path

    def needed(names: list[str]) -> list[str]:
        if file.item_column not in names:
            raise ValueError(f"{path} has no column {file.item_column!r}, only {names}; name it as in the log.")
        file.columns = dict.fromkeys(names)
        file.fields |= text_columns(names, options, aliases)
        return [file.item_column, *text_columns(names, options, aliases).values()]

    if suffix != PARQUET:
        return csv_table(path, find_separator(path, [file.item_column]), file.malformed, needed).table
    try:
        with pyarrow.parquet.ParquetFile(path) as parquet:
            return parquet.read(needed(parquet.schema_arrow.names))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} can't be read as parquet: {error}; copy it again or convert it.") from error


def _entries(table: pa.Table, file: ItemsFile, item_ids: Collection[str]) -> Iterator[tuple[int, dict]]:
    """The rows of the items asked for, a thousand at a time as objects."""
    ids = ids_as_text(table[file.item_column], file.item_column, file.malformed.path).cast(pa.string())
    file.first_id = ids[0].as_py() if len(ids) else None
    asked = table.filter(pc.is_in(ids, value_set=pa.array(list(item_ids), pa.string())))
    for batch in asked.to_batches(max_chunksize=1000):
        yield from ((0, entry) for entry in batch.to_pylist())


def texts_of_entries(entries: Iterable[tuple[int, dict]], item_ids: Collection[str], file: ItemsFile) -> Texts:
    """Texts of the items asked for; of several entries for one item, the first that has a field tells it.

    Args:
        entries (`Iterable`): line numbers and objects of a file of texts.
        item_ids (`Collection[str]`): the items asked for.
        file ([`ItemsFile`]): names its fields, and takes what is found in it.
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
    return texts


def add_texts(texts: Texts, item_id: str, entry: dict, fields: dict[str, str]) -> None:
    """Adds what an entry tells of an item and isn't known yet."""
    known = texts.get(item_id, {})
    for name, key in fields.items():
        if name not in known and key in entry:
            text = text_of(entry[key])
            if text:
                known = texts.setdefault(item_id, known)
                known[name] = text
