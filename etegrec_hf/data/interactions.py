"""Interaction logs in memory (which user took which items, in time order), and filters for them."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from .checks import check_choice

DUPLICATES = ("exact", "item", "none")  # what `drop_repeated` takes for repeated


@dataclass(frozen=True)
class Interactions:
    """An interaction log, sorted by user and then by time.

    Args:
        user_ids (`np.ndarray` of `str`, shape `(n_users,)`): ids of users.
        item_ids (`np.ndarray` of `str`, shape `(n_items,)`): ids of items.
        users (`np.ndarray` of `int64`, shape `(n,)`): user of each interaction, as a row of `user_ids`, ascending.
        items (`np.ndarray` of `int64`, shape `(n,)`): item of each interaction, as a row of `item_ids`.
        times (`np.ndarray` of `int64` or `float64`, shape `(n,)`, *optional*): timestamps; without them the rows are
            taken to be in time order.
        splits (`np.ndarray` of `int8`, shape `(n,)`, *optional*): split of each interaction according to the source:
            0 for training, 1 for validation, 2 for test.
        users_sorted (`int`): number of users whose rows had to be sorted by time.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    users: np.ndarray
    items: np.ndarray
    times: np.ndarray | None = None
    splits: np.ndarray | None = None
    users_sorted: int = 0

    @classmethod
    def from_rows(
        cls,
        user_ids: np.ndarray,
        item_ids: np.ndarray,
        users: np.ndarray,
        items: np.ndarray,
        times: np.ndarray | None = None,
        splits: np.ndarray | None = None,
    ) -> "Interactions":
        """Builds a log from interactions in any order; rows with equal times keep their order.

        Raises:
            ValueError: no rows.
        """
        if len(users) == 0:
            raise ValueError("the log is empty: it holds no interaction; check the path and the format.")
        order = np.argsort(users, kind="stable")
        users_sorted = 0
        if times is not None:
            of_user, in_row_order = users[order], times[order]
            backwards = (of_user[1:] == of_user[:-1]) & (in_row_order[1:] < in_row_order[:-1])
            users_sorted = len(np.unique(of_user[1:][backwards]))
            if users_sorted:
                order = np.lexsort((times, users))
        times, splits = (None if column is None else column[order] for column in (times, splits))
        return cls(user_ids, item_ids, users[order], items[order], times, splits, users_sorted)

    @classmethod
    def from_columns(
        cls, users, items, times: np.ndarray | None = None, splits: np.ndarray | None = None
    ) -> "Interactions":
        """Builds a log as [`from_rows`] does, from columns of ids: arrays of text, or arrays of pyarrow.

        Users and items are numbered in the order of their first row.
        """
        user_ids, user_rows = number_ids(users)
        item_ids, item_rows = number_ids(items)
        return cls.from_rows(user_ids, item_ids, user_rows, item_rows, times, splits)

    @property
    def starts(self) -> np.ndarray:
        """First row of each user, followed by the number of rows: `[n_users + 1]`."""
        return np.concatenate([[0], np.bincount(self.users, minlength=len(self.user_ids)).cumsum()])

    def select(self, kept: np.ndarray) -> "Interactions":
        """Returns the interactions for which `kept` `[n]` is true, and only the users and items that still occur."""
        user_ids, users = _still_there(self.user_ids, self.users[kept])
        item_ids, items = _still_there(self.item_ids, self.items[kept])
        times, splits = (None if column is None else column[kept] for column in (self.times, self.splits))
        return replace(
            self, user_ids=user_ids, item_ids=item_ids, users=users, items=items, times=times, splits=splits
        )


def number_ids(values) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the distinct ids of a column in the order of their first row.

    Args:
        values (`np.ndarray`, `pa.Array` or `pa.ChunkedArray`): ids, none missing; pyarrow's may be
            dictionary-encoded.

    Returns:
        distinct ids, an `np.ndarray` of `str` and shape `(n_ids,)`, and the number of each row's id, an `np.ndarray`
        of `int64` and shape `(rows,)`.
    """
    column = (
        values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(list(map(str, values)), pa.string())
    )
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    # after encoding: texts of more than 2 GB can't be combined, and dictionaries of several chunks become one
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    rows = encoded.indices.to_numpy().astype(np.int64)
    first = np.full(len(encoded.dictionary), len(rows))
    first[rows[::-1]] = np.arange(len(rows))[::-1]  # in reverse: the first row of an id is written last, and stays
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(rows))]
    number = np.empty(len(first), dtype=np.int64)
    number[order] = np.arange(len(order))
    return encoded.dictionary.take(pa.array(order)).to_numpy(zero_copy_only=False), number[rows]


def _still_there(ids: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids that occur in `rows`, and `rows` renumbered among these ids."""
    there = np.bincount(rows, minlength=len(ids)) > 0
    return ids[there], (there.cumsum() - 1)[rows]


def drop_repeated(interactions: Interactions, kind: str) -> Interactions:
    """Drops repeated interactions; the first of several equal ones is kept.

    Args:
        interactions ([`Interactions`]): the log.
        kind (`str`): interactions that count as repeated: `"exact"`, the same user, item and time (none in a log
            without times); `"item"`, the same user and item at any time; `"none"`, no interaction.

    Raises:
        ValueError: another kind.
    """
    check_choice("duplicates", kind, DUPLICATES)
    times = interactions.times
    if kind == "none" or (kind == "exact" and times is None):
        return interactions
    keys = [interactions.items, interactions.users]
    if kind == "exact" and times is not None:
        keys.insert(1, times)
    order = np.lexsort(keys)  # stable, so that equal interactions keep their order
    repeated = np.ones(len(order) - 1, dtype=bool)
    for key in keys:
        repeated &= np.diff(key[order]) == 0
    kept = np.ones(len(order), dtype=bool)
    kept[order[1:][repeated]] = False
    return interactions if kept.all() else interactions.select(kept)


def k_core(interactions: Interactions, min_count: int, min_length: int = 1) -> Interactions:
    """Drops users and items with too few interactions, again and again until all that remain have enough.

    Args:
        interactions ([`Interactions`]): the log.
        min_count (`int`): smallest number of interactions of a user or an item.
        min_length (`int`, *optional*, defaults to 1): smallest number of interactions of a user, if the split needs
            more than `min_count`.

    Raises:
        ValueError: no interaction remains.
    """
    of_users = max(min_count, min_length)
    while True:
        of_user = np.bincount(interactions.users, minlength=1)
        of_item = np.bincount(interactions.items, minlength=1)
        kept = (of_user[interactions.users] >= of_users) & (of_item[interactions.items] >= min_count)
        if kept.all():
            # ids may include users and items without any interaction
            n_users, n_items = np.count_nonzero(of_user), np.count_nonzero(of_item)
            whole = (n_users, n_items) == (len(interactions.user_ids), len(interactions.item_ids))
            return interactions if whole else interactions.select(kept)
        if not kept.any():
            needed = " (the split needs as many)" if min_length > min_count else ""
            lower = "lower `min_count`, or " if min_count > 1 else ""
            raise ValueError(
                f"no interaction is left after dropping users with fewer than {of_users} interactions{needed} and "
                f"items with fewer than {min_count}; {lower}check that ids repeat across rows."
            )
        interactions = interactions.select(kept)
