"""Semantic embeddings that are read from disk as they are needed, instead of being kept in memory."""

import json
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open

from .checks import damaged
from .embedding_files import embeddings_of_column
from .folders import replace_file

ITEMS = "items/items.parquet"
MAPPED = ".mapped/embedding.safetensors"  # hidden, so that `datasets` and publishing ignore it
MADE_FROM = "made_from"
ROWS = 8_192  # rows that are read and checked together
PAGE = 4_096  # bytes before the rows, so that a row of 1,024 numbers lies in a single page
TAIL = 65_536  # last bytes of a parquet file, which hold its metadata: all of it for some hundred thousand rows


def items_file(folder: Path) -> Path:
    """Returns the file of a prepared dataset's items.

    Raises:
        FileNotFoundError: the folder doesn't exist, or isn't a prepared dataset.
    """
    if not folder.exists():
        raise FileNotFoundError(
            f"{str(folder)!r} doesn't exist; check the path, or make a prepared dataset with `etegrec prepare`."
        )
    if not (folder / ITEMS).is_file():
        raise FileNotFoundError(f"{str(folder)!r} isn't a prepared dataset; make one with `etegrec prepare`.")
    return folder / ITEMS


def mapped_embeddings(folder: str | Path) -> torch.FloatTensor:
    """Returns the semantic embeddings of a prepared dataset, memory-mapped from a file of their own.

    The file, `.mapped/embedding.safetensors`, is made from the table of items at the first call, and again if it is
    damaged or the table has changed. Making it takes little memory, and 4 bytes of disk per number. Only rows that are
    read come into memory, as pages that the system can drop at any time. Changes of the tensor aren't written to disk.

    Args:
        folder (`str` or `Path`): the dataset.

    Returns:
        `torch.FloatTensor` of shape `(n_items, width)`, in the order of items.

    Raises:
        FileNotFoundError: the folder isn't a prepared dataset.
        ValueError: the dataset has no embeddings.
        ValueError: embeddings that are empty, not finite or of different widths.
        OSError: the file can't be written.
    """
    items, path = items_file(Path(folder)), Path(folder, MAPPED)
    found = find_mapped_embeddings(folder)
    if found is not None:
        return found
    try:
        path.parent.mkdir(exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # other processes may make it at the same time
            found = find_mapped_embeddings(folder)
            if found is None:
                replace_file(path, lambda beside: _write(items, beside))
                found = find_mapped_embeddings(folder)
    except OSError as error:
        raise OSError(
            f"{str(path)!r} can't be written: {error}. Mapped embeddings take 4 bytes of disk per number: make room, "
            "copy the dataset to a folder where you may write, or read it without mapping."
        ) from error
    if found is None:
        raise ValueError(f"{str(items)!r} changed while its embeddings were read; try again when it is written.")
    return found


def find_mapped_embeddings(folder: str | Path) -> torch.FloatTensor | None:
    """Returns mapped embeddings if their file exists, is whole and was made from the current table of items."""
    try:
        with safe_open(Path(folder, MAPPED), "pt") as file:
            if (file.metadata() or {}).get(MADE_FROM) == _identity(Path(folder, ITEMS)):
                return file.get_tensor("embedding")
    except (FileNotFoundError, SafetensorError):
        pass
    return None


def _identity(path: Path) -> str:
    """Returns a text that identifies a parquet file: its length, time of writing and a hash of its metadata."""
    known = path.stat()
    with path.open("rb") as file:
        file.seek(max(0, known.st_size - TAIL))
        tail = blake2b(file.read(), digest_size=8).hexdigest()
    return f"{known.st_size} {known.st_mtime_ns} {tail}"


def _write(items: Path, path: Path) -> None:
    """Writes the column `embedding` of a parquet file as the tensor `embedding` of a safetensors file.

    The header is written here because `safetensors` can only write tensors that are in memory.
    """
    made_from = _identity(items)
    n_items, width = 0, None
    with path.open("wb") as file:
        file.seek(PAGE)
        for batch in _batches(items):
            column = pa.chunked_array([batch["embedding"]])
            values = embeddings_of_column(column, batch["item_id"].to_pylist(), items)
            width = width or values.shape[1]
            if values.shape[1] != width:
                widths = sorted((width, values.shape[1]))
                raise ValueError(f"the embeddings in {items} have the widths {widths}; all need the same width.")
            file.write(values.astype("<f4", copy=False).tobytes())
            n_items += len(values)
        tensor = {"dtype": "F32", "shape": [n_items, width], "data_offsets": [0, 4 * n_items * (width or 0)]}
        header = json.dumps({"__metadata__": {MADE_FROM: made_from}, "embedding": tensor})
        file.seek(0)
        file.write((PAGE - 8).to_bytes(8, "little") + header.ljust(PAGE - 8).encode())


def _batches(items: Path) -> Iterator[pa.RecordBatch]:
    """Yields the columns `item_id` and `embedding`, some rows at a time."""
    try:
        # without a buffer size, whole row groups would be read, and older files have a single one
        with pq.ParquetFile(items, pre_buffer=False, buffer_size=2**20) as table:
            if "embedding" not in table.schema_arrow.names:
                raise ValueError(
                    f"{str(items.parent.parent)!r} holds no `embedding`; make one with `etegrec embed`, or prepare "
                    "the log again with --embedding."
                )
            yield from table.iter_batches(ROWS, columns=["item_id", "embedding"])
    except (pa.ArrowException, OSError) as error:
        raise damaged(items, error) from error
