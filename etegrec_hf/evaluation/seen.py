"""Items that users have seen: those of their histories and training sequences."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse

from ..data.prepared import PreparedDataset, Split


def seen_items(data: PreparedDataset, split: Split) -> scipy.sparse.csr_matrix:
    """Returns the items of each row's history and of the same user's training sequence.

    A history may be only the end of a longer training sequence.

    Args:
        data ([`PreparedDataset`]): the dataset with the training sequences.
        split ([`Split`]): the validation or test split.

    Returns:
        `scipy.sparse.csr_matrix` of shape `(rows, n_items)`: 1 in column j if the item with index j + 1 was seen.
    """
    histories = _indicator(*split.histories, (len(split), data.n_items))
    train = data.train
    of_user = np.repeat(np.arange(len(train)), np.diff(train.offsets))
    trained = _indicator(of_user, train.sequences, (len(train), data.n_items))
    user = pc.index_in(pa.array(split.user_ids), value_set=pa.array(train.user_ids))
    known = user.is_valid().to_numpy(zero_copy_only=False)
    chosen = (np.flatnonzero(known), user.drop_null().to_numpy())
    by_row = scipy.sparse.csr_matrix((np.ones(known.sum()), chosen), (len(split), len(train)))
    seen = (histories + by_row @ trained).tocsr()
    seen.data[:] = 1
    return seen


def _indicator(rows: np.ndarray, items: np.ndarray, shape: tuple[int, int]) -> scipy.sparse.csr_matrix:
    """Returns how often each row has each item, `shape`, given rows and item indices."""
    return scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, items - 1)), shape)


def padded_rows(seen: scipy.sparse.csr_matrix) -> np.ndarray:
    """Returns the item indices of each row, padded with 0 to the longest row."""
    lengths = np.diff(seen.indptr)
    padded = np.zeros((seen.shape[0], max(1, lengths.max(initial=0))), dtype=np.int64)
    rows = np.repeat(np.arange(seen.shape[0]), lengths)
    padded[rows, np.arange(len(rows)) - seen.indptr[rows]] = seen.indices + 1
    return padded
