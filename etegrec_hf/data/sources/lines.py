"""Files read line by line, never whole in memory: plain, or packed by gzip, bzip2 or zstd."""

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
FIRST_OBJECTS = 100  # that tell the names of fields, as one may leave some out
TAR, TAR_AT = b"ustar", 257  # and where it stands, in a file that may be packed as a whole


def packing(path: Path) -> str | None:
    """How a file is packed, whatever it is called: `"gzip"`, `"bz2"`, `"zstd"` or not at all.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an archive of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is no file; check the path.")
    with path.open("rb") as file:
        head = file.read(10)
    archive = next((kind for first, kind in ARCHIVES.items() if head.startswith(first)), None)
    if archive is not None:
        raise ValueError(
            f"{path} is packed as {archive}, which isn't read; unpack it, or pack it by gzip, bzip2 or zstd."
        )
    kind = next((kind for first, kind in PACKINGS.items() if head.startswith(first)), None)
    return None if kind == "bz2" and head[4:] != b"1AY&SY" else kind  # a text may begin with BZh


def open_unpacked(path: Path) -> io.BufferedReader:
    """The bytes of a file as they were before it was packed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an archive of a kind that isn't read.
        OSError: a packed file whose beginning is damaged.
    """
    kind = packing(path)
    file = path.open("rb") if kind is None else io.BufferedReader(pa.input_stream(str(path), kind), 1 << 20)
    if file.peek(TAR_AT + len(TAR))[TAR_AT:].startswith(TAR):
        file.close()
        raise ValueError(f"{path} is a tar archive of files; unpack it, and give the one to read.")
    return file


def raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, packed or not.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a packed file that is damaged, or an archive of a kind that isn't read.
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
    """Line number and object of each line that holds one; the others are noted, empty ones passed over.

    `literals` reads Python literals as well, in which Amazon's metadata of 2014 and reviews of Steam are written;
    nothing is evaluated.
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
            malformed.add(number, f"it holds a {type(entry).__name__} and no object")


def with_names(entries: Iterator[tuple[int, dict]]) -> tuple[list[str], Iterator[tuple[int, dict]]]:
    """The fields that the first objects have, and all objects."""
    first = list(islice(entries, FIRST_OBJECTS))
    return list(dict.fromkeys(name for _, entry in first for name in entry)), chain(first, entries)


def _literal(line: bytes) -> object:
    """The Python literal of a line, or `None` if it is none."""
    try:
        return ast.literal_eval(line.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError):
        return None
