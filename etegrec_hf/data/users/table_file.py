"""Tables of ids and of lists of ids, read a part at a time."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from ..sources.columns import is_text
from ..sources.csv_table import find_separator, quoting_of
from ..sources.lines import json_lines, open_unpacked, with_names
from ..sources.source import Malformed
from ..sources.values import wrong_id
from ..wording import counted

ROWS = 8192  # rows that are read together
LONGEST_CELL = 2**27  # characters; a history of millions of ids is shorter, and a quote that is never closed longer
ID, IDS = pa.string(), pa.list_(pa.string())  # types of columns


class TableFile:
    """A table that is read a part at a time: parquet (also a folder of such files), CSV or JSON lines.

    CSV and JSON lines may be packed. Ids are text or whole numbers, and become text. Lists of ids in a CSV are JSON.

    Args:
        path (`Path`): the file.
        separator (`str`, *optional*): separator of the cells of a CSV; by default the one that splits its header.

    Attributes:
        kind (`str`): `"parquet"`, `"csv"` or `"jsonl"`.
        names (`list[str]`): names of the columns; for JSON lines, the fields of the first lines.

    Raises:
        FileNotFoundError: no such file, or a folder without parquet files.
        ValueError: a file that is empty or can't be read.
    """

    def __init__(self, path: Path, separator: str | None = None):
        self.path, self.separator = path, separator
        self.files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not self.files or not self.files[0].is_file():
            raise FileNotFoundError(
                f"{str(path)!r} is neither a file nor a folder with .parquet files; check the path."
            )
        self.kind = _kind(self.files[0])
        self.names = self._names()
        if not self.names:
            raise ValueError(f"{path} is empty; write a table with the names of its columns.")

    def tables(self, columns: dict[str, pa.DataType]) -> Iterator[pa.Table]:
        """Reads columns from the first row to the last.

        Args:
            columns (`dict[str, pa.DataType]`): types of columns by name, `ID` or `IDS`. Empty cells of `IDS` are
                empty lists.

        Yields:
            tables of these columns.

        Raises:
            ValueError: a cell of another type, or an empty id; the error names the row.
            ValueError: a damaged file.
        """
        first_row = 1
        for cells in self._parts(list(columns)):
            read = [
                self._column(column, name, kind, first_row) for column, (name, kind) in zip(cells, columns.items())
            ]
            yield pa.table(read, schema=pa.schema(columns))
            first_row += len(read[0])

    def _names(self) -> list[str]:
        if self.kind == "parquet":
            try:
                return pyarrow.dataset.dataset(self.files, format="parquet").schema.names
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(self.path, "parquet", error) from error
        if self.kind == "jsonl":
            malformed = Malformed(self.path)
            names, _ = with_names(json_lines(self.path, malformed))
            if malformed.count and not names:
                raise ValueError(f"{malformed}; write one JSON object per line.")
            return names  # malformed lines are refused or counted when the rows are read
        self.separator = self.separator or find_separator(self.path, lambda names: False)
        return next(self._csv_rows(), [])

    def _parts(self, names: list[str]) -> Iterator[list[pa.Array | list]]:
        """Yields the columns of some rows at a time, as they are in the file."""
        if self.kind == "parquet":
            yield from self._parquet_parts(names)
            return
        rows = self._json_cells(names) if self.kind == "jsonl" else self._csv_cells(names)
        while part := list(islice(rows, ROWS)):
            yield [list(column) for column in zip(*part)]

    def _parquet_parts(self, names: list[str]) -> Iterator[list[pa.Array | list]]:
        for path in self.files:
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(ROWS, columns=names, use_threads=False):
                        yield [batch.column(name) for name in names]
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(path, "parquet", error) from error

    def _json_cells(self, names: list[str]) -> Iterator[list]:
        malformed = Malformed(self.path)
        for _, entry in json_lines(self.path, malformed):
            if malformed.count:
                break
            yield [entry.get(name) for name in names]
        if malformed.count:
            raise ValueError(f"{malformed}; write one JSON object per line.")

    def _csv_cells(self, names: list[str]) -> Iterator[list]:
        rows = self._csv_rows()
        header = next(rows)
        places = [header.index(name) for name in names]
        for number, row in enumerate(rows, start=1):
            if len(row) != len(header):
                raise ValueError(
                    f"row {number} of {self.path} has {counted(len(row), 'cell')} instead of {len(header)}; put cells "
                    f"that hold {self.separator!r} into double quotes, and double the quotes inside them."
                )
            yield [row[place] for place in places]

    def _csv_rows(self) -> Iterator[list[str]]:
        count = 0
        try:
            with io.TextIOWrapper(open_unpacked(self.path), "utf-8-sig", newline="") as file:
                first, separator = file.readline(), self.separator or ","
                quoting = quoting_of(first, separator)
                csv.field_size_limit(LONGEST_CELL)
                for row in csv.reader(chain([first], file), delimiter=separator, quoting=quoting, strict=True):
                    if row:
                        yield row
                        count += 1
        except (csv.Error, UnicodeError, OSError) as error:
            where = f"after row {count - 1}" if count > 1 else "at its beginning"
            raise ValueError(
                f"{self.path} can't be read as CSV {where}: {error}; check that its quotes are closed and that it is "
                "complete and UTF-8, or write it as parquet."
            ) from error

    def _column(self, cells: pa.Array | list, name: str, kind: pa.DataType, first_row: int) -> pa.Array:
        """Returns cells as ids or lists of ids, none of which is missing."""
        if isinstance(cells, pa.Array):
            column = self._from_arrow(cells, name, kind)
        else:
            if kind == IDS and self.kind == "csv":
                cells = [self._list(cell, name, first_row + row) for row, cell in enumerate(cells)]
            column = self._from_python(cells, name, kind, first_row)
        if kind == IDS:
            column = column.fill_null([]) if column.null_count else column
            inner = column.flatten()
            if inner.null_count:
                row = next(row for row, ids in enumerate(column.to_pylist()) if None in ids)
                raise self._wrong(first_row + row, f"{name!r} holds an empty id; leave the id out")
        elif column.null_count or pa.compute.any(pa.compute.equal(column, "")).as_py():
            row = next(row for row, cell in enumerate(column.to_pylist()) if not cell)
            raise self._wrong(first_row + row, f"{name!r} is empty; write an id, or leave the row out")
        return column

    def _from_arrow(self, cells: pa.Array, name: str, kind: pa.DataType) -> pa.Array:
        cells = cells.dictionary_decode() if isinstance(cells, pa.DictionaryArray) else cells
        given = cells.type
        inner = given
        if kind == IDS:
            is_list = pa.types.is_list(given) or pa.types.is_large_list(given) or pa.types.is_fixed_size_list(given)
            if not is_list and not pa.types.is_null(given):
                raise ValueError(f"column {name!r} of {self.path} holds {given}; write lists of item ids.")
            inner = given.value_type if is_list else given
        if not (is_text(inner) or pa.types.is_integer(inner) or pa.types.is_null(inner)):
            raise ValueError(
                f"column {name!r} of {self.path} holds {given}, neither text nor whole numbers; convert it."
            )
        return cells.cast(kind)

    def _from_python(self, cells: list, name: str, kind: pa.DataType, first_row: int) -> pa.Array:
        try:
            found = pa.array(cells)
        except (pa.ArrowException, TypeError, UnicodeError, OverflowError):  # of mixed types
            found = pa.nulls(0, pa.bool_())
        inner = found.type.value_type if kind == IDS and pa.types.is_list(found.type) else found.type
        if (inner is not found.type) == (kind == IDS) and (is_text(inner) or inner == pa.int64()):
            return found.cast(kind)  # the case of nearly all files, without a check of each id
        texts: list = []
        for row, cell in enumerate(cells, start=first_row):
            if kind == IDS and cell is not None and not isinstance(cell, list):
                raise self._wrong(row, f"{name!r} is {cell!r}; write a list of item ids")
            for value in (cell or []) if kind == IDS else [cell]:
                wrong = wrong_id(name, value)
                if wrong:
                    raise self._wrong(row, f"{wrong}; write ids as text")
            texts.append([str(value) for value in cell or []] if kind == IDS else str(cell))
        return pa.array(texts, kind)

    def _list(self, cell: str, name: str, row: int) -> list | None:
        if not cell:
            return None
        try:
            found = json.loads(cell)
        except ValueError:
            found = None
        if not isinstance(found, list):
            raise self._wrong(row, f"""{name!r} is {cell[:80]!r}; write a JSON list of ids, like ["a", "b"]""")
        return found

    def _wrong(self, row: int, what: str) -> ValueError:
        return ValueError(f"row {row} of {self.path}: {what}.")


def in_pieces(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Yields the rows of tables in pieces of `size` rows; the last piece has the rest."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        while count + len(table) >= size:
            piece = pa.concat_tables([*waiting, table.slice(0, size - count)])
            table, waiting, count = table.slice(size - count), [], 0
            yield piece
        if len(table):
            waiting.append(table)
            count += len(table)
    if count:
        yield pa.concat_tables(waiting)


def _kind(path: Path) -> str:
    """Returns the format of a file, judged by its first bytes."""
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            return "parquet"
    with open_unpacked(path) as unpacked:
        return "jsonl" if unpacked.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else "csv"


def _unreadable(path: Path, kind: str, error: Exception) -> ValueError:
    return ValueError(f"{path} can't be read as {kind} ({str(error).splitlines()[0]}); copy it again.")
