"""Texts of items, mostly from a file of their own."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from .columns import ids_as_text, text_columns
from .csv_table import csv_table
from .lines import json_lines
from .source import TEXT_FIELDS, Malformed, SourceOptions, Texts
from .values import text_of, wrong_id

JSON = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
SEPARATORS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t", ".item": "\t"}
PARQUET = ".parquet"


def texts_reader(
    texts: Texts, options: SourceOptions, aliases: dict[str, str] | None = None
) -> tuple[Callable[[Collection[str]], Texts], list[Malformed]]:
    """The `read_texts` of a [`Source`]: what the rows of a log told of its items, and before it what a file tells.

    Args:
        texts (`dict`): of the log.
        options ([`SourceOptions`]): names the file, which exists, and its columns of ids and titles.
        aliases (`dict[str, str]`, *optional*): as in [`text_columns`].

    Returns:
        the function, and what it will find malformed in the file.

    Raises:
        ValueError: another kind of file; when the texts are read, no column of ids, or too many malformed rows.
    """
    if options.items is None:
        return lambda item_ids: texts, []
    path = Path(options.items)
    suffix = next((suffix for suffix in (*JSON, *SEPARATORS, PARQUET) if path.name.endswith(suffix)), None)
    if suffix is None:
        raise ValueError(f"`items` {options.items!r} is none of .csv, .tsv, .item, .jsonl and .parquet; convert it.")
    malformed = Malformed(path, unit="line" if suffix in JSON else "row")

    def read_texts(item_ids: Collection[str]) -> Texts:
        if suffix in JSON:
            entries = json_lines(path, malformed)
            fields = dict(zip(TEXT_FIELDS, TEXT_FIELDS)) | {"title": options.title_column}
        else:
            table = _read_table(path, suffix, malformed, options, aliases)
            entries = _entries(table, options.item_column, item_ids, path)
            fields = text_columns(table.column_names, options, aliases)
        of_file = texts_of_entries(entries, options.item_column, item_ids, fields, malformed)
        malformed.check(options.max_malformed)
        return {item_id: texts.get(item_id, {}) | of_file.get(item_id, {}) for item_id in {**texts, **of_file}}

    return read_texts, [malformed]


def _read_table(
    path: Path, suffix: str, malformed: Malformed, options: SourceOptions, aliases: dict[str, str] | None
) -> pa.Table:
    """The columns of ids and texts."""

    def needed(names: list[str]) -> list[str]:
        if options.item_column not in names:
            raise ValueError(f"{path} has no column {options.item_column!r}, only {names}; name it as in the log.")
        return [options.item_column, *text_columns(names, options, aliases).values()]

    if suffix != PARQUET:
        return csv_table(path, SEPARATORS[suffix], malformed, needed, inferred=lambda names: ())[0]
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return file.read(needed(file.schema_arrow.names))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} can't be read as parquet: {error}; copy it again or convert it.") from error


def _entries(table: pa.Table, item_column: str, item_ids: Collection[str], path: Path) -> Iterator[tuple[int, dict]]:
    """The rows of the items asked for, a thousand at a time as objects."""
    ids = ids_as_text(table[item_column], item_column, path).cast(pa.string())
    asked = table.filter(pc.is_in(ids, value_set=pa.array(list(item_ids), pa.string())))
    for batch in asked.to_batches(max_chunksize=1000):
        yield from ((0, entry) for entry in batch.to_pylist())


def texts_of_entries(
    entries: Iterator[tuple[int, dict]],
    item_field: str,
    item_ids: Collection[str],
    fields: dict[str, str],
    malformed: Malformed,
) -> Texts:
    """Texts of the items asked for; of several entries for one item, the first that has a field tells it.

    Args:
        entries (`Iterator`): line numbers and objects of a metadata file.
        item_field (`str`): the field of the item's id.
        item_ids (`Collection[str]`): the items asked for.
        fields (`dict[str, str]`): those of `TEXT_FIELDS` that the file has, and their names there.
        malformed ([`Malformed`]): takes entries without an id.
    """
    asked = set(item_ids)
    texts: Texts = {}
    for number, entry in entries:
        value = entry.get(item_field)
        wrong = wrong_id(item_field, value)
        if wrong:
            malformed.add(number, wrong)
        elif str(value) in asked:
            add_texts(texts, str(value), entry, fields)
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
