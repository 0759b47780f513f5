"""Readers of interaction logs: one function a format."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from .interactions import Interactions

ROW_ORDER = "rows of the file"


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns.

    Without a `timestamp`, the column of that name orders the interactions where there is one, and else the rows do.
    """

    user_id: str = "user_id"
    item_id: str = "item_id"
    timestamp: str | None = None


@dataclass(frozen=True)
class Source:
    """What a reader returns.

    Args:
        interactions ([`Interactions`]): the log.
        texts (`dict[str, dict[str, str]]`): item id to `title` and `description`, where known.
        item_tokens (`dict[str, list[str]]`): item id to token strings, where the source brings codes of its own.
        order (`str`, *optional*, defaults to `ROW_ORDER`): the column that ordered the interactions.
    """

    interactions: Interactions
    texts: dict[str, dict[str, str]]
    item_tokens: dict[str, list[str]]
    order: str = ROW_ORDER


def read_letter(path: Path, columns: Columns) -> Source:
    """Reads the layout of LC-Rec and LETTER: `NAME.inter.json`, and `NAME.item.json` and `NAME.index.json` beside it.

    `path` is the `.inter.json` or a folder that holds one.

    Raises:
        FileNotFoundError: no `.inter.json`, or several.
        ValueError: names of columns, files that are no JSON, codes that are no token strings, or no interaction.
    """
    if columns != Columns():
        raise ValueError(f"{columns} can't be used with the format 'letter', which has no columns; leave them out.")
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
    base = found[0].name.removesuffix(".inter.json")
    item_file, index_file = (found[0].with_name(f"{base}.{kind}.json") for kind in ("item", "index"))
    texts = _read_json(item_file) if item_file.exists() else {}
    tokens = _read_json(index_file) if index_file.exists() else {}
    for item, codes in tokens.items():
        if not isinstance(codes, list) or not all(isinstance(code, str) for code in codes):
            raise ValueError(
                f'item {item!r} in {index_file} has {codes!r}; expected token strings like ["<a_12>", ...].'
            )
    return Source(interactions, texts, tokens)


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}; copy it again or repair it.") from error


def _read_table(table: pa.Table, path: Path, columns: Columns) -> Source:
    """A table of one interaction a row; a `title` column gives titles.

    Times stay integers of their own unit where the column holds integers or dates, and are `float64` otherwise.

    Raises:
        ValueError: a column that doesn't exist, empty cells, times that are neither numbers nor dates, no rows.
    """
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
    timestamp = columns.timestamp or "timestamp"
    for name, ids in ((columns.user_id, users), (columns.item_id, items)):
        if (ids == "").any():
            raise ValueError(f"column {name!r} of {path} has {(ids == '').sum()} empty cells; remove those rows.")
    times, order = None, ROW_ORDER
    if timestamp in table.column_names:
        times, order = _read_times(table[timestamp], timestamp, path), timestamp
    elif columns.timestamp is not None:
        raise ValueError(
            f"{path} has no column {timestamp!r}, only {table.column_names}; name one of them with --time-column, or "
            "leave that out."
        )
    texts = {}
    if "title" in table.column_names:
        texts = {item: {"title": title or ""} for item, title in zip(items, table["title"].to_pylist())}
    return Source(Interactions.from_columns(users, items, times), texts, {}, order)


def _read_times(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray:
    try:
        if pa.types.is_temporal(column.type):
            # what has 32 bits can't become int64 at once
            column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
        column = column.cast(pa.int64() if pa.types.is_integer(column.type) else pa.float64())
    except pa.ArrowException as error:
        raise ValueError(
            f"column {name!r} of {path} is no number and no date: {error}; convert it, or name another with "
            "--time-column."
        ) from error
    empty = pc.is_null(column, nan_is_null=True).to_numpy().sum()
    if empty:
        raise ValueError(f"column {name!r} of {path} has {empty} empty cells; fill them.")
    return column.to_numpy()


def read_csv(path: Path, columns: Columns) -> Source:
    """Reads a CSV with a header; ids and titles are taken as written, and only cells without a character are empty."""
    as_written = {name: pa.string() for name in (columns.user_id, columns.item_id, "title")}
    options = pyarrow.csv.ConvertOptions(column_types=as_written, null_values=[""], strings_can_be_null=True)
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
