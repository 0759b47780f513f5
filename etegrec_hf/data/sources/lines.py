"""Files read line by line, never whole in memory: plain or gzip."""

import ast
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from .source import Malformed


def is_gzip(path: Path) -> bool:
    """Whether the file is a gzip archive, whatever it is called."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, gzip or not.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an archive that breaks off.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is no file; check the path.")
    try:
        with gzip.open(path) if is_gzip(path) else path.open("rb") as lines:
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
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            malformed.add(number, f"{type(error).__name__}: {error}")
            continue
        if isinstance(entry, dict):
            yield number, entry
        else:
            malformed.add(number, f"it holds a {type(entry).__name__} and no object")
