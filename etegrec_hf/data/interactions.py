"""Interaction logs in memory: who took what, in time order, and their filtering."""

from dataclasses import dataclass

import numpy as np

MIN_LENGTH = 3  # interactions of a user: one each for training, validation and test


@dataclass(frozen=True)
class Interactions:
    """An interaction log, users one after the other, each in time order.

    Args:
        user_ids (`np.ndarray` of `str`, shape `(n_users,)`): ids of users.
        item_ids (`np.ndarray` of `str`, shape `(n_items,)`): ids of items.
        users (`np.ndarray` of `int64`, shape `(n,)`): row in `user_ids` of each interaction, ascending.
        items (`np.ndarray` of `int64`, shape `(n,)`): row in `item_ids` of each interaction.
        times (`np.ndarray` of `int64` or `float64`, shape `(n,)`, *optional*): timestamps; without them the order is
            the time.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    users: np.ndarray
    items: np.ndarray
    times: np.ndarray | None = None

    @classmethod
    def from_columns(cls, users: np.ndarray, items: np.ndarray, times: np.ndarray | None = None) -> "Interactions":
        """Builds a log from columns of ids in any order; ties in time keep the order of the rows.

        Users and items are numbered in the order of their first row.

        Raises:
            ValueError: no rows.
        """
        if len(users) == 0:
            raise ValueError("the data set is empty: it holds no interaction; check the path and the format.")
        user_ids, user_rows = _number(np.asarray(users).astype(str))
        item_ids, item_rows = _number(np.asarray(items).astype(str))
        order = np.argsort(user_rows, kind="stable") if times is None else np.lexsort((times, user_rows))
        return cls(
            user_ids, item_ids, user_rows[order], item_rows[order], None if times is None else np.asarray(times)[order]
        )

    @property
    def starts(self) -> np.ndarray:
        """First row of each user, and the number of rows: `[n_users + 1]`."""
        return np.searchsorted(self.users, np.arange(len(self.user_ids) + 1))

    def select(self, kept: np.ndarray) -> "Interactions":
        """The interactions where `kept` `[n]` is true, with the users and items that still occur."""
        user_rows, users = np.unique(self.users[kept], return_inverse=True)
        item_rows, items = np.unique(self.items[kept], return_inverse=True)
        times = None if self.times is None else self.times[kept]
        return Interactions(self.user_ids[user_rows], self.item_ids[item_rows], users, items, times)


def _number(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values in the order of their first row, and each row's number among them."""
    distinct, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return distinct[order], rank[inverse]


def k_core(interactions: Interactions, min_count: int) -> Interactions:
    """Drops users and items with fewer than `min_count` interactions, until none is left to drop.

    Raises:
        ValueError: nothing remains.
    """
    while True:
        of_user = np.bincount(interactions.users, minlength=1)
        of_item = np.bincount(interactions.items, minlength=1)
        kept = (of_user[interactions.users] >= min_count) & (of_item[interactions.items] >= min_count)
        if kept.all():
            return interactions
        if not kept.any():
            raise ValueError(
                f"no interaction is left: no users and items have `min_count` {min_count} interactions; lower it."
            )
        interactions = interactions.select(kept)


def drop_short_users(interactions: Interactions) -> Interactions:
    """Drops users with fewer than `MIN_LENGTH` interactions.

    Raises:
        ValueError: no user is long enough.
    """
    lengths = np.diff(interactions.starts)
    long_enough = lengths >= MIN_LENGTH
    if not long_enough.any():
        raise ValueError(
            f"none of {len(lengths)} users has {MIN_LENGTH} interactions, one each for training, validation and test; "
            "check that user ids repeat across rows."
        )
    return interactions if long_enough.all() else interactions.select(long_enough[interactions.users])
