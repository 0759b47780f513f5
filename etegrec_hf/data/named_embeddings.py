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

METADATA = b"etegrec_hf"  # key of our metadata in a parquet file's schema
NORMALIZATIONS = ("none", "l2", "standardize")


@dataclass(frozen=True)
class NamedEmbedding:
    """Embeddings of all items of a dataset.

    Args:
        name (`str`): name of the embedding, see [`check_name`].
        values (`np.ndarray` of `float32`, shape `(n_items, width)`): one row per item; a row of 0 for an item without
            an embedding.
        made (`dict`): description of how it was made, with which it can be made again.

    Raises:
        ValueError: a name that [`check_name`] refuses.
    """

    name: str
    values: np.ndarray
    made: dict = field(default_factory=dict)

    def __post_init__(self):
        check_name(self.name)


def check_name(name: str) -> None:
    """Raises a `ValueError` unless `name` can be the name of an embedding and of its file."""
    if not re.fullmatch(r"[\w-][\w.-]*", name) or name.endswith(".parquet"):
        raise ValueError(
            f"an embedding is named {name!r}; use letters, digits, '-', '_' and '.', without the ending '.parquet'."
        )


def fuse(parts: list[NamedEmbedding], normalize: str) -> NamedEmbedding:
    """Concatenates embeddings to the semantic embedding, in their order.

    Args:
        parts (`list[NamedEmbedding]`): embeddings of the same items.
        normalize (`str`): normalisation of each part: `"none"`; `"l2"`, each row has length 1; `"standardize"`, each
            dimension has mean 0 and variance 1 over the rows that aren't 0. Rows of 0 stay 0.

    Returns:
        [`NamedEmbedding`] with the name `"embedding"`, whose width is the sum of the parts' widths.

    Raises:
        ValueError: no part, or two parts of the same name.
        ValueError: another normalisation.

    Source: specification, section 9.3.

    >>> fuse([NamedEmbedding("a", np.array([[3.0, 4.0]])), NamedEmbedding("b", np.array([[2.0]]))], "l2").values
    array([[0.6, 0.8, 1. ]], dtype=float32)
    """
    check_fusion([part.name for part in parts], normalize)
    values = np.concatenate([_normalized(part.values, normalize) for part in parts], axis=1)
    sources = [{"name": part.name, "width": part.values.shape[1], **part.made} for part in parts]
    return NamedEmbedding("embedding", values.astype(np.float32), {"parts": sources, "normalize": normalize})


def check_fusion(names: list[str], normalize: str) -> None:
    """Raises a `ValueError` for no part, two parts of the same name, or another normalisation."""
    check_choice("normalize", normalize, NORMALIZATIONS)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"the semantic embedding is to be made of {names}; name at least one embedding, each once.")


def _normalized(values: np.ndarray, normalize: str) -> np.ndarray:
    known = np.any(values, axis=1)
    if normalize == "none" or not known.any():
        return values
    values = values.astype(np.float64)
    if normalize == "l2":
        return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    mean, deviation = values[known].mean(axis=0), values[known].std(axis=0)
    # a dimension that is the same for all becomes 0, even if rounding leaves a tiny deviation
    scale = np.where(deviation > 1e-6 * np.abs(mean) + 1e-12, deviation, np.inf)
    return np.where(known[:, None], (values - mean) / scale, 0)


def describe(made: dict) -> str:
    """Describes in a few words the parts of a semantic embedding that [`fuse`] made."""
    parts = " + ".join(f"{part['name']} ({part['width']})" for part in made["parts"])
    return parts + {"none": "", "l2": ", each of length 1", "standardize": ", standardized"}[made["normalize"]]


def embedding_column(values: np.ndarray) -> pa.FixedSizeListArray:
    """Converts embeddings `[n, width]` to a column of lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32, copy=False).ravel()), values.shape[1])


def with_metadata(table: pa.Table, made: dict) -> pa.Table:
    """Returns the table with metadata that describe how its embedding was made."""
    return table.replace_schema_metadata((table.schema.metadata or {}) | {METADATA: json.dumps(made).encode()})


def metadata_of(table: pa.Table) -> dict:
    """Returns the description that [`with_metadata`] wrote; empty for other tables."""
    return json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))


def embedding_file(folder: Path, name: str) -> Path:
    """Returns the path of a dataset's embedding of that name."""
    return folder / "embeddings" / f"{name}.parquet"


def embedding_names(folder: Path) -> list[str]:
    """Returns the names of the embeddings that a dataset holds."""
    return sorted(path.stem for path in folder.glob("embeddings/*.parquet") if not path.name.startswith("."))


def write_embedding(folder: Path, part: NamedEmbedding, item_ids: list[str]) -> None:
    """Writes `embeddings/NAME.parquet` with `item_id` and `embedding`, and as metadata how it was made.

    Raises:
        ValueError: NaN or infinity.
    """
    check_embeddings(part.values, item_ids, Path(part.name))
    table = pa.table({"item_id": pa.array(item_ids, pa.string()), "embedding": embedding_column(part.values)})
    path = embedding_file(folder, part.name)
    path.parent.mkdir(exist_ok=True)
    replace_file(path, lambda beside: pq.write_table(with_metadata(table, part.made), beside))


def find_embedding(folder: Path, name: str) -> Path:
    """Returns the path of a dataset's embedding of that name, or `name` itself if it is a `.parquet` file.

    Raises:
        FileNotFoundError: no such embedding and no such file.
    """
    path = Path(name) if name.endswith(".parquet") else embedding_file(folder, name)
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} has no embedding {name!r}, only {embedding_names(folder)}; make it with "
            "`etegrec embed`, or name a .parquet file."
        )
    return path


def read_embedding(folder: Path, name: str, item_ids: list[str]) -> NamedEmbedding:
    """Reads a dataset's embedding of that name, or one from a parquet file with `item_id` and `embedding`.

    Raises:
        FileNotFoundError: no such embedding and no such file.
        ValueError: an item without an embedding.
        ValueError: a damaged file.
    """
    path = find_embedding(folder, name)
    values = rows_by_id(path, item_ids)  # also checks the columns
    made = metadata_of(pq.read_table(path, columns=["item_id"])) or {"file": path.name}
    return NamedEmbedding(re.sub(r"[^\w.-]+", "-", path.stem), values, made)
