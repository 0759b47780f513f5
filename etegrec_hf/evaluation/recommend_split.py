"""Ranked items for a whole split."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch

from ..data.prepared import Split
from ..data.sequences import SequenceDataset
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from .seen import padded_rows


class RankedBatch(NamedTuple):
    """What is recommended for some rows of a split.

    Args:
        rows (`np.ndarray` of shape `(batch,)`): of the split.
        items (`np.ndarray` of shape `(batch, top_k)`): item indices, best first.
        scores (`np.ndarray` of shape `(batch, top_k)`): of these items.
    """

    rows: np.ndarray
    items: np.ndarray
    scores: np.ndarray


def recommend_split(
    model: ETEGRecForConditionalGeneration,
    split: Split,
    top_k: int = 50,
    num_beams: int = 50,
    batch_size: int = 64,
    seen: scipy.sparse.csr_matrix | None = None,
    advance: Callable[[int], object] = lambda users: None,
    rerank: float = 0.0,
    transitions: float = 0.0,
) -> np.ndarray:
    """Recommends for each row of a split, batched by length.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): in eval mode.
        split ([`Split`]): histories; its targets are not looked at.
        top_k, num_beams (`int`, *optional*, default to 50): as in `model.recommend`.
        batch_size (`int`, *optional*, defaults to 64): users at a time.
        seen (`scipy.sparse.csr_matrix`, *optional*): items to leave out, see [`seen_items`].
        advance (`Callable`, *optional*): is told a number of users whenever so many more are done.
        rerank, transitions (`float`, *optional*, default to 0.0): as in `model.recommend`.

    Returns:
        `np.ndarray` `[rows, top_k]` of item indices in the order of the split's rows. A row without a history keeps 0.
    """
    ranked = np.zeros((len(split), top_k), dtype=np.int64)
    for rows, items, _ in recommendations(
        model, split, top_k, num_beams, batch_size, seen, rerank=rerank, transitions=transitions
    ):
        ranked[rows] = items
        advance(len(rows))
    return ranked


def recommendations(
    model: ETEGRecForConditionalGeneration,
    split: Split,
    top_k: int,
    num_beams: int,
    batch_size: int,
    seen: scipy.sparse.csr_matrix | None = None,
    exclude_history: bool = False,
    rerank: float = 0.0,
    transitions: float = 0.0,
) -> Iterator[RankedBatch]:
    """Recommends for a split batch by batch, in the order of the histories' lengths.

    Args:
        model, split, top_k, num_beams, batch_size, seen: as in [`recommend_split`].
        exclude_history, rerank, transitions: as in `model.recommend`.

    Yields:
        [`RankedBatch`] of rows with a history.

    Raises:
        ValueError: no row has a history.
    """
    # all of a history is handed over where all of it is excluded, and not only what is read
    longest = int(np.diff(split.offsets).max()) if exclude_history else model.config.max_history
    dataset = SequenceDataset.for_evaluation(split, longest)
    for start in range(0, len(dataset), batch_size):
        chosen = list(range(start, min(start + batch_size, len(dataset))))
        rows = dataset.rows[chosen]
        history = dataset.__getitems__(chosen)["history"].to(model.device)
        exclude = None if seen is None else torch.from_numpy(padded_rows(seen[rows])).to(model.device)
        items, scores = model.recommend(
            **model.inputs_from_items(history),
            top_k=top_k,
            num_beams=num_beams,
            exclude=exclude,
            exclude_history=exclude_history,
            rerank=rerank,
            transitions=transitions,
        )
        yield RankedBatch(rows, items.cpu().numpy(), scores.cpu().numpy())
