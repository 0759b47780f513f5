"""Which items the rows of a split may get."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from .seen import padded_rows

CELLS = 1 << 22  # of rows and items that they choose from: as many at a time


@dataclass(frozen=True)
class RowConstraints:
    """Which items the rows of a split may get; by default all.

    Args:
        exclude (`scipy.sparse.csr_matrix` of shape `(rows, n_items)`, *optional*): items that single rows must not
            get, in columns of item index less 1.
        allowed (`scipy.sparse.csr_matrix` of shape `(rows, n_items)`, *optional*): items that single rows choose from.
            A row without any gets nothing.
        choice (`np.ndarray` of shape `(n,)`, *optional*): item indices that all rows choose from, ascending.
    """

    exclude: scipy.sparse.csr_matrix | None = None
    allowed: scipy.sparse.csr_matrix | None = None
    choice: np.ndarray | None = None

    def parts(self, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray | None, np.ndarray | None]]:
        """Cuts rows into parts, for each of which there is one choice of items.

        What some rows of a part may get and others not is excluded for the others.

        Args:
            rows (`np.ndarray` of shape `(batch,)`): of the split.

        Yields:
            which of `rows` they are; item indices to exclude, `(part, n)`, padded with 0; item indices to choose from,
            `(m,)`. `None` stands for no such constraint.
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
