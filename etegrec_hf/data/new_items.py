"""Items with embeddings from a file or a dataset, for a catalogue that grows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch

from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.tokenization_etegrec import ETEGRecTokenizer
from .embedding_files import embeddings_of_column, read_parquet
from .prepared import PreparedDataset
from .sources.columns import ids_as_text


@dataclass(frozen=True)
class NewItems:
    """Items to add to a catalogue.

    Args:
        item_ids (`list[str]`): each once.
        title_of (`dict[str, str]`): item id to title, where one is known.
        embeddings (`np.ndarray` of `float32`, shape `(n, width)`): their semantic embeddings.
    """

    item_ids: list[str]
    title_of: dict[str, str]
    embeddings: np.ndarray


def read_new_items(path: Path) -> NewItems:
    """Reads a table of items: the columns `item_id` and `embedding`, and maybe `title`.

    Args:
        path (`Path`): a `.parquet`, whose `embedding` is a list of numbers, or a `.csv` with a header, where it is
            written as a JSON list (`"[0.1, 0.2]"`, in quotes).

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a damaged one, missing columns, no rows, ids that are empty or there twice,
            or embeddings that are no lists of numbers, of several widths, empty, NaN or infinite.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise ValueError(f"`items` {str(path)!r} is no .parquet or .csv file and no prepared dataset; convert it.")
    if not path.is_file():
        raise FileNotFoundError(f"`items` {str(path)!r} is no file; check the path.")
    try:
        table = read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read: {error}; copy it again or convert it.") from error
    absent = [name for name in ("item_id", "embedding") if name not in table.column_names]
    if absent:
        raise ValueError(
            f"{path} has no column {absent[0]!r}, only {table.column_names}; it needs `item_id` and `embedding`, and "
            "may have `title`."
        )
    item_ids = ids_as_text(table["item_id"], "item_id", path).to_pylist()
    if not item_ids:
        raise ValueError(f"{path} holds no items; give one row per item.")
    if not all(item_ids):
        raise ValueError(f"{item_ids.count(None) + item_ids.count('')} item ids in {path} are empty; give them ids.")
    if len(set(item_ids)) < len(item_ids):
        raise ValueError(
            f"{path} holds {len(item_ids) - len(set(item_ids))} duplicate item ids; keep one row per item."
        )
    titles = table["title"].to_pylist() if "title" in table.column_names else []
    title_of = {item_id: str(title) for item_id, title in zip(item_ids, titles) if title}
    return NewItems(item_ids, title_of, embeddings_of_column(table["embedding"], item_ids, path))


def _read_csv(path: Path) -> pa.Table:
    """All columns as they are written, and empty ones as nothing."""
    with pyarrow.csv.open_csv(path) as reader:
        names = reader.schema.names
    options = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
    )
    return pyarrow.csv.read_csv(
        path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True), convert_options=options
    )


def add_items_of(data: PreparedDataset, model: ETEGRecForConditionalGeneration, tokenizer: ETEGRecTokenizer) -> None:
    """Adds the items that only a dataset has to a model and its tokenizer.

    Raises:
        ValueError: the dataset has no embeddings.
        ValueError: what `model.add_items` raises.
    """
    if data.embeddings is None:
        raise ValueError(
            "`add_items` needs the new items' embeddings, and the dataset has none; prepare it with some."
        )
    catalogue = set(tokenizer.item_ids)
    rows = [row for row, item_id in enumerate(data.item_ids) if item_id not in catalogue]
    if rows:
        model.add_items([data.item_ids[row] for row in rows], torch.from_numpy(data.embeddings[rows]), tokenizer)
