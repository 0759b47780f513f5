"""Delimited text as a table."""

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from .lines import open_unpacked
from .source import Malformed

TYPED = re.compile(r"(.+):(token|token_seq|float|float_seq)")  # a column of RecBole's atomic files
SEPARATORS = (",", "\t", ";", "|", " ")
BLOCKS = (1 << 24, 1 << 30)  # bytes read at once; no row may be longer
END = "\x03"  # stands in each cell of a last row, one cell too long, which only a quote left open can hide
MANY_LINES = 20  # of a cell in which rows of the file are looked for


@dataclass(frozen=True)
class CsvTable:
    """What a delimited file holds.

    Args:
        table (`pa.Table`): the columns asked for, all of them text.
        left_out (`np.ndarray` of `int64`): numbers of the rows that aren't in it, ascending.
        names (`list[str]`): all columns of the file.
    """

    table: pa.Table
    left_out: np.ndarray
    names: list[str]


def find_separator(path: Path, columns: Collection[str]) -> str:
    """The separator by which a file's header has the columns named; else the comma, or what makes most columns.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the header is no text.
    """
    with _told_as_csv(path):
        headers = {separator: _header(path, separator)[1] for separator in SEPARATORS}
    found = [separator for separator, names in headers.items() if set(columns) <= set(names)]
    if found or len(headers[","]) > 1:
        return next(iter(found), ",")
    return max(SEPARATORS, key=lambda separator: len(headers[separator]))


def csv_table(path: Path, separator: str, malformed: Malformed, needed: Callable[[list[str]], list[str]]) -> CsvTable:
    """Reads columns of a delimited file with a header, packed or not.

    Cells may be in quotes and hold line breaks, but not where tabs separate them: quotes are text there.
    RecBole's columns `name:type` are called `name`. Rows are numbered from 1, without the header and without empty
    lines.

    Args:
        path (`Path`): the file.
        separator (`str`): between cells.
        malformed ([`Malformed`]): takes the rows with another number of cells than the header, those whose quotes hold
            rows of the file, and the number of rows.
        needed (`Callable`): of the header's names, those to read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it isn't such a file, or a quote opens in it that is never closed.
    """
    with _told_as_csv(path):
        header, names = _header(path, separator)
        if not header:
            raise ValueError(f"{path} can't be read as CSV: it is empty; check --format, and that the file is whole.")
    columns = needed(names)
    in_file = [names.index(name) for name in columns]  # the first of several of one name
    for block in BLOCKS:
        rows = _Rows(path, separator, header)
        try:
            with _told_as_csv(path):
                batches = list(rows.batches(block, in_file))
            break
        except ValueError as error:
            if "straddling object" not in str(error):
                raise
            if block == BLOCKS[-1]:
                raise ValueError(
                    f"a row after row {rows.count} of {path} is longer than {block >> 20} MB: most likely a quote "
                    "opens in it that is never closed; close it, or double it where it is text."
                ) from error
    if not rows.ended:
        raise ValueError(
            f"a quote that opens in row {rows.count} of {path} is never closed, so that one cell holds the rest of "
            "the file; close it, or double it where it is text."
        )
    schema = pa.schema([(name, pa.string()) for name in columns])
    table = pa.Table.from_batches([pa.record_batch(batch, schema=schema) for batch in batches], schema)
    malformed.rows += rows.count
    for number, (reason, n_lines) in sorted(rows.malformed.items()):
        malformed.rows += n_lines
        malformed.add(number, reason, 1 + n_lines)
    return CsvTable(table, np.array(sorted(rows.malformed), dtype=np.int64), names)


def row_number(row: int, left_out: np.ndarray) -> int:
    """The number in the file, from 1, of a table's row, from 0, where rows of the numbers `left_out` aren't in it."""
    kept_before = left_out - 1 - np.arange(len(left_out))  # rows in the table before each that isn't
    return int(row + 1 + np.searchsorted(kept_before, row, side="right"))


def line_breaks(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """How many line breaks each text of a column holds."""
    return pc.fill_null(pc.count_substring(column, "\n"), 0).to_numpy()


def rows_inside(text: str, separator: str, n_columns: int) -> int:
    """How many lines of a text a quote has swallowed, if they are many and most look like rows of the file."""
    lines = text.splitlines()[1:]
    alike = sum(line.count(separator) == n_columns - 1 for line in lines)
    return len(lines) if n_columns > 1 and len(lines) >= MANY_LINES and 2 * alike > len(lines) else 0


@contextmanager
def _told_as_csv(path: Path) -> Iterator[None]:
    """Names the file in errors of reading it."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError, UnicodeError, csv.Error) as error:
        raise ValueError(
            f"{path} can't be read as CSV: {error}; check --format, and that the file is whole and UTF-8."
        ) from error


def _header(path: Path, separator: str) -> tuple[list[str], list[str]]:
    """The cells of the first line that holds any, and the columns' names."""
    with io.TextIOWrapper(open_unpacked(path), "utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = (line for line in file if line.strip())
        quoting: Literal[0, 3] = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
        header = next(csv.reader(lines, delimiter=separator, quoting=quoting), [])
    "".join(header).encode()  # other lines are not looked at, as what isn't UTF-8 may stand where nothing is read
    typed = map(TYPED.fullmatch, header)
    return header, [match[1] if match else name for match, name in zip(typed, header)]


class _Marked:
    """A file with a last line of our own, for pyarrow to read."""

    def __init__(self, file: io.BufferedReader, end: bytes):
        self.file, self.end, self.closed = file, end, False

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        if not data:
            data, self.end = self.end, b""
        return data

    def close(self) -> None:
        self.file.close()
        self.closed = True


class _Rows:
    """The rows of a file in one pass, and what was found on the way.

    Args:
        path (`Path`): the file.
        separator (`str`): between cells.
        header (`list[str]`): its first row.
    """

    def __init__(self, path: Path, separator: str, header: list[str]):
        self.path, self.separator, self.header = path, separator, header
        self.end = separator.join([END] * (len(header) + 1))
        self.ended = False
        self.kept = self.blank = 0  # rows with as many cells as the header, and lines of blanks
        self.skipped: list[int] = []  # numbers of rows with more or fewer cells
        self.malformed: dict[int, tuple[str, int]] = {}  # row number to a reason, and lines that its quotes hold

    @property
    def count(self) -> int:
        """Rows so far."""
        return self.kept + len(self.skipped)

    def batches(self, block: int, columns: list[int]) -> Iterator[list[pa.Array]]:
        """Columns, by their positions, of the rows that are whole."""
        quotes = self.separator != "\t"
        kinds = dict.fromkeys(self.header, pa.binary()) | {self.header[column]: pa.string() for column in columns}
        with pyarrow.csv.open_csv(
            pa.PythonFile(_Marked(open_unpacked(self.path), f"\n{self.end}\n".encode()), mode="r"),
            # with several threads rows have no numbers
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=block),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=self.separator,
                quote_char='"' if quotes else False,
                newlines_in_values=quotes,
                invalid_row_handler=self._skip,
            ),
            convert_options=pyarrow.csv.ConvertOptions(column_types=kinds, null_values=[""], strings_can_be_null=True),
        ) as reader:
            for batch in reader:
                whole = self._without_rows_inside(batch) if quotes else batch
                self.kept += len(batch)
                yield [whole.column(column) for column in columns]

    def _skip(self, row: pyarrow.csv.InvalidRow) -> str:
        """Takes a row with another number of cells than the header."""
        if row.text == self.end:
            self.ended = True
        elif not row.text.strip():
            self.blank += 1
        else:
            number = row.number - 1 - self.blank  # the header is number 1
            self.skipped.append(number)
            reason = f"{row.actual_columns} cells instead of {row.expected_columns}"
            self._note(number, row.text, reason)
        return "skip"

    def _without_rows_inside(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows in whose quotes no other rows of the file are."""
        breaks = sum(line_breaks(column) for column in batch.columns)
        whole = np.ones(len(batch), dtype=bool)
        for row in np.flatnonzero(breaks >= MANY_LINES).tolist():
            cells = [column[row].as_py() or "" for column in batch.columns]
            text = self.separator.join(
                cell if isinstance(cell, str) else cell.decode(errors="replace") for cell in cells
            )
            number = row_number(self.kept + row, np.array(self.skipped, dtype=np.int64))
            whole[row] = not self._note(number, text, "")
        return batch if whole.all() else batch.filter(pa.array(whole))

    def _note(self, number: int, text: str, reason: str) -> bool:
        """Notes what is wrong with a row, and says whether anything is."""
        inside = rows_inside(text, self.separator, len(self.header))
        if inside:
            reason = f"a quote that opens in it holds the next {inside} lines: close it, or double it where it is text"
        if reason:
            self.malformed[number] = (reason, inside)
        return bool(reason)
