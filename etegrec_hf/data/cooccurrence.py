"""Counts of items that occur near each other in training sequences, and embeddings made from these counts."""

import numpy as np
import scipy.sparse
from sklearn.decomposition import TruncatedSVD


def cooccurrence_counts(
    sequences: np.ndarray, offsets: np.ndarray, n_items: int, window: int
) -> scipy.sparse.csr_matrix:
    """Counts how often items occur near each other, weighted by 1 / distance.

    Args:
        sequences (`np.ndarray` of shape `(n,)`): numbers of items from 0, user after user.
        offsets (`np.ndarray` of shape `(users + 1,)`): start of each user's sequence.
        n_items (`int`): number of items in the catalogue.
        window (`int`): largest distance that counts.

    Returns:
        `scipy.sparse.csr_matrix` of shape `(n_items, n_items)`: counts from the earlier item (row) to the later one.
    """
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    counts = scipy.sparse.csr_matrix((n_items, n_items))
    for distance in range(1, window + 1):
        together = user[distance:] == user[:-distance]
        earlier, later = sequences[:-distance][together], sequences[distance:][together]
        weights = np.full(len(earlier), 1 / distance)
        counts = counts + scipy.sparse.coo_matrix((weights, (earlier, later)), shape=(n_items, n_items)).tocsr()
    return counts


def cooccurrence_embedding(
    sequences: np.ndarray, offsets: np.ndarray, n_items: int, width: int = 256, window: int = 5, seed: int = 0
) -> np.ndarray:
    """Computes item embeddings by a truncated SVD of the items' positive pointwise mutual information.

    Args:
        sequences, offsets, n_items, window: as in [`cooccurrence_counts`].
        width (`int`, *optional*, defaults to 256): number of components; fewer for a catalogue of at most that many
            items.
        seed (`int`, *optional*, defaults to 0): random seed of the SVD.

    Returns:
        `np.ndarray` of `float32` and shape `(n_items, width)`: rows with root mean square 1, and rows of 0 for items
        that don't occur in training.

    Raises:
        ValueError: no two items occur in one sequence.

    Source: Levy and Goldberg, Neural Word Embedding as Implicit Matrix Factorization (2014).
    """
    counts = cooccurrence_counts(sequences, offsets, n_items, window)
    counts = (counts + counts.T).tocoo()
    totals = np.asarray(counts.sum(1)).ravel()
    if n_items < 2 or not totals.any():
        raise ValueError(
            "no two items occur in the same training sequence, so nothing tells which items belong together; give a "
            "log whose users have more interactions, as a split holds out the last ones, or embeddings from a file."
        )
    information = np.log(counts.data * totals.sum() / (totals[counts.row] * totals[counts.col]))
    positive = scipy.sparse.csr_matrix((np.maximum(information, 0), (counts.row, counts.col)), shape=counts.shape)
    svd = TruncatedSVD(min(width, n_items - 1), random_state=seed)
    embedding = svd.fit_transform(positive) / np.sqrt(np.maximum(svd.singular_values_, 1e-12))
    norms = np.linalg.norm(embedding, axis=1, keepdims=True)
    return (embedding / np.maximum(norms, 1e-12) * np.sqrt(embedding.shape[1])).astype(np.float32)
