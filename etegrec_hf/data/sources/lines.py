"""Files read line by line, never whole in memory: plain or gzip."""

import ast
import gzip
import json
import zlib
from array import array
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np

from ..interactions import Interactions
from .source import TEXT_FIELDS, Malformed, Texts


def raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, gzip or not.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an archive that breaks off.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is no file; check the path.")
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if is_gzip else path.open("rb") as lines:
            yield from lines
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error}); copy it again.") from error


def json_lines(path: Path, malformed: Malformed, literals: bool = False) -> Iterator[tuple[int, dict]]:
    """Line number and object of each line that holds one; the others are noted, empty ones passed over.

    `literals` reads Python literals as well, in which Amazon's metadata of 2014 is written; nothing is evaluated.
    """
    for number, line in enumerate(raw_lines(path), start=1):
        if not line.strip():
            continue
        malformed.rows += 1
        try:
            try:
                entry = json.loads(line)
            except ValueError:
                if not literals:
                    raise
                entry = ast.literal_eval(line.decode("utf-8").strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            malformed.add(f"line {number}", f"{type(error).__name__}: {error}")
            continue
        if isinstance(entry, dict):
            yield number, entry
        else:
            malformed.add(f"line {number}", f"it holds a {type(entry).__name__} and no object")


class LogBuilder:
    """Collects interactions one by one, a few bytes each.

    Args:
        path (`Path`): the file, for messages.
        malformed ([`Malformed`]): takes the rows that can't be used.
        user, item, time (`str`): names of the fields.
    """

    def __init__(self, path: Path, malformed: Malformed, user: str, item: str, time: str):
        self.path, self.malformed, self.names, self.time = path, malformed, (user, item), time
        self.numbers: tuple[dict, dict] = ({}, {})  # id to its number, for users and for items
        self.rows = (array("q"), array("q"))
        self.times: array = array("q")
        self.splits = array("b")
        self.kinds: list[type | None] = [None, None]

    def add(self, number: int, entry: dict, split: int | None = None) -> None:
        """Adds the interaction of line `number`; its time is left out if the log has none.

        Raises:
            ValueError: ids of mixed types.
        """
        ids = [entry.get(name) for name in self.names]
        for column, (name, value) in enumerate(zip(self.names, ids)):
            if value is None or value == "":
                return self.malformed.add(f"line {number}", f"{name!r} is empty or missing")
            if not isinstance(value, (str, int)) or isinstance(value, bool):
                return self.malformed.add(f"line {number}", f"{name!r} is {value!r}, neither text nor a whole number")
            if self.kinds[column] is None:
                self.kinds[column] = type(value)
            elif self.kinds[column] is not type(value):
                raise ValueError(
                    f"{name!r} in line {number} of {self.path} is {value!r}, text among numbers or a number among "
                    "text; write all ids alike, as text."
                )
        if self.time:
            time = parse_time(entry.get(self.time))
            if time is None:
                value = entry.get(self.time)
                reason = "is missing" if value is None else f"is {value!r}, no number and no date"
                return self.malformed.add(f"line {number}", f"{self.time!r} {reason}")
            if isinstance(time, float) and self.times.typecode == "q":
                self.times = array("d", self.times)
            self.times.append(time)
        for known, row, value in zip(self.numbers, self.rows, ids):
            row.append(known.setdefault(value, len(known)))
        if split is not None:
            self.splits.append(split)

    def build(self) -> Interactions:
        """The log.

        Raises:
            ValueError: no interaction.
        """
        user_ids, item_ids = (np.array([str(value) for value in known], dtype=object) for known in self.numbers)
        users, items = (np.frombuffer(row, dtype=np.int64) if row else np.empty(0, np.int64) for row in self.rows)
        times = np.array(self.times) if self.time else None
        splits = np.array(self.splits, dtype=np.int8) if self.splits else None
        return Interactions.from_rows(user_ids, item_ids, users, items, times, splits)


def parse_time(value) -> int | float | None:
    """A timestamp as a number: numbers as they are, dates in seconds since 1970, `None` for what is neither."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return value if abs(value) < 2**63 else None
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if not isinstance(value, str):
        return None
    for convert in (int, float, lambda text: datetime.fromisoformat(text).timestamp()):
        try:
            return parse_time(convert(value))
        except ValueError:
            continue
    return None


def text_of(value) -> str:
    """A field of a metadata file as text: lists are joined, markup stays as it stands."""
    if isinstance(value, (list, tuple)):
        return " ".join(filter(None, map(text_of, value)))
    return "" if value is None or isinstance(value, dict) else str(value).strip()


def texts_of_entries(
    entries: Iterator[tuple[int, dict]], item_field: str, item_ids: Collection[str], fields: dict[str, str]
) -> Texts:
    """Texts of the items asked for.

    Args:
        entries (`Iterator`): line numbers and objects of a metadata file.
        item_field (`str`): the field of the item's id.
        item_ids (`Collection[str]`): the items asked for.
        fields (`dict[str, str]`): for those of `TEXT_FIELDS` that have another name in the file, that name.
    """
    asked, texts = set(item_ids), {}
    names = {name: fields.get(name, name) for name in TEXT_FIELDS}
    for _, entry in entries:
        item_id = str(entry.get(item_field))
        if item_id in asked:
            texts[item_id] = {name: text_of(entry.get(key)) for name, key in names.items()}
    return texts
