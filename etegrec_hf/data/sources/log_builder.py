"""The builder of a log from interactions that are added one by one."""

from array import array
from pathlib import Path

import numpy as np

from ..interactions import Interactions
from .doubts import check_times
from .source import Malformed
from .values import parse_time, wrong_id, wrong_time


class LogBuilder:
    """Collects interactions one by one, in a few bytes each.

    Args:
        path (`Path`): the file, for errors.
        malformed ([`Malformed`]): gets the rows that can't be used.
        user, item, time (`str`): names of the fields; an empty `time` for a log without times.
    """

    def __init__(self, path: Path, malformed: Malformed, user: str, item: str, time: str):
        self.path, self.malformed, self.names, self.time = path, malformed, (user, item), time
        self.numbers: tuple[dict, dict] = ({}, {})  # number of each id, for users and for items
        self.rows = (array("q"), array("q"))
        self.times: array = array("q")
        self.splits = array("b")
        self.kinds: list[type | None] = [None, None]

    def add(self, number: int, entry: dict, split: int | None = None) -> bool:
        """Adds the interaction of line `number`, and returns whether it could be used.

        Raises:
            ValueError: ids of mixed types.
        """
        ids = [entry.get(name) for name in self.names]
        for column, (name, value) in enumerate(zip(self.names, ids)):
            wrong = wrong_id(name, value)
            if wrong:
                self.malformed.add(number, wrong)
                return False
            self.check_kind(number, column, value)
        if self.time:
            time = parse_time(entry.get(self.time))
            if time is None:
                self.malformed.add(number, wrong_time(self.time, entry.get(self.time)))
                return False
            if isinstance(time, float) and self.times.typecode == "q":
                self.times = array("d", self.times)
            self.times.append(time)
        for known, row, value in zip(self.numbers, self.rows, ids):
            row.append(known.setdefault(value, len(known)))
        if split is not None:
            self.splits.append(split)
        return True

    def check_kind(self, number: int, column: int, value) -> None:
        """Raises a `ValueError` if an id of a user (column 0) or item (column 1) has another type than ids before."""
        if self.kinds[column] is None:
            self.kinds[column] = type(value)
        elif self.kinds[column] is not type(value):
            raise ValueError(
                f"{self.names[column]!r} in line {number} of {self.path} is {value!r}, but text and numbers are mixed "
                "in this field; write all ids as text."
            )

    def build(self) -> Interactions:
        """Returns the log.

        Raises:
            ValueError: no interaction.
            ValueError: times of several kinds.
        """
        if not self.rows[0]:
            raise empty_log(self.path)
        user_ids, item_ids = (np.array([str(value) for value in known], dtype=object) for known in self.numbers)
        users, items = (np.frombuffer(row, dtype=np.int64) for row in self.rows)
        times = np.array(self.times) if self.time else None
        if times is not None:
            check_times(times, self.time, self.path)
        splits = np.array(self.splits, dtype=np.int8) if self.splits else None
        return Interactions.from_rows(user_ids, item_ids, users, items, times, splits)


def empty_log(path: Path) -> ValueError:
    """Returns the error for a log without interactions."""
    return ValueError(f"the log is empty: {path} holds no interaction; check the path and --format.")
