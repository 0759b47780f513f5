"""Hashes of the contents of logs, which tell whether two logs are the same."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from ..checks import check_named
from ..fingerprint import hash_of
from .tables import InMemory, table_in_memory

CHUNK = 1 << 20  # bytes that are read together
# endings of files that readers read; an ending of packing may follow
ENDINGS = {".csv", ".tsv", ".txt", ".dat", ".data", ".item", ".json", ".jsonl", ".parquet", ".arrow", ".inter"}


def contents_of(log: "str | Path | InMemory") -> str:
    """Returns a log's name with a hash of its contents, or only the id of a data set on the Hub.

    The hash of a folder covers the files whose endings a reader knows, except those in folders of runs of `fit`.

    Raises:
        ValueError: an empty path, or neither a path nor a table.
    """
    if not isinstance(log, (str, Path)):
        table = table_in_memory(log)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as stream:
            stream.write_table(table.replace_schema_metadata(None).combine_chunks())
        return f"a {type(log).__name__} of {len(table)} rows, contents {hash_of([sink.getvalue()])}"
    path = check_named("path", log)
    if not path.exists():
        return str(log)
    if path.is_file():
        return f"{path.resolve()}, contents {hash_of(_chunks(path))}"
    return f"{path.resolve()}, contents {hash_of(_parts(path))}"


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _parts(folder: Path) -> Iterator[bytes]:
    """Yields the names and contents of the files of a folder."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not (path / "fit.json").is_file():
            yield from _parts(path)
        elif path.is_file() and ENDINGS & {suffix.lower() for suffix in path.suffixes[-2:]}:
            yield f"{path.name}\0{path.stat().st_size}\0".encode()
            yield from _chunks(path)
