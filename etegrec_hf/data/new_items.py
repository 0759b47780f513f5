"""Items with embeddings from a file or a dataset, for a catalogue that grows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from transformers.utils import logging

from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.tokenization_etegrec import ETEGRecTokenizer
from .embedding_files import embeddings_of_column, read_parquet
from .prepared import PreparedDataset
from .sources.columns import ids_as_text
from .sources.csv_table import csv_table, find_separator
from .sources.source import Malformed
from .sources.values import text_of

logger = logging.get_logger(__name__)

# Measured by adding noise to a model's embeddings: at a mean cosine of 0.8, two items of three keep their first code
LEAST_COSINE = 0.8
LEAST_SAME = 0.5  # share of items with the same first code


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
    except pa.ArrowException as error:
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
    named = ((item_id, text_of(title)) for item_id, title in zip(item_ids, titles))
    title_of = {item_id: title for item_id, title in named if title}
    return NewItems(item_ids, title_of, embeddings_of_column(table["embedding"], item_ids, path))


def _read_csv(path: Path) -> pa.Table:
    """All columns as they are written, and empty ones as nothing."""
    malformed = Malformed(path, unit="row")
    separator = find_separator(path, lambda names: {"item_id", "embedding"} <= set(names))
    table = csv_table(path, separator, malformed, lambda names: list(dict.fromkeys(names))).table
    if malformed.count:
        raise ValueError(f"{malformed}; repair them.")
    return table


def add_items_of(data: PreparedDataset, model: ETEGRecForConditionalGeneration, tokenizer: ETEGRecTokenizer) -> None:
    """Adds the items that only a dataset has to a model and its tokenizer.

    Raises:
        ValueError: the dataset has no embeddings.
        ValueError: what [`add_new_items`] raises.
    """
    if data.embeddings is None:
        raise ValueError(
            "`add_items` needs the new items' embeddings, and the dataset has none; prepare it with some."
        )
    add_new_items(NewItems(data.item_ids, data.title_of, data.embeddings), model, tokenizer)


def add_new_items(items: NewItems, model: ETEGRecForConditionalGeneration, tokenizer: ETEGRecTokenizer) -> int:
    """Adds the items that a model doesn't know to it and its tokenizer, by embeddings like those that it knows.

    Embeddings of items that the model knows are compared with its own, see [`check_made_alike`], and go no further.

    Args:
        items ([`NewItems`]): with items that the model knows, or without.
        model ([`ETEGRecForConditionalGeneration`]): with an item tokenizer.
        tokenizer ([`ETEGRecTokenizer`]): the model's.

    Returns:
        how many were added.

    Raises:
        ValueError: embeddings of another width, or made otherwise than those of the model.
        ValueError: what `model.add_items` raises.
    """
    index_of = {item_id: index for index, item_id in enumerate(tokenizer.item_ids, start=1)}
    known = [row for row, item_id in enumerate(items.item_ids) if item_id in index_of]
    new = [row for row, item_id in enumerate(items.item_ids) if item_id not in index_of]
    if not new:
        return 0
    if model.item_tokenizer is not None:
        width, reads = items.embeddings.shape[1], model.item_tokenizer.config.input_size
        if width != reads:
            raise ValueError(
                f"the embeddings of the new items have width {width} and the model reads {reads}; make them as those "
                "that it was trained on were made."
            )
        where = torch.tensor([index_of[items.item_ids[row]] for row in known], dtype=torch.long)
        check_made_alike(model, where, torch.from_numpy(items.embeddings[known]))
    model.add_items([items.item_ids[row] for row in new], torch.from_numpy(items.embeddings[new]), tokenizer)
    return len(new)


def check_made_alike(
    model: ETEGRecForConditionalGeneration, items: torch.LongTensor, embeddings: torch.FloatTensor
) -> None:
    """Compares embeddings of items that a model knows with those that it was trained on.

    They are alike if their mean cosine is 0.8 or more and the item tokenizer gives half of the items or more the same
    first code, which also tells embeddings of another length apart. A model that holds no embeddings is asked for
    codes alone. A warning says if there is nothing to compare.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): with an item tokenizer.
        items (`torch.LongTensor` of shape `(n,)`): item indices.
        embeddings (`torch.FloatTensor` of shape `(n, input_size)`): their embeddings; items whose embedding is 0 don't
            count.

    Raises:
        ValueError: they aren't alike.
    """
    catalogue, item_tokenizer = model.catalogue, model.item_tokenizer
    known = embeddings.any(dim=1)
    own = None if catalogue.semantic_embedding is None else catalogue.semantic_embedding[items].float().cpu()
    if own is not None:
        known &= own.any(dim=1)
        own = own[known]
    items, embeddings = items[known], embeddings[known]
    # the only code before a suffix can have been moved, so that without embeddings it tells nothing
    if not len(items) or (own is None and model.config.code_length == 2):
        logger.warning(
            "The model knows none of these items by an embedding, so nothing tells whether their embeddings were made "
            "like its own. They are compared where a dataset holds items that it knows, too."
        )
        return
    codes = catalogue.item_codes.cpu()[items - 1] if own is None else item_tokenizer.encode(own).cpu()
    same = (item_tokenizer.encode(embeddings).cpu()[:, 0] == codes[:, 0]).float().mean().item()
    cosine = None if own is None else F.cosine_similarity(own, embeddings).mean().item()
    if same < LEAST_SAME or (cosine is not None and cosine < LEAST_COSINE):
        figures = [f"{same:.0%} of them get the model's first code (at least {LEAST_SAME:.0%} should)"]
        if cosine is not None:
            figures.insert(0, f"their mean cosine with the model's is {cosine:.3f} (at least {LEAST_COSINE})")
        raise ValueError(
            f"the embeddings were made otherwise than the model's: of {len(items)} items that both know, "
            f"{', and '.join(figures)}; embed all items as those that the model was trained on, with its "
            "encoder and normalization."
        )
