"""Texts of items from a file of their own."""

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from .csv_table import csv_table
from .lines import json_lines, texts_of_entries
from .source import Malformed, SourceOptions, Texts

JSON = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
SEPARATORS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".item": "\t"}


def read_item_texts(
    texts: Texts, options: SourceOptions, item_ids: Collection[str], renamed: dict[str, str] | None = None
) -> Texts:
    """What the rows of a log told of its items, and over it what the file `options.items` tells.

    Args:
        texts (`dict`): of the log.
        options ([`SourceOptions`]): names the file and its columns of ids and titles.
        item_ids (`Collection[str]`): the items asked for.
        renamed (`dict[str, str]`, *optional*): for those of `TEXT_FIELDS` with another name in the file, that name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, no column of ids, or too many malformed rows.
    """
    if options.items is None:
        return texts
    path = Path(options.items)
    if not path.is_file():
        raise FileNotFoundError(f"`items` {options.items!r} is no file; check the path.")
    malformed = Malformed(path)
    suffix = next((suffix for suffix in (*JSON, *SEPARATORS, ".parquet") if path.name.endswith(suffix)), None)
    if suffix is None:
        raise ValueError(f"`items` {options.items!r} is none of .csv, .tsv, .item, .jsonl and .parquet; convert it.")
    if suffix in JSON:
        entries = list(json_lines(path, malformed))
    elif suffix in SEPARATORS:
        everything = csv_table(path, SEPARATORS[suffix], malformed, needed=list, inferred=lambda names: ())
        entries = list(_entries(everything))
    else:
        entries = list(_entries(pyarrow.parquet.read_table(path)))
    malformed.check(options.max_malformed)
    if entries and options.item_column not in entries[0][1]:
        raise ValueError(
            f"{path} has no column {options.item_column!r}, only {list(entries[0][1])}; name it as in the log."
        )
    fields = {"title": options.title_column} | (renamed or {})
    return texts | texts_of_entries(iter(entries), options.item_column, item_ids, fields)


def _entries(table: pa.Table) -> Iterator[tuple[int, dict]]:
    return enumerate(table.to_pylist(), start=1)
