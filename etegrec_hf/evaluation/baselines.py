"""Untrained baselines that any recommender should beat."""

import numpy as np
import scipy.sparse

from ..data.embeddings import cooccurrence_counts
from ..data.prepared import PreparedDataset, Split
from .metrics import KS, ranking_metrics


def _ranked(votes: scipy.sparse.csr_matrix, listed: int) -> np.ndarray:
    """The `listed` columns with most votes of each row as item indices, ties by lower column, 0 where no votes are."""
    ranked = np.zeros((votes.shape[0], listed), dtype=np.int64)
    for row, (start, end) in enumerate(zip(votes.indptr, votes.indptr[1:])):
        columns, values = votes.indices[start:end], votes.data[start:end]
        best = np.lexsort((columns, -values))[:listed]
        ranked[row, : len(best)] = columns[best] + 1
    return ranked


def popularity(data: PreparedDataset, split: Split) -> dict[str, float]:
    """Metrics of recommending everybody the items most frequent in training."""
    counts = np.bincount(data.train.sequences, minlength=data.n_items + 1)[1:]
    ranked = np.argsort(-counts, kind="stable")[: max(KS)] + 1
    return ranking_metrics(np.broadcast_to(ranked, (len(split), len(ranked))), split.targets)


def transitions(data: PreparedDataset, split: Split) -> dict[str, float]:
    """Metrics of item-to-item transition counts.

    For items i, j at distance d = 1..3 in a training sequence, `C[i, j] += 1/d` and `C[j, i] += 0.3/d`;
    `N[i, j] = C[i, j] / sqrt(sum_j C[i, j])`. A user's last 10 items, newest first, vote with `N[i, :] * 0.7**k`.
    Items are ranked by votes, ties by item index, and items without a vote are not recommended.
    """
    n = data.n_items
    forward = cooccurrence_counts(data.train.sequences - 1, data.train.offsets, n, window=3)
    counts = (forward + 0.3 * forward.T).tocsr()
    totals = np.asarray(counts.sum(axis=1)).ravel()
    normed = scipy.sparse.diags_array(1 / np.sqrt(np.maximum(totals, 1e-12))).tocsr() @ counts

    history_end = split.offsets[1:] - 2  # position of each row's newest item
    age = np.arange(10)
    position = history_end[:, None] - age
    exists = position >= split.offsets[:-1, None]
    users = np.broadcast_to(np.arange(len(split))[:, None], position.shape)[exists]
    weights = np.broadcast_to(0.7**age, position.shape)[exists]
    recent = scipy.sparse.csr_matrix((weights, (users, split.sequences[position[exists]] - 1)), shape=(len(split), n))
    votes = [_ranked((recent[start : start + 1024] @ normed).tocsr(), max(KS)) for start in range(0, len(split), 1024)]
    return ranking_metrics(np.concatenate(votes), split.targets)


def baselines(data: PreparedDataset, split: Split) -> dict[str, dict[str, float]]:
    """Metrics of all baselines on a split, by name."""
    return {"popularity": popularity(data, split), "transitions": transitions(data, split)}
