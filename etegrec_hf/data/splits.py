"""From a log to training sequences and validation and test targets."""

from dataclasses import dataclass

import numpy as np

from .interactions import MIN_LENGTH, Interactions

SPLIT_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitRows:
    """Rows of one split, as positions in a log.

    Row r has the history `start[r]..target[r]-1` and the target `target[r]`.

    Each is an `np.ndarray` of `int64` and shape `(rows,)`.
    """

    start: np.ndarray
    target: np.ndarray


def leave_one_out(interactions: Interactions) -> dict[str, SplitRows]:
    """Each user's last item is the test target, the one before the validation target, the rest is training.

    A training row is a user's whole training sequence: its last item stands as the target, and every earlier position
    is a target too when training reads its prefixes.
    """
    start, end = interactions.starts[:-1], interactions.starts[1:]
    if (end - start).min() < MIN_LENGTH:
        raise ValueError(
            f"a user has fewer than {MIN_LENGTH} interactions; drop such users first (`drop_short_users`)."
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
    first, second = np.quantile(interactions.times, [1 - validation - test, 1 - test], method="higher")
    starts = interactions.starts
    row_start = starts[interactions.users]
    position = np.arange(len(interactions.users))
    has_history = position > row_start
    in_training = interactions.times < first
    trained = np.add.reduceat(in_training.astype(np.int64), starts[:-1])  # training interactions of each user
    rows = {
        "train": SplitRows(starts[:-1][trained > 0], (starts[:-1] + trained - 1)[trained > 0]),
        "validation": has_history & ~in_training & (interactions.times < second),
        "test": has_history & (interactions.times >= second),
    }
    for name in ("validation", "test"):
        rows[name] = SplitRows(row_start[rows[name]], position[rows[name]])
    for name, split in rows.items():
        if len(split.start) == 0:
            raise ValueError(f"the {name} split is empty: too few distinct timestamps; use 'leave-one-out'.")
    return rows


SPLITTERS = {"leave-one-out": leave_one_out, "time": time_split}
