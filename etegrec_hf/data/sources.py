"""Readers of interaction logs: one function a format."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from .interactions import Interactions


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; `timestamp` may be absent, the rows are then in time order."""

    user_id: str = "user_id"
    item_id: str = "item_id"
    timestamp: str | None = "timestamp"


@dataclass(frozen=True)
class Source:
    """What a reader returns.

    Args:
        interactions ([`Interactions`]): the log.
        texts (`dict[str, dict[str, str]]`): item id to `title` and `description`, where known.
        item_tokens (`dict[str, list[str]]`): item id to token strings, where the source brings codes of its own.
    """

    interactions: Interactions
    texts: dict[str, dict[str, str]]
    item_tokens: dict[str, list[str]]


def read_letter(path: Path, columns: Columns) -> Source:
    """Reads the layout of LC-Rec and LETTER: `NAME.inter.json`, and `NAME.item.json` and `NAME.index.json` beside it.

    `path` is the `.inter.json` or a folder that holds one.

    Raises:
        FileNotFoundError: no `.inter.json`, or several.
    """
    found = sorted(path.glob("*.inter.json")) if path.is_dir() else [path]
    if len(found) != 1 or not found[0].exists():
        raise FileNotFoundError(f"{path} holds {len(found)} files NAME.inter.json; give the path of the one to read.")
    histories: dict[str, list] = _read_json(found[0])
    lengths = [len(history) for history in histories.values()]
    if not sum(lengths):
        raise ValueError(f"the data set is empty: {found[0]} holds no interaction; check the path.")
    numbers = np.array([item for history in histories.values() for item in history])
    item_numbers, items = np.unique(numbers, return_inverse=True)  # rows of an .npy of embeddings go by item number
    interactions = Interactions(
        np.array(list(histories)), item_numbers.astype(str), np.repeat(np.arange(len(lengths)), lengths), items
    )
    if not all(lengths):
        interactions = interactions.select(np.ones(len(items), dtype=bool))
    base = found[0].name.removesuffix(".inter.json")
    item_file, index_file = (found[0].with_name(f"{base}.{kind}.json") for kind in ("item", "index"))
    texts = _read_json(item_file) if item_file.exists() else {}
    return Source(interactions, texts, _read_json(index_file) if index_file.exists() else {})


def _read_json(path: Path) -> dict:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _read_table(table: pa.Table, path: Path, columns: Columns) -> Source:
    """A table of one interaction a row; a `title` column gives titles."""
    for name in (columns.user_id, columns.item_id):
        if name not in table.column_names:
            raise ValueError(
                f"{path} has no column {name!r}, only {table.column_names}; name it with --user-column and "
                "--item-column."
            )
        if table[name].null_count:
            raise ValueError(f"column {name!r} of {path} has {table[name].null_count} empty cells; remove those rows.")
    users, items = (
        table[name].cast(pa.string()).to_numpy(zero_copy_only=False) for name in (columns.user_id, columns.item_id)
    )
    times = None
    if columns.timestamp is not None and columns.timestamp in table.column_names:
        column = table[columns.timestamp]
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.timestamp("us")).cast(pa.int64())
        try:
            times = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid as error:
            raise ValueError(f"column {columns.timestamp!r} of {path} is no number and no date: {error}") from error
        if np.isnan(times).any():
            raise ValueError(
                f"column {columns.timestamp!r} of {path} has {np.isnan(times).sum()} empty cells; fill them."
            )
    texts = {}
    if "title" in table.column_names:
        texts = {item: {"title": title or ""} for item, title in zip(items, table["title"].to_pylist())}
    return Source(Interactions.from_columns(users, items, times), texts, {})


def read_csv(path: Path, columns: Columns) -> Source:
    """Reads a CSV with a header."""
    ids = {name: pa.string() for name in (columns.user_id, columns.item_id)}
    options = pyarrow.csv.ConvertOptions(column_types=ids)
    return _read_table(pyarrow.csv.read_csv(path, convert_options=options), path, columns)


def read_jsonl(path: Path, columns: Columns) -> Source:
    """Reads one JSON object a line."""
    return _read_table(pyarrow.json.read_json(path), path, columns)


def read_parquet(path: Path, columns: Columns) -> Source:
    """Reads a parquet file, or a folder of them."""
    return _read_table(pyarrow.parquet.read_table(path), path, columns)


READERS: dict[str, Callable[[Path, Columns], Source]] = {
    "letter": read_letter,
    "csv": read_csv,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}
