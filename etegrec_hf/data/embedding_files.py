"""Semantic embeddings of items: made from co-occurrence, or read from a file."""

from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from safetensors.numpy import load_file


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
        ValueError: another kind of file, duplicate ids, items without an embedding, wrong shapes, NaN or infinity.
    """
    if path.suffix not in (".npy", ".safetensors", ".parquet"):
        near = get_close_matches(str(path), ["cooccurrence"], n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "convert it, or use 'cooccurrence'."
        raise ValueError(f"embedding {str(path)!r} is no .npy, .safetensors or .parquet file; {remedy}")
    if not path.is_file():
        raise FileNotFoundError(f"embedding {str(path)!r} is no file; check the path.")
    if path.suffix == ".parquet":
        return rows_by_id(path, item_ids)
    if path.suffix == ".npy":
        embeddings = np.load(path, allow_pickle=False)
    else:
        tensors = load_file(path)
        if "embedding" not in tensors:
            raise ValueError(f"{path} holds the tensors {sorted(tensors)}; name the one to use `embedding`.")
        embeddings = tensors["embedding"]
    if padded and len(embeddings) == n_rows - 1:
        rows, n_rows = rows - 1, n_rows - 1
    if embeddings.ndim != 2 or len(embeddings) != n_rows:
        raise ValueError(
            f"the embedding in {path} has shape {embeddings.shape}; expected ({n_rows}, width), a row "
            "for each item of the log as it was read, in the order of first rows in it (letter: of item numbers; "
            "etegrec: of emb_map.json, perhaps after a row for padding); or give a .parquet with the columns "
            "`item_id` and `embedding`."
        )
    return check_embeddings(embeddings[rows], item_ids, path)


def rows_by_id(path: Path, item_ids: list[str]) -> np.ndarray:
    """Embeddings `[n_items, width]` of `item_ids` from a parquet table with the columns `item_id` and `embedding`.

    Raises:
        ValueError: other columns, duplicate ids, items without an embedding, NaN or infinity.
    """
    table = pyarrow.parquet.read_table(path)
    if not {"item_id", "embedding"} <= set(table.column_names):
        raise ValueError(f"{path} has the columns {table.column_names}; name those to use `item_id` and `embedding`.")
    row_of = {str(item_id): row for row, item_id in enumerate(table["item_id"].to_pylist())}
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
        ValueError: lists of several widths, and what [`check_embeddings`] raises.
    """
    widths = pc.unique(pc.list_value_length(column).drop_null()).to_pylist()
    if len(widths) != 1:
        raise ValueError(f"the embeddings in {path} have the widths {sorted(widths)}; all rows need the same.")
    embeddings = np.full((len(column), *widths), np.nan, dtype=np.float32)
    embeddings[column.is_valid().to_numpy()] = pc.list_flatten(column).to_numpy().reshape(-1, *widths)
    return check_embeddings(embeddings, item_ids, path)


def check_embeddings(embeddings: np.ndarray, item_ids: list[str], path: Path) -> np.ndarray:
    """The embeddings `[n_items, width]` as `float32`, if each is finite.

    Raises:
        ValueError: NaN, which also stands for nothing, or infinity.
    """
    embeddings = embeddings.astype(np.float32, copy=False)
    broken = ~np.isfinite(embeddings).all(axis=1)
    if broken.any():
        raise ValueError(
            f"{broken.sum()} embeddings in {path} hold nothing, NaN or infinity, first that of item "
            f"{item_ids[broken.argmax()]!r}; give these items others and prepare again."
        )
    return embeddings
