"""Which items occur near each other in training sequences, and embeddings made of that."""

import numpy as np
import scipy.sparse
from sklearn.decomposition import TruncatedSVD


def cooccurrence_counts(
    sequences: np.ndarray, offsets: np.ndarray, n_items: int, window: int
) -> scipy.sparse.csr_matrix:
    """How often items occur near each other, weighted by 1 / distance.

    Args:
        sequences (`np.ndarray` of shape `(n,)`): rows of items, users one after the other.
        offsets (`np.ndarray` of shape `(users + 1,)`): where each user's sequence starts.
        n_items (`int`): items of the catalogue.
        window (`int`): the largest distance that counts.

    Returns:
        `scipy.sparse.csr_matrix` `[n_items, n_items]` of counts from the earlier item to the later one.
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
    """Truncated SVD of the positive pointwise mutual information of items in training sequences.

    Args:
        sequences, offsets, n_items, window: as in [`cooccurrence_counts`].
        width (`int`, *optional*, defaults to 256): components; a catalogue of fewer items gets as many as it has.
        seed (`int`, *optional*, defaults to 0): of the randomised SVD.

    Returns:
        `np.ndarray` `[n_items, width]` of `float32`, each row of root mean square 1. Items that training doesn't know
        are 0: nothing is known of them.

    Source: Levy and Goldberg, Neural Word Embedding as Implicit Matrix Factorization (2014).
    """
    counts = cooccurrence_counts(sequences, offsets, n_items, window)
    counts = (counts + counts.T).tocoo()
    totals = np.asarray(counts.sum(1)).ravel()
    if n_items < 2 or not totals.any():
        raise ValueError(
            "no two items occur in one training sequence; give an embedding file instead of 'cooccurrence'."
        )
    information = np.log(counts.data * totals.sum() / (totals[counts.row] * totals[counts.col]))
    positive = scipy.sparse.csr_matrix((np.maximum(information, 0), (counts.row, counts.col)), shape=counts.shape)
    svd = TruncatedSVD(min(width, n_items - 1), random_state=seed)
    embedding = svd.fit_transform(positive) / np.sqrt(np.maximum(svd.singular_values_, 1e-12))
    norms = np.linalg.norm(embedding, axis=1, keepdims=True)
    return (embedding / np.maximum(norms, 1e-12) * np.sqrt(embedding.shape[1])).astype(np.float32)
