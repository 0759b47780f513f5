"""Readers of semantic embeddings in `.npy`, `.safetensors` and `.parquet` files, with checks for damage."""

import json
from difflib import get_close_matches
from pathlib import Path
from tokenize import TokenError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from safetensors import SafetensorError, safe_open

from .sources.columns import ids_as_text, is_text
from .wording import counted

COOCCURRENCE = "cooccurrence"  # an embedding that is made of the log, instead of a file
LFS_POINTER = b"version https://git-lfs"


def check_embedding_file(path: Path) -> None:
    """Checks that a path is that of a file of embeddings, without reading it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file.
    """
    if path.suffix not in (".npy", ".safetensors", ".parquet"):
        near = get_close_matches(str(path), [COOCCURRENCE], n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"convert it, or use {COOCCURRENCE!r}."
        raise ValueError(f"embedding {str(path)!r} isn't a .npy, .safetensors or .parquet file; {remedy}")
    if not path.is_file():
        raise FileNotFoundError(f"embedding {str(path)!r} isn't a file; check the path.")


def read_embeddings(
    path: Path, item_ids: list[str], rows: np.ndarray, n_rows: int, padded: bool = False
) -> np.ndarray:
    """Reads the items' embeddings from a file, in the order of `item_ids`.

    Args:
        path (`Path`): an `.npy` array or a `.safetensors` file with the tensor `embedding`; or a parquet table with
            the columns `item_id` and `embedding`, in any order, with at least `item_ids`.
        item_ids (`list[str]`): ids of the items that remain after filtering.
        rows (`np.ndarray` of shape `(n_items,)`): each item's row in an array or tensor.
        n_rows (`int`): number of rows that an array or tensor must have.
        padded (`bool`, *optional*, defaults to `False`): whether row 0 is padding, which the file may also leave out.

    Returns:
        `np.ndarray` of `float32` and shape `(n_items, width)`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or a damaged one.
        ValueError: duplicate ids, or items without an embedding.
        ValueError: a wrong shape, NaN or infinity.
    """
    check_embedding_file(path)
    if path.suffix == ".parquet":
        return rows_by_id(path, item_ids)
    embeddings = read_array(path) if path.suffix == ".npy" else read_tensor(path)
    if padded and embeddings.shape[:1] == (n_rows - 1,):
        rows, n_rows = rows - 1, n_rows - 1
    if embeddings.ndim != 2 or len(embeddings) != n_rows or not embeddings.shape[1]:
        raise ValueError(
            f"the embedding in {path} has shape {embeddings.shape}; expected ({n_rows}, width): one row per item "
            "of the unfiltered log, in the order in which items first occur (format letter: in the order of item "
            "numbers; format etegrec: in the order of emb_map.json, with or without a first row for padding); or give "
            "a .parquet with the columns `item_id` and `embedding`."
        )
    return check_embeddings(embeddings[rows], item_ids, path)


def read_array(path: str | Path) -> np.ndarray:
    """Reads the numbers of an `.npy` file. Pickled objects are never loaded.

    Raises:
        ValueError: the file is damaged, or doesn't hold one array of numbers.
    """
    try:
        with Path(path).open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TokenError, TypeError, MemoryError) as error:  # odd headers raise many
        raise ValueError(
            f"{str(path)!r} {what_is_wrong(path)} or holds pickled objects, which are never loaded; copy it again, or "
            "save an array of numbers with `np.save`."
        ) from error
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{str(path)!r} holds {array.dtype}; save an array of numbers, such as float32.")
    return array


def read_tensor(path: str | Path) -> np.ndarray:
    """Reads the tensor `embedding` of a `.safetensors` file, of any dtype, as `float32`.

    Raises:
        ValueError: the file is damaged.
        ValueError: the file has no such tensor, or one of complex numbers.
    """
    try:
        with safe_open(path, "pt") as file:
            if "embedding" not in file.keys():  # noqa: SIM118 - it isn't a mapping
                raise ValueError(
                    f"{path} holds the tensors {sorted(file.keys())}; rename the one to use to `embedding`."
                )
            tensor = file.get_tensor("embedding")
        if tensor.is_complex():
            raise ValueError(f"the tensor `embedding` in {path} holds {tensor.dtype}; save real numbers.")
        return tensor.float().numpy()
    except (SafetensorError, RuntimeError, AttributeError) as error:  # also for dtypes that torch doesn't know
        raise ValueError(
            f"{str(path)!r} {what_is_wrong(path)} or holds numbers of a type that can't be read ({error}); copy it "
            "again, or save it as float32."
        ) from error


def read_parquet(path: Path) -> pa.Table:
    """Reads a whole parquet file.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        table = pyarrow.parquet.read_table(path)
        table.validate(full=True)  # checks texts
        _ = table.column_names  # decodes names, which may fail
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} {what_is_wrong(path)} ({error}); copy it again, or make it again.") from error
    return table


def what_is_wrong(path: str | Path) -> str:
    """Says of an unreadable file whether it is empty, a Git LFS pointer or damaged."""
    with Path(path).open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        return "is a Git LFS pointer and not the file itself (`git lfs pull` downloads it),"
    return "is damaged" if start else "is empty,"


def rows_by_id(path: Path, item_ids: list[str]) -> np.ndarray:
    """Reads embeddings `[n_items, width]` of `item_ids` from a parquet file with `item_id` and `embedding`.

    Raises:
        ValueError: a damaged file, or other columns.
        ValueError: duplicate ids, or items without an embedding.
        ValueError: NaN or infinity.
    """
    table = read_parquet(path)
    if not {"item_id", "embedding"} <= set(table.column_names):
        raise ValueError(
            f"{path} has the columns {table.column_names}; rename those to use to `item_id` and `embedding`."
        )
    ids = ids_as_text(table["item_id"], "item_id", path)
    row_of = {item_id: row for row, item_id in enumerate(ids.to_pylist())}
    if len(row_of) != table.num_rows:
        raise ValueError(
            f"{path} holds {counted(table.num_rows - len(row_of), 'duplicate item id')}; keep one row per item."
        )
    missing = [item_id for item_id in item_ids if item_id not in row_of]
    if missing:
        raise ValueError(
            f"{counted(len(missing), 'item has', 'items have')} no embedding in {path}, first {missing[0]!r}; add "
            "embeddings or drop the items' interactions."
        )
    return embeddings_of_column(table["embedding"].take([row_of[item_id] for item_id in item_ids]), item_ids, path)


def embeddings_of_column(column: pa.ChunkedArray, item_ids: list[str], path: Path) -> np.ndarray:
    """Converts a column of lists to an array `[n_items, width]` of `float32`, and checks it.

    Raises:
        ValueError: anything other than lists of numbers.
        ValueError: lists of different lengths.
        ValueError: the errors of [`check_embeddings`].
    """
    column = lists_of_numbers(column, path)
    widths = pc.unique(pc.list_value_length(column).drop_null()).to_pylist()
    if len(widths) != 1 or not widths[0]:
        raise ValueError(
            f"the embeddings in {path} have the widths {sorted(widths)}; all rows need the same width, above 0."
        )
    embeddings = np.full((len(column), *widths), np.nan, dtype=np.float32)
    embeddings[column.is_valid().to_numpy()] = pc.list_flatten(column).to_numpy().reshape(-1, *widths)
    return check_embeddings(embeddings, item_ids, path)


def lists_of_numbers(column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    """Returns a column of lists of numbers, given such a column or one of lists written as JSON text.

    Raises:
        ValueError: anything other than lists of numbers.
    """
    needed = f"the column `embedding` of {path} holds {{}}; give lists of numbers, or JSON text such as [0.1, 0.2]."
    if is_text(column.type):
        try:
            cells = [None if cell is None else json.loads(cell) for cell in column.to_pylist()]
            column = pa.chunked_array([pa.array(cells, pa.list_(pa.float32()))])
        except (ValueError, TypeError, pa.ArrowException) as error:
            raise ValueError(needed.format("other text")) from error
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not (is_list and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))):
        raise ValueError(needed.format(kind))
    return column


def check_embeddings(embeddings: np.ndarray, item_ids: list[str], path: Path) -> np.ndarray:
    """Returns the embeddings `[n_items, width]` as `float32`, after a check that all numbers are finite.

    Raises:
        ValueError: NaN (also in place of a missing embedding) or infinity.
    """
    with np.errstate(over="ignore"):  # numbers too large for float32 become infinite, and are found below
        embeddings = embeddings.astype(np.float32, copy=False)
    broken = ~np.isfinite(embeddings).all(axis=1)
    if broken.any():
        count = broken.sum()
        verbs = "is missing or holds" if count == 1 else "are missing or hold"
        raise ValueError(
            f"{counted(count, 'embedding')} in {path} {verbs} NaN or infinity, first that of item "
            f"{item_ids[broken.argmax()]!r}; repair them and prepare again."
        )
    return embeddings
