"""Which items come near each other in training sequences."""

import numpy as np
import scipy.sparse

from .embeddings import cooccurrence_counts


def transition_weights(sequences: np.ndarray, offsets: np.ndarray, n_items: int) -> scipy.sparse.csr_array:
    """How strongly each item (row) makes each other (column) come next: `[n_items, n_items]`, items from 0.

    For items i, j at distance d = 1..3 in a training sequence, `C[i, j] += 1/d` and `C[j, i] += 0.3/d`;
    the weights are `N[i, j] = C[i, j] / sqrt(sum_j C[i, j])`.

    Args:
        sequences (`np.ndarray` of shape `(n,)`): item indices from 1, users one after the other.
        offsets (`np.ndarray` of shape `(users + 1,)`): where each user's sequence starts.
        n_items (`int`): items of the catalogue.
    """
    forward = cooccurrence_counts(sequences - 1, offsets, n_items, window=3)
    counts = forward + 0.3 * forward.T
    totals = np.asarray(counts.sum(axis=1)).ravel()
    return (scipy.sparse.diags_array(1 / np.sqrt(np.maximum(totals, 1e-12))) @ counts).tocsr()


def largest_of_rows(weights: scipy.sparse.csr_array, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` columns with the largest weights of each row, ties by lower column.

    Args:
        weights (`scipy.sparse.csr_array` of shape `(rows, n_items)`): [`transition_weights`], or votes by them.
        count (`int`): items kept a row.

    Returns:
        item indices from 1 and their weights, both `[rows, count]`, the largest first; 0 where a row has fewer.
    """
    rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    order = np.lexsort((weights.indices, -weights.data, rows))
    place = np.arange(len(order)) - weights.indptr[rows]  # rows stay together, so a row's places start at its first
    best = order[place < count]
    items = np.zeros((weights.shape[0], count), dtype=np.int64)
    kept = np.zeros((weights.shape[0], count), dtype=np.float32)
    where = rows[best], place[place < count]
    items[where], kept[where] = weights.indices[best] + 1, weights.data[best]
    return items, kept
