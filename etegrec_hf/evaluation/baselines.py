"""Baselines that any recommender should beat, measured on the same split by the same metrics."""

from collections.abc import Callable

import numpy as np
import scipy.sparse
import torch
from transformers import GPT2LMHeadModel

from ..data.prepared import PreparedDataset, Split
from ..data.transitions import largest_of_rows, transition_weights
from ..models.item_transitions import RECENT, recent_items
from .collaborative import rank_split
from .metrics import KS, metrics_of_systems
from .seen import seen_items

LISTED = max(KS)  # items per list; shorter lists are padded with 0
CHUNK = 1024  # rows whose votes are held in memory at a time
SCORES = 2**25  # scores that are held in memory at a time


def popularity(data: PreparedDataset, split: Split, seen: scipy.sparse.csr_matrix | None = None) -> np.ndarray:
    """Returns the items most frequent in training, the same for all users unless seen items are left out.

    Args:
        data ([`PreparedDataset`]): the dataset whose training sequences are counted.
        split ([`Split`]): the rows to make lists for.
        seen (`scipy.sparse.csr_matrix`, *optional*): items to leave out, see [`seen_items`].

    Returns:
        `np.ndarray` of shape `(rows, listed)`: item indices; of equally frequent items the lower index comes first.
    """
    ranked = np.argsort(-data.item_counts[1:], kind="stable")
    if seen is None:
        listed = np.zeros(LISTED, dtype=np.int64)
        listed[: data.n_items] = ranked[:LISTED] + 1
        return np.broadcast_to(listed, (len(split), LISTED))
    most = LISTED + int(np.diff(seen.indptr).max(initial=0))  # enough items for a user who has seen the first ones
    # scores fall from place to place, so that every list keeps the one order
    places = -np.arange(len(ranked[:most]), dtype=np.float32)
    candidates = seen[:, ranked[:most]]
    best = _rank_rows(
        lambda start, end: torch.from_numpy(np.tile(places, (end - start, 1))), len(places), len(split), candidates
    )
    return np.where(best > 0, ranked[best - 1] + 1, 0)


def transitions(data: PreparedDataset, split: Split, seen: scipy.sparse.csr_matrix | None = None) -> np.ndarray:
    """Returns the items that most strongly followed or preceded the recent items in training.

    A user's last 10 items vote: item i, the k-th newest from 0, gives `N[i, :] * 0.7**k`, N being
    [`transition_weights`]. Items are ranked by the sum of votes; of items with equal votes the lower index comes
    first.

    Args:
        data ([`PreparedDataset`]): the dataset whose training sequences are counted.
        split ([`Split`]): the rows to make lists for.
        seen (`scipy.sparse.csr_matrix`, *optional*): items to leave out, see [`seen_items`].

    Returns:
        `np.ndarray` of shape `(rows, listed)`: item indices; lists with fewer voted items are padded with 0.
    """
    weights = transition_weights(data)
    recent = _recent(split, data.n_items)
    ranked = []
    for start in range(0, len(split), CHUNK):
        votes = (recent[start : start + CHUNK] @ weights).tocsr()
        if seen is not None:
            votes = votes - votes.multiply(seen[start : start + CHUNK])
        votes.eliminate_zeros()
        ranked.append(largest_of_rows(votes, LISTED)[0])
    return np.concatenate(ranked)


def nearest_neighbours(
    embeddings: np.ndarray, data: PreparedDataset, split: Split, seen: scipy.sparse.csr_matrix | None = None
) -> np.ndarray:
    """Returns the items nearest to the recent items by cosine.

    A user's last 10 items have weights: `0.7**k` for the k-th newest from 0. Items are ranked by the weighted sum of
    their cosines with these. Items without an embedding (all zero) neither count nor are listed.

    Args:
        embeddings (`np.ndarray` of shape `(n_items, width)`): embeddings of the items.
        data ([`PreparedDataset`]): the dataset of the items.
        split ([`Split`]): the rows to make lists for.
        seen (`scipy.sparse.csr_matrix`, *optional*): items to leave out, see [`seen_items`].

    Returns:
        `np.ndarray` of shape `(rows, listed)`: item indices; shorter lists are padded with 0.
    """
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    directions = (embeddings / np.maximum(norms, 1e-12)).astype(np.float32)
    wanted = torch.from_numpy(_recent(split, data.n_items) @ directions).float()  # [rows, width]
    items, unknown = torch.from_numpy(directions), torch.from_numpy(norms[:, 0] == 0)

    def scores(start: int, end: int) -> torch.Tensor:
        of_rows = wanted[start:end] @ items.T
        nothing_known = ~wanted[start:end].any(dim=1, keepdim=True)
        return of_rows.masked_fill(unknown | nothing_known, -torch.inf)

    return _rank_rows(scores, data.n_items, len(split), seen)


def baseline_lists(
    data: PreparedDataset,
    split: Split,
    embeddings: dict[str, np.ndarray] | None = None,
    collaborative_model: GPT2LMHeadModel | None = None,
    exclude_seen: bool = False,
) -> dict[str, np.ndarray]:
    """Returns the lists of all baselines for a split, by name.

    Args:
        data ([`PreparedDataset`]): the dataset whose training sequences are counted.
        split ([`Split`]): the rows to make lists for.
        embeddings (`dict[str, np.ndarray]`, *optional*): item embeddings `[n_items, width]` by name; each makes a
            nearest-neighbour baseline.
        collaborative_model (`GPT2LMHeadModel`, *optional*): model of the baseline SASRec, see
            [`load_collaborative_model`].
        exclude_seen (`bool`, *optional*, defaults to `False`): whether items that the user has seen are left out.

    Returns:
        `dict`: by name an `np.ndarray` of shape `(rows, listed)`: item indices.
    """
    seen = seen_items(data, split) if exclude_seen else None
    ranked = {"popularity": popularity(data, split, seen), "transitions": transitions(data, split, seen)}
    for name, values in (embeddings or {}).items():
        ranked[f"k-NN, {name}"] = nearest_neighbours(values, data, split, seen)
    if collaborative_model is not None:
        ranked["SASRec"] = rank_split(collaborative_model, split, LISTED, seen)
    return ranked


def baselines(
    data: PreparedDataset,
    split: Split,
    embeddings: dict[str, np.ndarray] | None = None,
    collaborative_model: GPT2LMHeadModel | None = None,
    exclude_seen: bool = False,
) -> dict[str, dict[str, float]]:
    """Returns the metrics of all baselines on a split, by name; arguments as in [`baseline_lists`]."""
    lists = baseline_lists(data, split, embeddings, collaborative_model, exclude_seen)
    return metrics_of_systems(lists, split.targets)


def _recent(split: Split, n_items: int) -> scipy.sparse.csr_matrix:
    """Returns the weights of each row's last items, `[rows, n_items]`."""
    position = split.offsets[1:, None] - 1 - np.arange(RECENT, 0, -1)  # the last items before each target
    exists = position >= split.offsets[:-1, None]
    history = np.where(exists, split.sequences[np.where(exists, position, 0)], 0)  # [rows, 10], oldest first
    items, weights = (part.numpy() for part in recent_items(torch.from_numpy(history), torch.float64))
    rows, places = items.nonzero()
    return scipy.sparse.csr_matrix((weights[rows, places], (rows, items[rows, places] - 1)), (len(split), n_items))


def _rank_rows(
    scores: Callable[[int, int], torch.Tensor], n_items: int, n_rows: int, seen: scipy.sparse.csr_matrix | None
) -> np.ndarray:
    """Ranks items by dense scores, as many rows at a time as memory allows.

    Args:
        scores (`Callable`): function from `start` and `end` to the scores `[end - start, n_items]` of these rows;
            the scores are changed in place.
        n_items, n_rows (`int`): numbers of columns and rows.
        seen (`scipy.sparse.csr_matrix` of shape `(n_rows, n_items)`, *optional*): items to leave out.

    Returns:
        `np.ndarray` of shape `(n_rows, LISTED)`: indices of items with a score above -inf; shorter lists are padded
        with 0.
    """
    ranked = np.zeros((n_rows, LISTED), dtype=np.int64)
    at_once = max(1, SCORES // n_items)
    for start in range(0, n_rows, at_once):
        end = min(start + at_once, n_rows)
        of_rows = scores(start, end)
        if seen is not None:
            rows, items = seen[start:end].nonzero()
            of_rows[torch.from_numpy(rows).long(), torch.from_numpy(items).long()] = -torch.inf
        best = of_rows.topk(min(LISTED, n_items))
        found = torch.where(best.values > -torch.inf, best.indices + 1, 0)
        ranked[start:end, : found.shape[1]] = found.numpy()
    return ranked
