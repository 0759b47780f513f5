"""The reader of delimited text, which becomes a table."""

import csv
import io
import re
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ..wording import counted
from .lines import open_unpacked
from .source import Malformed

TYPED = re.compile(r"(.+):(token|token_seq|float|float_seq)")  # a column of RecBole's atomic files
BLANK_LINES = re.compile(rb"(?:\xef\xbb\xbf)?(?:[ \t]*(?:\r\n?|\n))*")  # of the first bytes of a file
SEPARATORS = (",", "\t", ";", "|", " ")
BLOCKS = (1 << 24, 1 << 30)  # bytes per block, and of a second try; no row may be longer than a block
END = "\x03"  # content of each cell of an added last row, which has one cell too many: only an open quote can hide it
MANY_SEPARATORS = 20  # separators in lines of a text that make them rows of the file: no text has so many by chance
FEW_SEPARATORS = 3  # the same if every line is exactly like a row


@dataclass(frozen=True)
class CsvTable:
    """The contents of a delimited file.

    Args:
        table (`pa.Table`): the columns that were asked for; needed columns are text.
        left_out (`np.ndarray` of `int64`): numbers of the file's rows that aren't in the table, ascending.
        names (`list[str]`): names of all columns of the file.
    """

    table: pa.Table
    left_out: np.ndarray
    names: list[str]


def find_separator(path: Path, fits: Callable[[list[str]], bool]) -> str:
    """Finds the separator for which `fits` accepts the names in a file's header.

    If there is none, the comma is returned, or the separator that makes the most columns if there are no commas.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the header isn't text.
    """
    with _told_as_csv(path):
        headers = {separator: _header(path, separator)[1] for separator in SEPARATORS}
    found = [separator for separator, names in headers.items() if fits(names)]
    if found or len(headers[","]) > 1:
        return next(iter(found), ",")
    return max(SEPARATORS, key=lambda separator: len(headers[separator]))


def csv_table(
    path: Path,
    separator: str,
    malformed: Malformed,
    needed: Callable[[list[str]], list[str]],
    besides: Callable[[pa.Table], list[str]] | None = None,
) -> CsvTable:
    """Reads columns of a delimited file with a header, packed or not.

    Cells may be in quotes and then hold line breaks. With tabs as separators, quotes are ordinary text, unless each
    name in the header is in quotes. RecBole's columns `name:type` get the name `name`. Rows are numbered from 1,
    without the header and without empty lines.

    Args:
        path (`Path`): the file.
        separator (`str`): character between cells.
        malformed ([`Malformed`]): gets the number of rows, and the malformed rows: those with another number of cells
            than the header, and those whose quotes hold rows of the file.
        needed (`Callable`): function from the names in the header to those of the columns to read.
        besides (`Callable`, *optional*): function from the first rows, with all columns, to the names of further
            columns. These are read as dictionary-encoded bytes, which needn't be text.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file isn't delimited text.
        ValueError: a quote that is never closed.
    """
    with _told_as_csv(path):
        header, names, quotes = _header(path, separator)
        if not header:
            raise ValueError(f"{path} can't be read as CSV: it is empty; check --format, and that the file is whole.")
    columns = needed(names)
    in_file = [names.index(name) for name in columns]  # the first of several of one name
    for block in BLOCKS:
        rows = _Rows(path, separator, header, quotes)
        try:
            with _told_as_csv(path):
                also: list[int] = []
                parts: list[list[pa.Array]] = []
                for batch in rows.batches(block, in_file):
                    if besides is not None and not parts:
                        first_rows = pa.Table.from_arrays(batch.columns, names=names)
                        also = [names.index(name) for name in besides(first_rows)]
                    encoded = [batch.column(column).dictionary_encode() for column in also]
                    parts.append([*(batch.column(column) for column in in_file), *encoded])
            break
        except ValueError as error:
            if "straddling object" not in str(error):
                raise
            if block == BLOCKS[-1]:
                raise ValueError(
                    f"a row after row {rows.count} of {path} is longer than {block >> 20} MB: most likely a quote "
                    "in it is never closed; close it, or double it if it is text."
                ) from error
    if not rows.ended:
        raise ValueError(
            f"a quote that opens in row {rows.count} of {path} is never closed, so that one cell holds the rest of "
            "the file; close it, or double it if it is text."
        )
    encoded_bytes = pa.dictionary(pa.int32(), pa.binary())
    schema = pa.schema([(name, pa.string()) for name in columns] + [(names[column], encoded_bytes) for column in also])
    table = pa.Table.from_batches([pa.record_batch(part, schema=schema) for part in parts], schema)
    malformed.rows += rows.count + rows.swallowed
    malformed.count += rows.malformed.count
    for number, reason in rows.malformed.first:
        malformed.show(number, reason)
    return CsvTable(table, np.sort(np.array(rows.skipped + rows.removed, dtype=np.int64)), names)


def row_number(row: int, left_out: np.ndarray) -> int:
    """Returns the number in the file, from 1, of a table's row, from 0, if the rows `left_out` aren't in the table."""
    kept_before = left_out - 1 - np.arange(len(left_out))  # rows of the table before each row that was left out
    return int(row + 1 + np.searchsorted(kept_before, row, side="right"))


def may_hold_rows(column: pa.Array | pa.ChunkedArray, n_columns: int) -> np.ndarray:
    """Returns which texts of a column have enough line breaks for [`rows_inside`]."""
    return _counts(column, "\n") * (n_columns - 1) >= MANY_SEPARATORS


def _counts(column: pa.Array | pa.ChunkedArray, mark: str) -> np.ndarray:
    """Returns how often a mark is in each text of a column."""
    return pc.fill_null(pc.count_substring(column, mark), 0).to_numpy()


def all_lines_are_rows(text: str, separator: str, n_columns: int) -> bool:
    """Returns whether each line of a row's text has exactly as many cells as a row of the file.

    A cell that begins with a blank is evidence of prose, which has a blank after a comma.

    >>> all_lines_are_rows("u1,i1,A,1\\nu2,i2,B,2", ",", 4), all_lines_are_rows("u1,i1,1,A\\nwith B, C, and D", ",", 4)
    (True, False)
    """
    return all(line.count(separator) == n_columns - 1 and f"{separator} " not in line for line in text.splitlines())


def rows_inside(text: str, separator: str, n_columns: int, least: int = MANY_SEPARATORS) -> int:
    """Returns how many lines of a cell are rows of the file that an open quote has swallowed.

    These are all lines after the first, if most of them look like rows and hold at least `least` separators together.
    So lists and addresses are hardly ever taken for rows.
    """
    lines = text.splitlines()[1:]
    alike = sum(line.count(separator) == n_columns - 1 for line in lines)
    return len(lines) if 2 * alike > len(lines) and alike * (n_columns - 1) >= least else 0


@contextmanager
def _told_as_csv(path: Path) -> Iterator[None]:
    """Adds the file's name to errors that are raised while it is read."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError, UnicodeError, csv.Error) as error:
        raise ValueError(
            f"{path} can't be read as CSV: {error}; check --format, and that the file is whole and UTF-8."
        ) from error


def quoting_of(header: str, separator: str) -> Literal[0, 3]:
    """Returns whether quotes enclose cells (`csv.QUOTE_MINIMAL`) or are text (`csv.QUOTE_NONE`), given the first line.

    Between tabs they are text, unless each name in the header is in quotes, as programs for statistics write it.
    """
    cells = header.strip("\r\n").split(separator)
    enclose = separator != "\t" or all(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells)
    return csv.QUOTE_MINIMAL if enclose else csv.QUOTE_NONE


def _header(path: Path, separator: str) -> tuple[list[str], list[str], bool]:
    """Returns the cells of the first line that isn't empty, the names of the columns, and whether quotes enclose."""
    with io.TextIOWrapper(open_unpacked(path), "utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = (line for line in file if line.strip())
        first = next(lines, "")
        quoting = quoting_of(first, separator)
        header = next(csv.reader(chain([first], lines), delimiter=separator, quoting=quoting), [])
    # only the header is checked: bytes that aren't UTF-8 may be in columns that aren't read
    "".join(header).encode(errors="surrogateescape").decode()
    typed = map(TYPED.fullmatch, header)
    return header, [match[1] if match else name for match, name in zip(typed, header)], quoting == csv.QUOTE_MINIMAL


class _Marked:
    """A file for pyarrow without lines of blanks before its header, and with one more line at its end."""

    def __init__(self, file: io.BufferedReader, end: bytes):
        self.file, self.end, self.closed = file, end, False
        blank = BLANK_LINES.match(file.peek())
        file.read(blank.end() if blank else 0)

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        if not data:
            data, self.end = self.end, b""
        return data

    def close(self) -> None:
        self.file.close()
        self.closed = True


class _Rows:
    """One pass over the rows of a file, which counts rows and collects malformed ones.

    Args:
        path (`Path`): the file.
        separator (`str`): character between cells.
        header (`list[str]`): cells of the header.
        quotes (`bool`): whether quotes enclose cells, or are text.
    """

    def __init__(self, path: Path, separator: str, header: list[str], quotes: bool):
        self.path, self.separator, self.header, self.quotes = path, separator, header, quotes
        self.end = separator.join([END] * (len(header) + 1))
        self.ended = False
        self.kept = self.blank = 0  # rows with as many cells as the header, and lines of blanks
        self.swallowed = 0  # rows inside the quotes of other rows
        self.skipped = array("q")  # numbers of rows with more or fewer cells
        self.removed = array("q")  # numbers of other rows that hold swallowed rows
        self.malformed = Malformed(path, unit="row")

    @property
    def count(self) -> int:
        """Number of rows so far."""
        return self.kept + len(self.skipped)

    def batches(self, block: int, columns: list[int]) -> Iterator[pa.RecordBatch]:
        """Yields the rows that aren't malformed: columns at the given positions as text, others as bytes."""
        kinds = dict.fromkeys(self.header, pa.binary()) | {self.header[column]: pa.string() for column in columns}
        end = f"\n{self.end}\n".encode()
        # with several threads, pyarrow doesn't number rows
        read_options = pyarrow.csv.ReadOptions(use_threads=False, block_size=block)
        parse_options = pyarrow.csv.ParseOptions(
            delimiter=self.separator,
            quote_char='"' if self.quotes else False,
            newlines_in_values=self.quotes,
            invalid_row_handler=self._skip,
        )
        convert_options = pyarrow.csv.ConvertOptions(column_types=kinds, null_values=[""], strings_can_be_null=True)
        with (
            open_unpacked(self.path) as file,
            pyarrow.csv.open_csv(
                pa.PythonFile(_Marked(file, end), mode="r"), read_options, parse_options, convert_options
            ) as reader,
        ):
            for batch in reader:
                whole = self._without_rows_inside(batch) if self.quotes else batch
                self.kept += len(batch)
                yield whole

    def _skip(self, row: pyarrow.csv.InvalidRow) -> str:
        """Records a row with another number of cells than the header."""
        if row.text == self.end:
            self.ended = True
        elif not row.text.strip():
            self.blank += 1
        else:
            number = row.number - 1 - self.blank  # the header is number 1
            self.skipped.append(number)
            reason = f"{counted(row.actual_columns, 'cell')} instead of {row.expected_columns}"
            self._note(number, row.text, reason)
        return "skip"

    def _without_rows_inside(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Returns the rows of a batch that don't hold other rows of the file in quotes, and records those that do."""
        n_columns = len(self.header)
        breaks, separators = (
            np.sum([_counts(column, mark) for column in batch.columns], axis=0) for mark in ("\n", self.separator)
        )
        alike = (breaks > 0) & (separators == breaks * (n_columns - 1))  # as many as if each line were a row
        suspected = np.any([alike, *(may_hold_rows(column, n_columns) for column in batch.columns)], axis=0)
        for row in np.flatnonzero(suspected).tolist():
            cells = [column[row].as_py() or "" for column in batch.columns]
            texts = (cell if isinstance(cell, str) else cell.decode(errors="replace") for cell in cells)
            number = row_number(self.kept + row, np.array(self.skipped))
            suspected[row] = self._note(number, self.separator.join(texts), "")
            self.removed.extend([number] * int(suspected[row]))
        return batch.filter(pa.array(~suspected)) if suspected.any() else batch

    def _note(self, number: int, text: str, reason: str) -> bool:
        """Records a row if it is malformed, and returns whether it is."""
        n_columns, least = len(self.header), MANY_SEPARATORS
        if reason:
            least = 1  # in a row that is malformed anyway, one separator is evidence enough
        elif all_lines_are_rows(text, self.separator, n_columns):
            least = FEW_SEPARATORS
        inside = rows_inside(text, self.separator, n_columns, least)
        if inside:
            held = counted(inside, "line")
            reason = f"a quote that opens in it holds the next {held}: close it, or double it if it is text"
            self.swallowed += inside
        if reason:
            self.malformed.add(number, reason, 1 + inside)
        return bool(reason)
