"""Writers of tables as parquet, CSV or JSON lines, chosen by a file's ending."""

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

TABLE_ENDINGS = (".parquet", ".csv", ".jsonl")


def check_ending(name: str | Path, endings: tuple[str, ...], option: str = "output") -> None:
    """Checks that a file's ending is one of those that can be written.

    Raises:
        ValueError: another ending, or none.
    """
    if Path(name).suffix not in endings:
        *others, last = endings
        wanted = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(
            f"`{option}` is {str(name)!r}; name a file that ends in {wanted}: the ending chooses the format."
        )


def write_tables(path: Path, ending: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Writes the rows of several tables into one file, as parquet, CSV or JSON lines.

    Args:
        path (`Path`): the file; its own ending has no effect.
        ending (`str`): format, one of `TABLE_ENDINGS`. In a CSV, lists are written as JSON.
        schema (`pa.Schema`): schema of all tables.
        tables (`Iterable[pa.Table]`): tables, in the order of their rows in the file.
    """
    if ending == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            for table in tables:
                file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in table.to_pylist())
    elif ending == ".csv":
        texts = pa.schema(
            [(field.name, pa.string() if pa.types.is_list(field.type) else field.type) for field in schema]
        )
        with pa.csv.CSVWriter(path, texts) as writer:
            for table in tables:
                writer.write_table(pa.table([_as_json(column) for column in table.columns], schema=texts))
    else:
        with pq.ParquetWriter(path, schema) as writer:
            for table in tables:
                writer.write_table(table)


def _as_json(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    if not pa.types.is_list(column.type):
        return column
    return pa.array([json.dumps(cell, ensure_ascii=False) for cell in column.to_pylist()], pa.string())
