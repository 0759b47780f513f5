"""Delimited text as a table."""

import csv
import re
from array import array
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from .lines import is_gzip, raw_lines
from .source import Malformed

TYPED = re.compile(r"(.+):(token|token_seq|float|float_seq)")  # a column of RecBole's atomic files


def csv_table(
    path: Path,
    separator: str,
    malformed: Malformed,
    needed: Callable[[list[str]], list[str]],
    inferred: Callable[[list[str]], Collection[str | None]],
) -> tuple[pa.Table, np.ndarray]:
    """Reads columns of a delimited file with a header, plain or gzip.

    Cells may be in quotes and hold line breaks, but not where tabs separate them: quotes are text there.

    Args:
        path (`Path`): the file.
        separator (`str`): between cells.
        malformed ([`Malformed`]): takes the rows with another number of cells than the header, and the number of rows.
        needed (`Callable`): of the header's names, those to read.
        inferred (`Callable`): of them, those whose type is inferred; the others are text, as it is written.

    Returns:
        `pa.Table`, with RecBole's `name:type` called `name`; and `np.ndarray` of `int64`, the numbers of the rows that
        were left out. Rows are numbered from 1, without the header and without empty lines.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it isn't such a file.
    """
    skipped = array("q")

    def skip(row) -> str:
        skipped.append(row.number - 1)  # the header is number 1
        malformed.add(skipped[-1], f"{row.actual_columns} cells instead of {row.expected_columns}")
        return "skip"

    quotes = separator != "\t"
    try:
        header = _header(path, separator, quotes)
        typed = [TYPED.fullmatch(name) for name in header]
        names = [match[1] for match in typed if match] if all(typed) else header
        columns = needed(names)
        left = inferred(columns)
        in_file = dict(zip(reversed(names), reversed(header)))  # the first of several of one name
        table = pyarrow.csv.read_csv(
            pa.input_stream(str(path), compression="gzip" if is_gzip(path) else None),
            read_options=pyarrow.csv.ReadOptions(use_threads=False),  # with several threads rows have no numbers
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=separator,
                quote_char='"' if quotes else False,
                newlines_in_values=quotes,
                invalid_row_handler=skip,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=[in_file[name] for name in columns],
                column_types={in_file[name]: pa.string() for name in columns if name not in left},
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} can't be read as CSV: {error}; check --format, and that the file is whole and UTF-8."
        ) from error
    malformed.rows += table.num_rows + len(skipped)
    return table.rename_columns(columns), np.array(skipped, dtype=np.int64)


def _header(path: Path, separator: str, quotes: bool) -> list[str]:
    """The cells of the first line that holds any."""
    lines = (line.decode("utf-8-sig") for line in raw_lines(path) if line.strip())
    return next(csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE), [])
