"""Delimited text as a table."""

from collections.abc import Callable, Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from .source import Malformed


def csv_table(
    path: Path,
    separator: str,
    malformed: Malformed,
    needed: Callable[[list[str]], list[str]],
    inferred: Callable[[list[str]], Collection[str | None]],
) -> pa.Table:
    """Reads columns of a delimited file with a header, plain or gzip.

    Args:
        path (`Path`): the file.
        separator (`str`): between cells.
        malformed ([`Malformed`]): takes the rows with another number of cells than the header.
        needed (`Callable`): of the header's names, those to read.
        inferred (`Callable`): of them, those whose type is inferred; the others are text, as it is written.

    Returns:
        `pa.Table`, with RecBole's `name:type` called `name`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it isn't such a file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is no file; check the path.")

    def skip(row) -> str:
        where = "a row" if row.number is None else f"row {row.number - 1}"  # the header is number 1
        malformed.add(where, f"{row.actual_columns} cells instead of {row.expected_columns}")
        return "skip"

    single = pyarrow.csv.ReadOptions(use_threads=False)  # with several, rows have no numbers
    plain_quotes = {"quote_char": False} if separator == "\t" else {}
    head = pyarrow.csv.ParseOptions(delimiter=separator, invalid_row_handler=lambda row: "skip", **plain_quotes)
    parsing = pyarrow.csv.ParseOptions(delimiter=separator, invalid_row_handler=skip, **plain_quotes)
    try:
        with pyarrow.csv.open_csv(path, read_options=single, parse_options=head) as reader:
            names = reader.schema.names
        name_of = {name.split(":")[0]: name for name in names}
        columns = needed(list(name_of))
        left = inferred(columns)
        converting = pyarrow.csv.ConvertOptions(
            include_columns=[name_of[name] for name in columns],
            column_types={name_of[name]: pa.string() for name in columns if name not in left},
            null_values=[""],
            strings_can_be_null=True,
        )
        table = pyarrow.csv.read_csv(path, read_options=single, parse_options=parsing, convert_options=converting)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} can't be read as CSV: {error}; check --format and the file.") from error
    malformed.rows = table.num_rows + malformed.count
    return table.rename_columns(columns)
