"""From a log to training sequences and validation and test targets."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .interactions import Interactions

MIN_LENGTH = 3  # interactions of a user where each has one of training, validation and test
SPLIT_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitRows:
    """Rows of one split, as positions in a log.

    Row r has the history `start[r]..target[r]-1` and the target `target[r]`.

    Each is an `np.ndarray` of `int64` and shape `(rows,)`.
    """

    start: np.ndarray
    target: np.ndarray


def positions_of(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions from each start up to its end, one after the other, `[n]`, and where each begins, `[rows + 1]`."""
    lengths = end - start
    offsets = np.concatenate([[0], lengths.cumsum()])
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1] - start, lengths), offsets


def leave_one_out(interactions: Interactions) -> dict[str, SplitRows]:
    """Each user's last item is the test target, the one before the validation target, the rest is training.

    A training row is a user's whole training sequence: its last item stands as the target, and every earlier position
    is a target too when training reads its prefixes.
    """
    start, end = interactions.starts[:-1], interactions.starts[1:]
    if (end - start).min() < MIN_LENGTH:
        raise ValueError(
            f"a user has fewer than {MIN_LENGTH} interactions; drop such users first (`k_core` with `min_length`)."
        )
    return {name: SplitRows(start, end - back) for name, back in zip(SPLIT_NAMES, (3, 2, 1))}


def time_split(interactions: Interactions, validation: float = 0.1, test: float = 0.1) -> dict[str, SplitRows]:
    """One moment for all users: the latest share of interactions is test, the share before validation.

    Every interaction after a user's first that lies in a window is a row of its split.

    Raises:
        ValueError: the log has no timestamps, or a split stays empty.
    """
    if interactions.times is None:
        raise ValueError(
            "`split` 'time' needs timestamps and this data has none; name their column or use 'leave-one-out'."
        )
    # "higher" takes timestamps that occur, so that those in nanoseconds aren't rounded to floats
    moments = np.quantile(interactions.times, [1 - validation - test, 1 - test], method="higher")
    split_of = (interactions.times[:, None] >= moments).sum(axis=1)
    return _rows_of(interactions, split_of, "too few distinct timestamps; use 'leave-one-out'")


def ratio_split(interactions: Interactions, validation: float = 0.1, test: float = 0.1) -> dict[str, SplitRows]:
    """Each user's last tenth is test, the tenth before validation (8 : 1 : 1), each rounded down but at least one.

    Every interaction in a window is a row of its split.
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
    """The splits that the source gives.

    Every validation and test interaction after a user's first is a row of its split.

    Raises:
        ValueError: the source gives none, a split stays empty, or a user's training interaction is later than one of
            validation, or that later than one of test: a history would hold what lies in its future.
    """
    if interactions.splits is None:
        raise ValueError("`split` 'given' needs a column that says it; name it with --split-column.")
    same_user = interactions.users[1:] == interactions.users[:-1]
    backwards = same_user & (np.diff(interactions.splits) < 0)
    if backwards.any():
        row = int(backwards.argmax())
        earlier, later = (SPLIT_NAMES[split] for split in interactions.splits[row : row + 2])
        raise ValueError(
            f"{backwards.sum()} times a user's splits go backwards, first user "
            f"{interactions.user_ids[interactions.users[row]]!r}, who has {later} after {earlier}; repair the "
            "split or the timestamps, or choose a split by time."
        )
    return _rows_of(interactions, interactions.splits, "check the split column")


def _rows_of(interactions: Interactions, split_of: np.ndarray, remedy: str) -> dict[str, SplitRows]:
    """Rows for interactions of known splits `[n]` (0, 1, 2), which never fall along a user's sequence."""
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
# Interactions that a user must have; elsewhere one is enough, to be learned from
MIN_LENGTHS = {"leave-one-out": MIN_LENGTH, "ratio": MIN_LENGTH, "time": 1, "given": 1}
