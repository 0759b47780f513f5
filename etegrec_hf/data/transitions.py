"""Transitions: how strongly items come next to each other in training sequences."""

import numpy as np
import scipy.sparse
import torch

from .cooccurrence import cooccurrence_counts
from .prepared import PreparedDataset


def transition_weights(data: PreparedDataset) -> scipy.sparse.csr_array:
    """Returns how strongly each item (column) comes next to each item (row): `[n_items, n_items]`, items from 0.

    For items i, j at distance d = 1..3 in a training sequence, `C[i, j] += 1/d` and `C[j, i] += 0.3/d`;
    the weights are `N[i, j] = C[i, j] / sqrt(sum_j C[i, j])`.
    """
    forward = cooccurrence_counts(data.train.sequences - 1, data.train.offsets, data.n_items, window=3)
    counts = forward + 0.3 * forward.T
    totals = np.asarray(counts.sum(axis=1)).ravel()
    return (scipy.sparse.diags_array(1 / np.sqrt(np.maximum(totals, 1e-12))) @ counts).tocsr()


def strongest_transitions(data: PreparedDataset, count: int) -> tuple[torch.LongTensor, torch.FloatTensor]:
    """Returns the `count` largest [`transition_weights`] of each item, for `model.catalogue.set_transitions`.

    Returns:
        item indices from 1 and weights, both of shape `(n_items, count)`, the largest first; shorter rows are padded
        with 0.
    """
    items, weights = largest_of_rows(transition_weights(data), count)
    return torch.from_numpy(items), torch.from_numpy(weights)


def largest_of_rows(
    weights: scipy.sparse.csr_array | scipy.sparse.csr_matrix, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the `count` columns with the largest weights of each row; of equal weights the lower column comes first.

    Returns:
        columns counted from 1 and their weights (`float32`), both of shape `(rows, count)`, the largest first; shorter
        rows are padded with 0.
    """
    rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    order = np.lexsort((weights.indices, -weights.data, rows))
    place = np.arange(len(order)) - weights.indptr[rows]  # rows stay together, so a row's places start at its first
    best = order[place < count]
    columns = np.zeros((weights.shape[0], count), dtype=np.int64)
    kept = np.zeros((weights.shape[0], count), dtype=np.float32)
    where = rows[best], place[place < count]
    columns[where], kept[where] = weights.indices[best] + 1, weights.data[best]
    return columns, kept
