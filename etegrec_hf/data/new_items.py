"""New items with embeddings, from a file or a dataset, that are added to a model's catalogue."""

from collections import Counter
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
from .wording import counted

logger = logging.get_logger(__name__)

# measured by adding noise to a model's embeddings: at a mean cosine of 0.8, two items in three keep their first code
LEAST_COSINE = 0.8
LEAST_SAME = 0.5  # smallest share of items with the same first code


@dataclass(frozen=True)
class NewItems:
    """Items to add to a catalogue.

    Args:
        item_ids (`list[str]`): distinct item ids.
        title_of (`dict[str, str]`): titles by item id, as far as they are known.
        embeddings (`np.ndarray` of `float32`, shape `(n, width)`): semantic embeddings of the items.
    """

    item_ids: list[str]
    title_of: dict[str, str]
    embeddings: np.ndarray


def read_new_items(path: Path) -> NewItems:
    """Reads a table of items with the columns `item_id` and `embedding`, and optionally `title`.

    Args:
        path (`Path`): a `.parquet` file, whose `embedding` holds lists of numbers; or a `.csv` file with a header,
            whose `embedding` holds JSON lists in quotes (`"[0.1, 0.2]"`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or a damaged one.
        ValueError: missing columns, or no rows.
        ValueError: empty or duplicate ids.
        ValueError: embeddings that are empty, not finite or of different widths, or that aren't lists of numbers.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise ValueError(f"`items` {str(path)!r} isn't a .parquet or .csv file, nor a prepared dataset; convert it.")
    if not path.is_file():
        raise FileNotFoundError(f"`items` {str(path)!r} isn't a file; check the path.")
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
        raise ValueError(
            f"{path} holds {counted(item_ids.count(None) + item_ids.count(''), 'empty item id')}; give each item an "
            "id."
        )
    if len(set(item_ids)) < len(item_ids):
        twice = next(item_id for item_id, count in Counter(item_ids).items() if count > 1)
        raise ValueError(
            f"{path} holds {counted(len(item_ids) - len(set(item_ids)), 'duplicate item id')}, first {twice!r}; keep "
            "one row per item."
        )
    titles = table["title"].to_pylist() if "title" in table.column_names else []
    named = ((item_id, text_of(title)) for item_id, title in zip(item_ids, titles))
    title_of = {item_id: title for item_id, title in named if title}
    return NewItems(item_ids, title_of, embeddings_of_column(table["embedding"], item_ids, path))


def _read_csv(path: Path) -> pa.Table:
    """Reads all columns as text; empty cells are null."""
    malformed = Malformed(path, unit="row")
    separator = find_separator(path, lambda names: {"item_id", "embedding"} <= set(names))
    table = csv_table(path, separator, malformed, lambda names: list(dict.fromkeys(names))).table
    if malformed.count:
        raise ValueError(f"{malformed}; repair them.")
    return table


def add_items_of(data: PreparedDataset, model: ETEGRecForConditionalGeneration, tokenizer: ETEGRecTokenizer) -> None:
    """Adds a dataset's items to a model and its tokenizer, unless the model already knows them.

    Raises:
        ValueError: the dataset has no embeddings.
        ValueError: the errors of [`add_new_items`].
    """
    if data.embeddings is None:
        raise ValueError(
            "`add_items` needs the new items' embeddings, but the dataset has none; prepare it with embeddings."
        )
    add_new_items(NewItems(data.item_ids, data.title_of, data.embeddings), model, tokenizer)


def add_new_items(items: NewItems, model: ETEGRecForConditionalGeneration, tokenizer: ETEGRecTokenizer) -> int:
    """Adds items to a model and its tokenizer, unless the model already knows them.

    Embeddings of known items are only compared with the model's own embeddings, see [`check_made_alike`].

    Args:
        items ([`NewItems`]): new items; known items may be among them.
        model ([`ETEGRecForConditionalGeneration`]): a model with an item tokenizer.
        tokenizer ([`ETEGRecTokenizer`]): the model's tokenizer.

    Returns:
        `int`: number of items that were added.

    Raises:
        ValueError: embeddings of another width than the model's.
        ValueError: embeddings made in another way than the model's.
        ValueError: the errors of `model.add_items`.
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
                f"the embeddings of the new items have width {width}, but the model reads width {reads}; make them in "
                "the same way as the embeddings that the model was trained on."
            )
        where = torch.tensor([index_of[items.item_ids[row]] for row in known], dtype=torch.long)
        check_made_alike(model, where, torch.from_numpy(items.embeddings[known]))
    model.add_items([items.item_ids[row] for row in new], torch.from_numpy(items.embeddings[new]), tokenizer)
    return len(new)


def check_made_alike(
    model: ETEGRecForConditionalGeneration, items: torch.LongTensor, embeddings: torch.FloatTensor
) -> None:
    """Compares embeddings of known items with the embeddings that a model was trained on.

    Embeddings pass if their mean cosine is at least 0.8 and the item tokenizer gives at least half of the items the
    same first code. The codes also reveal embeddings of another length. For a model without embeddings only codes are
    compared. If there is nothing to compare, a warning is logged.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): a model with an item tokenizer.
        items (`torch.LongTensor` of shape `(n,)`): indices of known items.
        embeddings (`torch.FloatTensor` of shape `(n, input_size)`): their embeddings; rows of 0 don't count.

    Raises:
        ValueError: embeddings made in another way than the model's.
    """
    catalogue, item_tokenizer = model.catalogue, model.item_tokenizer
    known = embeddings.any(dim=1)
    own = None if catalogue.semantic_embedding is None else catalogue.semantic_embedding[items].float().cpu()
    if own is not None:
        known &= own.any(dim=1)
        own = own[known]
    items, embeddings = items[known], embeddings[known]
    # with two codes per item, the first may have been changed to make codes unique: alone it tells nothing
    if not len(items) or (own is None and model.config.code_length == 2):
        logger.warning(
            "The model has no embedding of any of these items, so it can't be checked whether the embeddings were "
            "made in the same way as the model's. To have them checked, give some items that the model knows as well."
        )
        return
    codes = catalogue.item_codes.cpu()[items - 1] if own is None else item_tokenizer.encode(own).cpu()
    same = (item_tokenizer.encode(embeddings).cpu()[:, 0] == codes[:, 0]).float().mean().item()
    cosine = None if own is None else F.cosine_similarity(own, embeddings).mean().item()
    if same < LEAST_SAME or (cosine is not None and cosine < LEAST_COSINE):
        figures = [f"{same:.0%} of them get the same first code (at least {LEAST_SAME:.0%} should)"]
        if cosine is not None:
            figures.insert(
                0, f"the mean cosine of both embeddings is {cosine:.3f} (at least {LEAST_COSINE} is needed)"
            )
        raise ValueError(
            f"the embeddings were made in another way than the model's: of {counted(len(items), 'item')} that "
            f"both have, {', and '.join(figures)}; embed all items with the encoder and normalization that the model "
            "was trained with. Collaborative embeddings of another log are never alike: take those of the model's own "
            "data, or train a new model."
        )
