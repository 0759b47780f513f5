"""Users in a fixed order with their histories, from a split, a table with one list per user, or a log."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..checks import check_named
from ..interactions import Interactions, drop_repeated
from ..prepared import read_items, split_file
from ..sources import AUTO, READERS, Malformed, SourceOptions, check_options, read_source
from ..sources.column_names import ITEMS, USERS, named_like, plain
from ..sources.columns import USER
from ..sources.csv_table import find_separator
from ..sources.formats import likely_formats
from .spilled_log import spill_parquet
from .table_file import ID, IDS, ROWS, TableFile, in_pieces

HISTORY = "history"  # only a table of histories has this column, a log doesn't
TABLES = ("csv", "jsonl", "parquet")
SPLIT_COLUMNS = ["user_id", "history", "target"]


@dataclass(frozen=True)
class UserHistories:
    """Users in a fixed order, with their histories.

    Args:
        name (`str`): name of the file or folder in messages.
        tables (`Callable`): returns an iterator over all rows, each time it is called: tables of `user_id: string` and
            `history: list<string>`, oldest first. Rows of a split also have a `target`.
        is_split (`bool`, *optional*, defaults to `False`): whether the rows are those of a prepared dataset.
        notes (`tuple[str, ...]`, *optional*): descriptions of the rows that were left out while the file was read.
    """

    name: str
    tables: Callable[[], Iterator[pa.Table]]
    is_split: bool = False
    notes: tuple[str, ...] = ()

    def pieces(self, size: int) -> Iterator[pa.Table]:
        """Yields all rows, `size` at a time; the last piece has the rest."""
        return in_pieces(self.tables(), size)


def split_histories(folder: str | Path, split: str) -> UserHistories:
    """Returns the rows of a split of a prepared dataset; a user may have several rows.

    Raises:
        FileNotFoundError: no such dataset, or a dataset without this split.
        ValueError: the split's file is damaged.
    """
    read_items(Path(folder), ["item_id"])  # raises where there is no dataset
    path = split_file(Path(folder), split)

    def tables() -> Iterator[pa.Table]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS, columns=SPLIT_COLUMNS):
                yield pa.Table.from_batches([batch])

    return UserHistories(str(path), tables, is_split=True)


def read_histories(
    path: str | Path, options: SourceOptions | None = None, format: str = AUTO, size: int = ROWS
) -> UserHistories:
    """Returns the users of a table with a column `history`, or of a log.

    A table has one row per user: an id, and a list of item ids, oldest first (in a CSV as JSON). It is read a part at
    a time, each time its rows are iterated.

    A log has one row per interaction. It is read as `etegrec prepare` reads it: in the order of its times, without
    exact repetitions. A parquet log whose times aren't text is read a part at a time into a temporary folder, which is
    removed with the histories. Other logs are read as a whole.

    Args:
        path (`str` or `Path`): parquet, CSV or JSON lines; a log may have any format that `etegrec prepare` reads.
        options ([`SourceOptions`], *optional*): names of columns that aren't recognised. For a table, only
            `user_column` and `separator` have an effect.
        format (`str`, *optional*, defaults to `"auto"`): format of a log, as in `etegrec prepare`.
        size (`int`, *optional*, defaults to 8192): number of a log's users per table.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an empty path, or columns that aren't found.
        ValueError: options that have no effect on a table.
        ValueError: a damaged file, or one without rows.
    """
    options, path = options or SourceOptions(), check_named("path", path)
    formats = likely_formats(path) if format == AUTO else [format]
    kind = next((name for name in formats if name in TABLES), None)
    if kind is not None:
        separator = options.separator
        if kind == "csv" and separator is None:
            separator = find_separator(path, lambda names: _history_column(names) is not None)
        table = TableFile(path, separator)
        column = _history_column(table.names)
        if column is not None:
            return _of_table(table, column, options, format)
        _check_is_log(table, options)
        if kind == "parquet":
            check_options(kind, READERS[kind].uses, options)
            spilled = spill_parquet(path, options)
            if spilled is not None:
                in_parts, malformed = spilled
                return _of_log(path, in_parts.parts, [malformed], size)
    source, _ = read_source(path, format, options)
    log = drop_repeated(source.interactions, "exact")
    # in memory: one id per user and per item, and eight bytes per interaction
    log = Interactions(log.user_ids, log.item_ids, log.users.astype(np.int32), log.items.astype(np.int32))
    return _of_log(path, lambda: iter([log]), source.malformed, size)


def _history_column(names: list[str]) -> str | None:
    return next((name for name in names if plain(name) == HISTORY), None)


def _check_is_log(table: TableFile, options: SourceOptions) -> None:
    """Raises a `ValueError` for a table of users that has neither a column `history` nor one of single items."""
    has_users = options.user_column in table.names or bool(named_like(table.names, USERS))
    if has_users and options.item_column is None and not named_like(table.names, ITEMS):
        raise ValueError(
            f"{table.path} has the columns {table.names}, but lists of item ids are expected in a column called "
            f"{HISTORY!r}; rename the column of lists. If the table is a log with one item per row, name the column "
            "of items with --item-column."
        )


def user_column(table: TableFile, options: SourceOptions) -> str | None:
    """Returns the column of user ids: the one that was named, or the one whose name says so.

    Raises:
        ValueError: the table has no column of that name.
        ValueError: several columns whose names say that they hold users.
    """
    if options.user_column is not None and options.user_column not in table.names:
        raise ValueError(
            f"{table.path} has no column {options.user_column!r}, only {table.names}; name it with --user-column."
        )
    return options.user_column or USER.guess(table.names, table.path)


def _of_table(table: TableFile, column: str, options: SourceOptions, format: str) -> UserHistories:
    used = ("user_column", "separator") if table.kind == "csv" else ("user_column",)
    for option in fields(options):
        if option.name not in used and getattr(options, option.name) != option.default:
            raise _without_effect(option.name, getattr(options, option.name), table, column)
    if format not in (AUTO, table.kind):
        raise _without_effect("format", format, table, column)
    user = user_column(table, options)
    if user is None:
        raise ValueError(
            f"{table.path} has no column whose name says that it holds users, only {table.names}; name it with "
            "--user-column."
        )

    def tables() -> Iterator[pa.Table]:
        for part in table.tables({user: ID, column: IDS}):
            yield part.rename_columns(["user_id", "history"])

    return UserHistories(str(table.path), tables)


def _without_effect(name: str, value: object, table: TableFile, column: str) -> ValueError:
    return ValueError(
        f"`{name}` is {value!r}, but has no effect on {table.path}, a table with a column {column!r}; leave it out."
    )


def _of_log(
    path: Path, parts: Callable[[], Iterator[Interactions]], malformed: list[Malformed], size: int
) -> UserHistories:
    def tables() -> Iterator[pa.Table]:
        for log in parts():
            user_ids, item_ids = pa.array(log.user_ids, pa.string()), pa.array(log.item_ids, pa.string())
            starts = log.starts
            for first in range(0, len(user_ids), size):
                users = user_ids.slice(first, size)
                offsets = starts[first : first + len(users) + 1]
                taken = item_ids.take(pa.array(log.items[offsets[0] : offsets[-1]]))
                lists = pa.ListArray.from_arrays(pa.array(offsets - offsets[0], pa.int32()), taken)
                yield pa.table({"user_id": users, "history": lists})

    return UserHistories(str(path), tables, notes=tuple(str(rows) for rows in malformed if rows.count))


def repeated_user(user_ids: pa.ChunkedArray) -> str | None:
    """Returns a user that has several rows, or None."""
    if pc.count_distinct(user_ids).as_py() == len(user_ids):
        return None
    counts = pc.value_counts(user_ids)
    return counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
