"""What in a log may not be meant: times of several kinds, ids that stand for nothing, and one id in two spellings."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..interactions import Interactions
from ..wording import counted

# Kinds of times with their ranges: the years 1976 to 2096, and dates in digits from 1900 to 2100
KINDS_OF_TIMES = {
    "a date in digits": (19_000_101, 21_001_231),
    "seconds since 1970, or a date": (2e8, 4e9),
    "milliseconds since 1970": (2e11, 4e12),
    "microseconds since 1970": (2e14, 4e15),
    "nanoseconds since 1970": (2e17, 4e18),
}
MISSING = ["nan", "null", "none", "na", "n/a", "<na>", "nat"]  # in small letters, as programs write missing values


def check_times(times: np.ndarray, name: str, path: Path) -> None:
    """Raises a `ValueError` if the times of a column are of several kinds, such as seconds and milliseconds.

    Nothing is raised unless each time is of some kind: others may be anything, like places in a sequence.

    Args:
        times (`np.ndarray` of `int64` or `float64`, shape `(rows,)`): the times.
        name (`str`): name of the column.
        path (`Path`): the file.
    """
    within = {kind: (times >= low) & (times <= high) for kind, (low, high) in KINDS_OF_TIMES.items()}
    counts = {kind: int(rows.sum()) for kind, rows in within.items()}
    found = [kind for kind, count in counts.items() if count]
    if len(found) < 2 or sum(counts.values()) < len(times):
        return
    shown = " and ".join(f"{times[within[kind]][0]:.0f} ({kind})" for kind in found)
    raise ValueError(
        f"{path} holds times of several kinds in {name!r}, {shown}, and they can't be put in one order; write all in "
        "one kind."
    )


def one_of_each_kind(times: np.ndarray) -> np.ndarray:
    """Returns the first time of each kind, and the first of none: [`check_times`] says the same of them as of all.

    So a column that is read a part at a time can be checked.

    >>> one_of_each_kind(np.array([1_600_000_000, 1_500_000_000, 1_400_000_000_000, 7]))
    array([   1600000000, 1400000000000,             7])
    """
    within = [(times >= low) & (times <= high) for low, high in KINDS_OF_TIMES.values()]
    groups = [*within, ~np.any(within, axis=0)]
    return times[[group.argmax() for group in groups if group.any()]]


def notes_of_ids(log: Interactions) -> list[str]:
    """Returns notes for the user about ids that look like missing values, or like another spelling of an id."""
    notes = []
    for kind, ids, rows in (("user", log.user_ids, log.users), ("item", log.item_ids, log.items)):
        texts = pa.array(ids, pa.string())
        for number in np.flatnonzero(pc.is_in(pc.utf8_lower(texts), pa.array(MISSING)).to_numpy(zero_copy_only=False)):
            times = counted(int((rows == number).sum()), "row")
            notes.append(
                f"{ids[number]!r} is the {kind} of {times}; if that stands for a missing id, remove these rows"
            )
        plain = pc.replace_substring_regex(texts, r"^0*(\d+?)(?:\.0+)?$", r"\1")
        pairs = len(ids) - pc.count_distinct(plain).as_py()
        if pairs:
            first = plain.dictionary_encode().indices.to_numpy()
            row = np.flatnonzero(np.bincount(first)[first] > 1)[0]
            other = np.flatnonzero(first == first[row])[1]
            notes.append(
                f"{counted(pairs, kind)} may be another one in a second spelling, like {ids[row]!r} and "
                f"{ids[other]!r}; they count as different, so write each id in one way"
            )
    return notes
