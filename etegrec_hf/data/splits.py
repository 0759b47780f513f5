"""Splits of a log into training sequences and validation and test targets."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .interactions import Interactions

MIN_LENGTH = 3  # interactions per user if each user has one for training, one for validation and one for test
SPLIT_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitRows:
    """Rows of one split, as positions in a log.

    Row r has the history `start[r]..target[r]-1` and the target `target[r]`.

    Args:
        start (`np.ndarray` of `int64`, shape `(rows,)`): position of the first item of each row.
        target (`np.ndarray` of `int64`, shape `(rows,)`): position of the target of each row.
    """

    start: np.ndarray
    target: np.ndarray


def positions_of(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions from each start up to its end, row after row `[n]`, and the rows' starts `[rows + 1]`."""
    lengths = end - start
    offsets = np.concatenate([[0], lengths.cumsum()])
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1] - start, lengths), offsets


def leave_one_out(interactions: Interactions) -> dict[str, SplitRows]:
    """Makes each user's last item the test target, the item before it the validation target, and the rest training.

    A training row is a user's whole training sequence. Its last item is stored as the target, but training uses every
    item after the first as a target.

    Raises:
        ValueError: a user with fewer than 3 interactions.
    """
    start, end = interactions.starts[:-1], interactions.starts[1:]
    if (end - start).min() < MIN_LENGTH:
        raise ValueError(
            f"a user has fewer than {MIN_LENGTH} interactions; drop such users first (`k_core` with `min_length`)."
        )
    return {name: SplitRows(start, end - back) for name, back in zip(SPLIT_NAMES, (3, 2, 1))}


def time_split(interactions: Interactions, validation: float = 0.1, test: float = 0.1) -> dict[str, SplitRows]:
    """Splits at two moments that are the same for all users: test is the latest share, validation the one before.

    Each validation or test interaction is a row of its split, unless it is the user's first.

    Args:
        interactions ([`Interactions`]): the log.
        validation, test (`float`, *optional*, default to 0.1): shares of all interactions.

    Raises:
        ValueError: the log has no timestamps.
        ValueError: a split is empty.
    """
    if interactions.times is None:
        raise ValueError(
            "`split` 'time' needs timestamps, but this data has none; name their column or use 'leave-one-out'."
        )
    # "higher" chooses timestamps that occur: interpolated ones in nanoseconds would be rounded as floats
    moments = np.quantile(interactions.times, [1 - validation - test, 1 - test], method="higher")
    split_of = (interactions.times[:, None] >= moments).sum(axis=1)
    return _rows_of(
        interactions,
        split_of,
        "too few distinct timestamps, or no user with an earlier interaction; use 'leave-one-out'",
    )


def ratio_split(interactions: Interactions, validation: float = 0.1, test: float = 0.1) -> dict[str, SplitRows]:
    """Makes each user's last tenth test and the tenth before validation, rounded down to whole items but at least one.

    Each validation or test interaction is a row of its split.

    Args:
        interactions ([`Interactions`]): the log.
        validation, test (`float`, *optional*, default to 0.1): shares of each user's interactions.

    Raises:
        ValueError: a split is empty.
    """
    starts = interactions.starts
    lengths = np.diff(starts)
    tests = np.maximum(1, (lengths * test).astype(np.int64))
    validations = np.maximum(1, (lengths * validation).astype(np.int64))
    left = (starts[1:])[interactions.users] - np.arange(len(interactions.users))  # interactions from here to the end
    is_test = left <= tests[interactions.users]
    is_validation = ~is_test & (left <= (tests + validations)[interactions.users])
    return _rows_of(interactions, is_validation + 2 * is_test, "use 'leave-one-out'")


def given_split(interactions: Interactions) -> dict[str, SplitRows]:
    """Uses the splits that the source gives.

    Each validation or test interaction is a row of its split, unless it is the user's first.

    Raises:
        ValueError: the source gives no splits.
        ValueError: a split is empty.
        ValueError: a user has a training interaction after one of validation or test, or a validation interaction
            after one of test: a history would hold items from its future.
    """
    if interactions.splits is None:
        raise ValueError("`split` 'given' needs a column with the splits; name it with --split-column.")
    same_user = interactions.users[1:] == interactions.users[:-1]
    backwards = same_user & (np.diff(interactions.splits) < 0)
    if backwards.any():
        row = int(backwards.argmax())
        earlier, later = (SPLIT_NAMES[split] for split in interactions.splits[row : row + 2])
        raise ValueError(
            f"a user's splits go backwards in time {backwards.sum()} times, first for user "
            f"{interactions.user_ids[interactions.users[row]]!r}, who has {later} after {earlier}; repair the "
            "splits or the timestamps, or choose a split by time."
        )
    return _rows_of(interactions, interactions.splits, "check the split column")


def _rows_of(interactions: Interactions, split_of: np.ndarray, remedy: str) -> dict[str, SplitRows]:
    """Returns the rows of all splits, given each interaction's split `[n]` (0, 1, 2), which never falls for a user."""
    starts = interactions.starts
    row_start = starts[interactions.users]
    position = np.arange(len(interactions.users))
    trained = np.add.reduceat((split_of == 0).astype(np.int64), starts[:-1])  # training interactions of each user
    rows = {"train": SplitRows(starts[:-1][trained > 0], (starts[:-1] + trained - 1)[trained > 0])}
    for number, name in enumerate(SPLIT_NAMES[1:], start=1):
        chosen = (split_of == number) & (position > row_start)
        rows[name] = SplitRows(row_start[chosen], position[chosen])
    for name, split in rows.items():
        if len(split.start) == 0:
            raise ValueError(f"the {name} split is empty: {remedy}.")
    return rows


SPLITTERS: dict[str, Callable[[Interactions], dict[str, SplitRows]]] = {
    "leave-one-out": leave_one_out,
    "time": time_split,
    "ratio": ratio_split,
    "given": given_split,
}
# smallest number of interactions per user
MIN_LENGTHS = {"leave-one-out": MIN_LENGTH, "ratio": MIN_LENGTH, "time": 1, "given": 1}
