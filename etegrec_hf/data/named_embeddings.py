"""Named item embeddings of a prepared dataset, and their fusion into the semantic embedding."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .checks import check_choice
from .embedding_files import check_embeddings, rows_by_id
from .folders import replace_file

METADATA = b"etegrec_hf"  # key of what a parquet file's schema tells beside its columns
NORMALIZATIONS = ("none", "l2", "standardize")


@dataclass(frozen=True)
class NamedEmbedding:
    """Embeddings of all items of a dataset.

    Args:
        name (`str`): see [`check_name`].
        values (`np.ndarray` of `float32`, shape `(n_items, width)`): a row per item; all 0 where nothing is known.
        made (`dict`): how, for whoever wants to repeat it.

    Raises:
        ValueError: another name.
    """

    name: str
    values: np.ndarray
    made: dict = field(default_factory=dict)

    def __post_init__(self):
        check_name(self.name)


def check_name(name: str) -> None:
    """Raises a `ValueError` unless an embedding, and its file, can be called so."""
    if not re.fullmatch(r"[\w-][\w.-]*", name) or name.endswith(".parquet"):
        raise ValueError(
            f"an embedding is named {name!r}; use letters, digits, '-', '_' and '.', and no ending '.parquet'."
        )


def fuse(parts: list[NamedEmbedding], normalize: str) -> NamedEmbedding:
    """The semantic embedding: the parts side by side, in their order.

    Args:
        parts (`list[NamedEmbedding]`): of the same items.
        normalize (`str`): `"none"`; `"l2"`, each item's part has length 1; `"standardize"`, each dimension has mean 0
            and variance 1 over the items that are known. Rows of 0 stay 0.

    Returns:
        `NamedEmbedding` `"embedding"`, with all parts' widths together, which says how it was made.

    Raises:
        ValueError: no part, one named twice, or another normalisation.

    Source: seed section 9.3.

    >>> fuse([NamedEmbedding("a", np.array([[3.0, 4.0]])), NamedEmbedding("b", np.array([[2.0]]))], "l2").values
    array([[0.6, 0.8, 1. ]], dtype=float32)
    """
    check_fusion([part.name for part in parts], normalize)
    values = np.concatenate([_normalized(part.values, normalize) for part in parts], axis=1)
    sources = [{"name": part.name, "width": part.values.shape[1], **part.made} for part in parts]
    return NamedEmbedding("embedding", values.astype(np.float32), {"parts": sources, "normalize": normalize})


def check_fusion(names: list[str], normalize: str) -> None:
    """Raises a `ValueError` for no part, one named twice, or another normalisation."""
    check_choice("normalize", normalize, NORMALIZATIONS)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"the semantic embedding is to be made of {names}; name one or more, each once.")


def _normalized(values: np.ndarray, normalize: str) -> np.ndarray:
    known = np.any(values, axis=1)
    if normalize == "none" or not known.any():
        return values
    values = values.astype(np.float64)
    if normalize == "l2":
        return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    mean, deviation = values[known].mean(axis=0), values[known].std(axis=0)
    # a dimension that is the same for all says nothing, whatever rounding leaves of its deviation
    scale = np.where(deviation > 1e-6 * np.abs(mean) + 1e-12, deviation, np.inf)
    return np.where(known[:, None], (values - mean) / scale, 0)


def describe(made: dict) -> str:
    """In a few words what [`fuse`] made a semantic embedding of."""
    parts = " + ".join(f"{part['name']} ({part['width']})" for part in made["parts"])
    return parts + {"none": "", "l2": ", each of length 1", "standardize": ", standardized"}[made["normalize"]]


def embedding_column(values: np.ndarray) -> pa.FixedSizeListArray:
    """Embeddings `[n, width]` as a column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32, copy=False).ravel()), values.shape[1])


def with_metadata(table: pa.Table, made: dict) -> pa.Table:
    """The table, which tells how its embedding was made."""
    return table.replace_schema_metadata((table.schema.metadata or {}) | {METADATA: json.dumps(made).encode()})


def metadata_of(table: pa.Table) -> dict:
    """What [`with_metadata`] wrote; empty for a table from elsewhere."""
    return json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))


def embedding_file(folder: Path, name: str) -> Path:
    """Where a dataset keeps the embedding of that name."""
    return folder / "embeddings" / f"{name}.parquet"


def embedding_names(folder: Path) -> list[str]:
    """Names of the embeddings that a dataset holds."""
    return sorted(path.stem for path in folder.glob("embeddings/*.parquet") if not path.name.startswith("."))


def write_embedding(folder: Path, part: NamedEmbedding, item_ids: list[str]) -> None:
    """Writes `embeddings/NAME.parquet`: `item_id`, `embedding`, and in the schema's metadata how it was made.

    Raises:
        ValueError: NaN or infinity in it.
    """
    check_embeddings(part.values, item_ids, Path(part.name))
    table = pa.table({"item_id": pa.array(item_ids, pa.string()), "embedding": embedding_column(part.values)})
    path = embedding_file(folder, part.name)
    path.parent.mkdir(exist_ok=True)
    replace_file(path, lambda beside: pq.write_table(with_metadata(table, part.made), beside))


def find_embedding(folder: Path, name: str) -> Path:
    """The file of a dataset's embedding of that name, or the `.parquet` file that `name` is.

    Raises:
        FileNotFoundError: neither exists.
    """
    path = Path(name) if name.endswith(".parquet") else embedding_file(folder, name)
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} has no embedding {name!r}, only {embedding_names(folder)}; make it with "
            "`etegrec embed`, or name a .parquet."
        )
    return path


def read_embedding(folder: Path, name: str, item_ids: list[str]) -> NamedEmbedding:
    """A dataset's embedding of that name, or one from a parquet file with `item_id` and `embedding`.

    Raises:
        FileNotFoundError: neither exists.
        ValueError: an item without an embedding, or a broken file.
    """
    path = find_embedding(folder, name)
    values = rows_by_id(path, item_ids)  # looks whether it is such a table
    made = metadata_of(pq.read_table(path, columns=["item_id"])) or {"file": path.name}
    return NamedEmbedding(re.sub(r"[^\w.-]+", "-", path.stem), values, made)
