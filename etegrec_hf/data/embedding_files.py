"""Semantic embeddings of items, read from a file: every kind of it, and every kind of damage."""

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

LFS_POINTER = b"version https://git-lfs"


def read_embeddings(
    path: Path, item_ids: list[str], rows: np.ndarray, n_rows: int, padded: bool = False
) -> np.ndarray:
    """Reads the items' embeddings from a file, in the order of `item_ids`.

    Args:
        path (`Path`): an `.npy` array or a `.safetensors` file with the tensor `embedding`; or a parquet table with
            the columns `item_id` and `embedding`, in any order, with at least `item_ids`.
        item_ids (`list[str]`): items that filtering left.
        rows (`np.ndarray` of shape `(n_items,)`): each item's row in an array or tensor.
        n_rows (`int`): rows that an array or tensor must have.
        padded (`bool`, *optional*, defaults to `False`): whether row 0 stands for padding, which may also be left out.

    Returns:
        `np.ndarray` `[n_items, width]` of `float32`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a damaged one, duplicate ids, items without an embedding, wrong shapes, NaN
            or infinity.
    """
    if path.suffix not in (".npy", ".safetensors", ".parquet"):
        near = get_close_matches(str(path), ["cooccurrence"], n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "convert it, or use 'cooccurrence'."
        raise ValueError(f"embedding {str(path)!r} is no .npy, .safetensors or .parquet file; {remedy}")
    if not path.is_file():
        raise FileNotFoundError(f"embedding {str(path)!r} is no file; check the path.")
    if path.suffix == ".parquet":
        return rows_by_id(path, item_ids)
    embeddings = read_array(path) if path.suffix == ".npy" else read_tensor(path)
    if padded and embeddings.shape[:1] == (n_rows - 1,):
        rows, n_rows = rows - 1, n_rows - 1
    if embeddings.ndim != 2 or len(embeddings) != n_rows or not embeddings.shape[1]:
        raise ValueError(
            f"the embedding in {path} has shape {embeddings.shape}; expected ({n_rows}, width), a row "
            "for each item of the log as it was read, in the order of first rows in it (letter: of item numbers; "
            "etegrec: of emb_map.json, perhaps after a row for padding); or give a .parquet with the columns "
            "`item_id` and `embedding`."
        )
    return check_embeddings(embeddings[rows], item_ids, path)


def read_array(path: str | Path) -> np.ndarray:
    """The numbers of an `.npy` file. Pickled objects are never loaded.

    Raises:
        ValueError: the file is damaged, or holds something else than one array of numbers.
    """
    try:
        with Path(path).open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TokenError, TypeError, MemoryError) as error:  # of odd headers too
        raise ValueError(
            f"{str(path)!r} {what_is_wrong(path)} or holds pickled objects, which are never loaded; copy it again, or "
            "save an array of numbers with `np.save`."
        ) from error
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{str(path)!r} holds {array.dtype}; save an array of numbers, like float32.")
    return array


def read_tensor(path: str | Path) -> np.ndarray:
    """The tensor `embedding` of a `.safetensors` file as `float32`, whatever numbers it is of.

    Raises:
        ValueError: the file is damaged, has no such tensor, or one that isn't of real numbers.
    """
    try:
        with safe_open(path, "pt") as file:
            if "embedding" not in file.keys():  # noqa: SIM118 - no mapping
                raise ValueError(f"{path} holds the tensors {sorted(file.keys())}; name the one to use `embedding`.")
            tensor = file.get_tensor("embedding")
        if tensor.is_complex():
            raise ValueError(f"the tensor `embedding` in {path} holds {tensor.dtype}; save real numbers.")
        return tensor.float().numpy()
    except (SafetensorError, RuntimeError, AttributeError) as error:  # also of numbers that torch doesn't know
        raise ValueError(
            f"{str(path)!r} {what_is_wrong(path)} or holds numbers of a kind that can't be read ({error}); copy it "
            "again, or save it as float32."
        ) from error


def read_parquet(path: Path) -> pa.Table:
    """A parquet file, all of it.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        table = pyarrow.parquet.read_table(path)
        table.validate(full=True)  # looks at texts
        _ = table.column_names  # decodes them
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} {what_is_wrong(path)} ({error}); copy it again, or make it anew.") from error
    return table


def what_is_wrong(path: str | Path) -> str:
    """Returns of a file that no reader understands whether it is empty, a Git LFS pointer, or else damaged."""
    with Path(path).open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        return "is a Git LFS pointer and not the file itself (`git lfs pull` gets it),"
    return "is damaged" if start else "is empty,"


def rows_by_id(path: Path, item_ids: list[str]) -> np.ndarray:
    """Embeddings `[n_items, width]` of `item_ids` from a parquet table with the columns `item_id` and `embedding`.

    Raises:
        ValueError: a damaged file, other columns, duplicate ids, items without an embedding, NaN or infinity.
    """
    table = read_parquet(path)
    if not {"item_id", "embedding"} <= set(table.column_names):
        raise ValueError(f"{path} has the columns {table.column_names}; name those to use `item_id` and `embedding`.")
    ids = ids_as_text(table["item_id"], "item_id", path)
    row_of = {item_id: row for row, item_id in enumerate(ids.to_pylist())}
    if len(row_of) != table.num_rows:
        raise ValueError(f"{path} holds {table.num_rows - len(row_of)} duplicate item ids; keep one row per item.")
    missing = [item_id for item_id in item_ids if item_id not in row_of]
    if missing:
        raise ValueError(
            f"{len(missing)} items have no embedding in {path}, first {missing[0]!r}; add them or drop "
            "their interactions."
        )
    return embeddings_of_column(table["embedding"].take([row_of[item_id] for item_id in item_ids]), item_ids, path)


def embeddings_of_column(column: pa.ChunkedArray, item_ids: list[str], path: Path) -> np.ndarray:
    """A column of lists as `[n_items, width]` of `float32`, checked by [`check_embeddings`].

    Raises:
        ValueError: something else than lists of numbers, lists of several widths, or [`check_embeddings`] raises.
    """
    column = lists_of_numbers(column, path)
    widths = pc.unique(pc.list_value_length(column).drop_null()).to_pylist()
    if len(widths) != 1 or not widths[0]:
        raise ValueError(
            f"the embeddings in {path} have the widths {sorted(widths)}; all rows need the same, above 0."
        )
    embeddings = np.full((len(column), *widths), np.nan, dtype=np.float32)
    embeddings[column.is_valid().to_numpy()] = pc.list_flatten(column).to_numpy().reshape(-1, *widths)
    return check_embeddings(embeddings, item_ids, path)


def lists_of_numbers(column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    """A column of lists of numbers, which may be written as JSON.

    Raises:
        ValueError: it holds something else.
    """
    needed = f"the column `embedding` of {path} holds {{}}; it needs lists of numbers, as text in JSON: [0.1, 0.2]."
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
    """The embeddings `[n_items, width]` as `float32`, if each is finite.

    Raises:
        ValueError: NaN, which also stands for nothing, or infinity.
    """
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is found
        embeddings = embeddings.astype(np.float32, copy=False)
    broken = ~np.isfinite(embeddings).all(axis=1)
    if broken.any():
        raise ValueError(
            f"{broken.sum()} embeddings in {path} hold nothing, NaN or infinity, first that of item "
            f"{item_ids[broken.argmax()]!r}; give these items others and prepare again."
        )
    return embeddings
