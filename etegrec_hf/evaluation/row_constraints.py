"""Constraints on the items that the rows of a split may get."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from .seen import padded_rows

CELLS = 1 << 22  # largest number of pairs of a row and an item that are handled at a time


@dataclass(frozen=True)
class RowConstraints:
    """The items that the rows of a split may get; by default all items.

    Args:
        exclude (`scipy.sparse.csr_matrix` of shape `(rows, n_items)`, *optional*): items that each row must not get;
            column j is the item with index j + 1.
        allowed (`scipy.sparse.csr_matrix` of shape `(rows, n_items)`, *optional*): items that each row chooses from. A
            row without any gets no item.
        choice (`np.ndarray` of shape `(n,)`, *optional*): item indices that all rows choose from, ascending.
    """

    exclude: scipy.sparse.csr_matrix | None = None
    allowed: scipy.sparse.csr_matrix | None = None
    choice: np.ndarray | None = None

    def parts(self, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray | None, np.ndarray | None]]:
        """Divides rows into parts whose rows share one choice of items.

        If only some rows of a part may get an item, the item is excluded for the others.

        Args:
            rows (`np.ndarray` of shape `(batch,)`): numbers of rows of the split.

        Yields:
            the part's slice of `rows`; item indices to exclude, `(part, n)`, padded with 0; and item indices to choose
            from, `(m,)`. `None` means no such constraint.
        """
        size = len(rows)
        if self.allowed is not None:
            size = max(1, CELLS // max(1, len(np.unique(self.allowed[rows].indices))))
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            yield part, *self._of(rows[part])

    def _of(self, rows: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        excluded = [] if self.exclude is None else [padded_rows(self.exclude[rows])]
        choice = self.choice
        if self.allowed is not None:
            own = self.allowed[rows]
            columns = np.unique(own.indices)
            columns = columns if choice is None else columns[np.isin(columns + 1, choice)]
            may_get = own[:, columns].toarray()  # [rows, columns]
            choice, differ = columns + 1, ~may_get.all(axis=0)
            excluded.append(np.where(may_get[:, differ], 0, choice[differ]))
        return np.concatenate(excluded, axis=1) if excluded else None, choice
