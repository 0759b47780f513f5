"""Files that are read line by line: plain, or packed by gzip, bzip2 or zstd."""

import ast
import io
import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa

from .source import Malformed

PACKINGS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}  # by a file's first bytes
ARCHIVES = {
    b"PK\x03\x04": "zip",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf": "7z",
    b"Rar!\x1a": "rar",
    b"\x04\x22\x4d\x18": "lz4",
}
FIRST_OBJECTS = 100  # objects whose fields are looked at first, as one alone may leave some out
TAR, TAR_AT = b"ustar", 257  # mark of a tar archive, and its position in the unpacked file


def packing(path: Path) -> str | None:
    """Returns how a file is packed, whatever its name: `"gzip"`, `"bz2"`, `"zstd"` or `None`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an archive of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} isn't a file; check the path.")
    with path.open("rb") as file:
        head = file.read(10)
    archive = next((kind for first, kind in ARCHIVES.items() if head.startswith(first)), None)
    if archive is not None:
        raise ValueError(
            f"{path} is packed as {archive}, which can't be read; unpack it, or pack it by gzip, bzip2 or zstd."
        )
    kind = next((kind for first, kind in PACKINGS.items() if head.startswith(first)), None)
    return None if kind == "bz2" and head[4:] != b"1AY&SY" else kind  # a text may begin with BZh


def open_unpacked(path: Path) -> io.BufferedReader:
    """Opens a file, which may be packed, to read its unpacked bytes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an archive of a kind that can't be read.
        OSError: a packed file whose beginning is damaged.
    """
    kind = packing(path)
    file = path.open("rb") if kind is None else io.BufferedReader(pa.input_stream(str(path), kind), 1 << 20)
    if file.peek(TAR_AT + len(TAR))[TAR_AT:].startswith(TAR):
        file.close()
        raise ValueError(f"{path} is a tar archive; unpack it, and give the file to read.")
    return file


def raw_lines(path: Path) -> Iterator[bytes]:
    """Yields the lines of a file, packed or not.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a packed file that is damaged.
        ValueError: an archive of a kind that can't be read.
    """
    kind = packing(path)
    try:
        with open_unpacked(path) as lines:
            yield from lines
    except OSError as error:
        if kind is None:
            raise
        raise ValueError(f"{path} is a damaged {kind} file ({error}); copy it again.") from error


def json_lines(path: Path, malformed: Malformed, literals: bool = False) -> Iterator[tuple[int, dict]]:
    """Yields line number and object of each line with a JSON object; other lines are recorded as malformed.

    Empty lines are skipped.

    Args:
        path (`Path`): the file.
        malformed ([`Malformed`]): gets the number of lines, and the malformed ones.
        literals (`bool`, *optional*, defaults to `False`): whether to read Python literals too, as in Amazon's
            metadata of 2014 and Steam's reviews. No code is run.
    """
    for number, line in enumerate(raw_lines(path), start=1):
        if not line.strip():
            continue
        malformed.rows += 1
        try:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = _literal(line) if literals else None
                if entry is None:
                    raise
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            malformed.add(number, f"{type(error).__name__}: {error}")
            continue
        if isinstance(entry, dict):
            yield number, entry
        else:
            malformed.add(number, f"it holds a {type(entry).__name__}, not an object")


def with_names(entries: Iterator[tuple[int, dict]]) -> tuple[list[str], Iterator[tuple[int, dict]]]:
    """Returns the names of fields in the first objects, and an iterator over all objects."""
    first = list(islice(entries, FIRST_OBJECTS))
    return list(dict.fromkeys(name for _, entry in first for name in entry)), chain(first, entries)


def _literal(line: bytes) -> object:
    """Returns the Python literal in a line, or `None`."""
    try:
        return ast.literal_eval(line.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError):
        return None
