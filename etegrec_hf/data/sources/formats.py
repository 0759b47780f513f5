"""Recognition of a log's format by its name and its first lines."""

import ast
import codecs
import json
import re
from pathlib import Path

from .amazon import EDITIONS
from .csv_table import SEPARATORS
from .lines import open_unpacked

FOLDERS = {
    "movielens": ("u.data", "ratings.dat", "ratings.csv"),
    "etegrec": ("*.train.jsonl",),
    "letter": ("*.inter.json",),
    "recbole": ("*.inter",),
    "hub": ("state.json", "dataset_dict.json"),
}
# names of files that belong to one format; if it needs the whole folder, its reader says so
FILES = {
    r"(u\.data|ratings\.dat)$": "movielens",
    r"\.train\.jsonl$": "etegrec",
    r"\.inter\.json(\.(gz|bz2|zst))?$": "letter",
    r"\.inter(\.(gz|bz2|zst))?$": "recbole",
}
OF_A_FILE = r"\.(csv|tsv|txt|dat|jsonl?|parquet|inter|gz|bz2|zst|zip|xlsx?)$"  # endings that no id on the Hub has
ON_HUB = r"[\w.-]+/[\w.-]+(@.+)?"
HEAD = 1 << 16  # bytes at the beginning of a file that are read
FIRST_LINES = 20
KNOWN = "Amazon's reviews, MovieLens, RecBole, LETTER, the original ETEGRec, CSV, JSON lines, parquet or the Hub"


def likely_formats(path: Path) -> list[str]:
    """Returns the formats that the log at `path` may have, as keys of `READERS`, the most special one first.

    Raises:
        FileNotFoundError: nothing at the path.
        ValueError: a file or folder whose format isn't recognised.
        ValueError: a folder with files of several formats.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.exists():
        if re.fullmatch(ON_HUB, path.as_posix()) and not re.search(OF_A_FILE, path.name):
            return ["hub"]
        raise FileNotFoundError(f"{str(path)!r} is neither a file nor a folder; check the path.")
    for pattern, format in FILES.items():
        if re.search(pattern, path.name):
            return [format]
    return _of_content(path)


def _of_folder(path: Path) -> list[str]:
    if (path / "items/items.parquet").is_file() and (path / "sequences").is_dir():
        raise ValueError(f"{str(path)!r} is a prepared dataset already; give it to other commands as --data.")
    found = [format for format, names in FOLDERS.items() if any(any(path.glob(name)) for name in names)]
    if found == ["movielens"] and not any((path / name).is_file() for name in FOLDERS["movielens"][:2]):
        found = found if b"movieId" in _head(path / "ratings.csv").partition(b"\n")[0] else []
    if not found and next(path.rglob("*.parquet"), None) is not None:
        found = ["parquet"]
    if not found:
        reviews = [file for file in sorted(path.glob("*.json*")) if not file.name.startswith("meta_")]
        of_reviews = _of_content(reviews[0]) if len(reviews) == 1 else []
        found = [format for format in of_reviews if format in EDITIONS]
    if len(found) != 1:
        what = f"files of several formats ({', '.join(found)})" if found else "no log of a known format"
        raise ValueError(f"{str(path)!r} holds {what}; give the path of the file to read, or choose a --format.")
    return found


def _head(path: Path) -> bytes:
    """Returns the first bytes of a file, unpacked."""
    try:
        with open_unpacked(path) as file:
            return file.read(HEAD)
    except OSError as error:
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        raise ValueError(f"{path} is damaged ({error}); copy it again.") from error


def _of_content(path: Path) -> list[str]:
    if path.suffix in (".xlsx", ".xls"):
        raise ValueError(f"{path} is a spreadsheet; save it as CSV, and give the CSV file.")
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            return ["parquet"]
    head = _head(path)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{path} is UTF-16; save it as UTF-8.")
    lines = [line for line in head.decode("utf-8-sig", errors="replace").splitlines() if line.strip()][:FIRST_LINES]
    if not lines:
        raise ValueError(f"the log is empty: {path} holds no interaction; check the path.")
    if lines[0].startswith("["):
        raise ValueError(f"{path} is one JSON array; write one object per line (JSON lines), or CSV.")
    objects = [line for line in lines if line.lstrip().startswith("{")]
    if 2 * len(objects) >= len(lines):
        return _of_objects(objects, path)
    if b"\0" not in head and any(separator in lines[0] for separator in SEPARATORS):
        return ["csv"]
    raise ValueError(
        f"the format of {path} isn't recognised ({KNOWN}); name it with --format, or convert the file to CSV, JSON "
        "lines or parquet."
    )


def _of_objects(lines: list[str], path: Path) -> list[str]:
    """Returns the formats of a file with objects, given its first lines."""
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            try:
                entry = ast.literal_eval(line.strip())
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
        if isinstance(entry, dict) and entry and not all(isinstance(value, list) for value in entry.values()):
            return [*_amazon(entry), "jsonl"]
    if re.match(r'\s*\{\s*"[^"]*"\s*:\s*\[', lines[0]):
        return ["letter"]
    if len(lines) == 1:  # one long line, of which only the beginning was read
        return ["jsonl"]
    raise ValueError(
        f"{path} holds objects that can't be read; write one JSON object per line, or name its format with --format."
    )


def _amazon(entry: dict) -> list[str]:
    """Returns the edition of Amazon's reviews that a line belongs to, as a list of at most one."""
    found = [name for name, edition in EDITIONS.items() if {edition.user, edition.item, edition.time} <= entry.keys()]
    if found == [
        "amazon2014",
        "amazon2018",
    ]:  # both have these fields; votes are `helpful` in 2014 and `vote` in 2018
        return found[:1] if "helpful" in entry else found[1:]
    return found
