"""Recommendations for all rows of a split."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch

from ..data.prepared import Split
from ..data.sequences import SequenceDataset
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.search import reading_of, search
from ..models.search_options import SearchOptions
from .row_constraints import RowConstraints
from .seen import padded_rows

RANKED = SearchOptions(top_k=50, num_beams=50)


@dataclass(frozen=True)
class HistoryBatch:
    """Histories of some rows of a split, which have similar lengths.

    Args:
        rows (`np.ndarray` of shape `(batch,)`): numbers of the rows.
        inputs (`dict[str, torch.LongTensor]`): `input_ids` and `attention_mask`.
        exclude (`torch.LongTensor` of shape `(batch, n)`, *optional*): item indices to leave out, padded with 0.
    """

    rows: np.ndarray
    inputs: dict[str, torch.LongTensor]
    exclude: torch.LongTensor | None


@dataclass(frozen=True)
class RankedRows:
    """Recommendations for some rows of a split.

    Args:
        rows (`np.ndarray` of shape `(batch,)`): numbers of the rows.
        items (`np.ndarray` of shape `(batch, top_k)`): item indices, best first.
        scores (`np.ndarray` of shape `(batch, top_k)`): scores of the items, as in `model.recommend`.
    """

    rows: np.ndarray
    items: np.ndarray
    scores: np.ndarray


def recommend_split(
    model: ETEGRecForConditionalGeneration,
    split: Split,
    options: SearchOptions = RANKED,
    batch_size: int = 64,
    seen: scipy.sparse.csr_matrix | None = None,
    advance: Callable[[int], object] = lambda users: None,
) -> np.ndarray:
    """Recommends items for each row of a split, in batches of similar length.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): a model in eval mode.
        split ([`Split`]): histories; its targets aren't read.
        options ([`SearchOptions`], *optional*): options of the search; by default lists of 50 items with 50 beams.
        batch_size (`int`, *optional*, defaults to 64): users per batch.
        seen (`scipy.sparse.csr_matrix`, *optional*): items to leave out, see [`seen_items`].
        advance (`Callable`, *optional*): function that is called with the number of users in each finished batch.

    Returns:
        `np.ndarray` of shape `(rows, top_k)`: item indices in the order of the split's rows; 0 in rows without a
        history.
    """
    ranked = np.zeros((len(split), options.top_k), dtype=np.int64)
    for batch in recommendations(model, split, options, batch_size, RowConstraints(exclude=seen)):
        ranked[batch.rows] = batch.items
        advance(len(batch.rows))
    return ranked


def recommendations(
    model: ETEGRecForConditionalGeneration,
    split: Split,
    options: SearchOptions,
    batch_size: int,
    constraints: RowConstraints,
) -> Iterator[RankedRows]:
    """Recommends items for a split batch by batch, in the order of the histories' lengths.

    Args:
        model, split, options, batch_size: as in [`recommend_split`].
        constraints ([`RowConstraints`]): the items that the rows may get.

    Yields:
        [`RankedRows`]. Rows without a history are left out. Rows that may get no item have index 0.

    Raises:
        ValueError: no row has a history.
    """
    # with `exclude_history` the whole history is passed on, as more items are excluded than are read
    is_excluded = options.for_model(model).exclude_history
    longest = int(np.diff(split.offsets).max()) if is_excluded else model.config.max_history
    leaf_items = model.catalogue.trie.leaf_items.cpu().numpy()
    for batch in history_batches(model, split, longest, batch_size):
        for part, excluded, choice in constraints.parts(batch.rows):
            rows = batch.rows[part]
            if choice is not None and not np.isin(choice, leaf_items).any():
                shape = (len(rows), options.top_k)
                yield RankedRows(rows, np.zeros(shape, np.int64), np.full(shape, -np.inf, np.float32))
                continue
            exclude, allowed = (
                None if items is None else torch.from_numpy(items).to(model.device) for items in (excluded, choice)
            )
            inputs = {name: tensor[part] for name, tensor in batch.inputs.items()}
            beam = search(reading_of(model, **inputs), options, exclude, allowed)
            yield RankedRows(rows, beam.items.cpu().numpy(), beam.scores.cpu().numpy())


def history_batches(
    model: ETEGRecForConditionalGeneration,
    split: Split,
    longest: int,
    batch_size: int,
    seen: scipy.sparse.csr_matrix | None = None,
) -> Iterator[HistoryBatch]:
    """Reads the histories of a split batch by batch, in the order of their lengths.

    Args:
        model, split, batch_size, seen: as in [`recommend_split`].
        longest (`int`): number of a history's last items that are kept.

    Yields:
        [`HistoryBatch`]. Rows without a history are left out.

    Raises:
        ValueError: no row has a history.
    """
    dataset = SequenceDataset.for_evaluation(split, longest)
    for start in range(0, len(dataset), batch_size):
        chosen = list(range(start, min(start + batch_size, len(dataset))))
        rows = dataset.rows[chosen]
        history = dataset.__getitems__(chosen)["history"].to(model.device)
        exclude = None if seen is None else torch.from_numpy(padded_rows(seen[rows])).to(model.device)
        yield HistoryBatch(rows, model.catalogue.inputs_from_items(history), exclude)
