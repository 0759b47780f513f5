"""Items that users had before."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse

from ..data.prepared import PreparedDataset, Split


def seen_items(data: PreparedDataset, split: Split) -> scipy.sparse.csr_matrix:
    """The items of each row's history and of the same user's training sequence, of which a history may be the end.

    Args:
        data ([`PreparedDataset`]): for the training sequences.
        split ([`Split`]): validation or test.

    Returns:
        `scipy.sparse.csr_matrix` `[rows, n_items]`, 1 where the item with that index less 1 was seen.
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
    """How often each row names each item index."""
    return scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, items - 1)), shape)


def padded_rows(seen: scipy.sparse.csr_matrix) -> np.ndarray:
    """Item indices of each row, `[rows, most]`, filled with 0."""
    lengths = np.diff(seen.indptr)
    padded = np.zeros((seen.shape[0], max(1, lengths.max(initial=0))), dtype=np.int64)
    rows = np.repeat(np.arange(seen.shape[0]), lengths)
    padded[rows, np.arange(len(rows)) - seen.indptr[rows]] = seen.indices + 1
    return padded
