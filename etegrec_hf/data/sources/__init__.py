"""Readers of interaction logs, one per format."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from ..checks import check_choice, check_named
from .amazon import EDITIONS, read_amazon
from .etegrec import read_etegrec
from .formats import likely_formats
from .json_rows import read_jsonl
from .letter import read_letter
from .movielens import read_movielens
from .source import ROW_ORDER, Malformed, Source, SourceOptions
from .tables import InMemory, read_csv, read_hub, read_in_memory, read_parquet, read_recbole

__all__ = [
    "AUTO",
    "READERS",
    "ROW_ORDER",
    "InMemory",
    "Malformed",
    "Source",
    "SourceOptions",
    "check_options",
    "read_source",
]

AUTO = "auto"
COLUMNS = ("user_column", "item_column", "time_column", "title_column", "split_column", "items", "max_malformed")


@dataclass(frozen=True)
class Reader:
    """A function that reads a format, and the names of the options that it uses."""

    read: Callable[[Path, SourceOptions], Source]
    uses: tuple[str, ...]


READERS = {
    **{edition: Reader(partial(read_amazon, edition), ("items", "max_malformed")) for edition in EDITIONS},
    "movielens": Reader(read_movielens, ("max_malformed",)),
    "recbole": Reader(read_recbole, (*COLUMNS, "separator")),
    "letter": Reader(read_letter, ()),
    "etegrec": Reader(read_etegrec, ()),
    "csv": Reader(read_csv, (*COLUMNS, "separator")),
    "jsonl": Reader(read_jsonl, COLUMNS),
    "parquet": Reader(read_parquet, COLUMNS),
    "hub": Reader(read_hub, (*COLUMNS, "hub_config", "hub_split")),
}


def read_source(log: "str | Path | InMemory", format: str, options: SourceOptions) -> tuple[Source, str]:
    """Reads a log, and returns it with the name of its format.

    Args:
        log (`str`, `Path` or a table): a path, an id on the Hub, or a table that [`read_in_memory`] takes.
        format (`str`): a key of `READERS`; with `"auto"` the format is recognised.
        options ([`SourceOptions`]): options for reading.

    Raises:
        FileNotFoundError: the reader doesn't find its files.
        ValueError: an empty path, an unknown format, or a log whose format isn't recognised.
        ValueError: an option that the format doesn't use.
        ValueError: damaged data.
        ConnectionError: the Hub can't be reached.
    """
    check_choice("format", format, (AUTO, *READERS))
    if not isinstance(log, (str, Path)):
        if format != AUTO:
            raise ValueError(f"`format` is {format!r}, but a table in memory has no file format; leave it out.")
        check_options("table", COLUMNS, options)
        return read_in_memory(log, options), "table"
    path = check_named("path", log)
    formats = likely_formats(path) if format == AUTO else [format]
    # of several possible formats, the first that uses all given options is chosen
    format = next((name for name in formats if not _without_meaning(READERS[name].uses, options)), formats[0])
    check_options(format, READERS[format].uses, options)
    return READERS[format].read(path, options), format


def _without_meaning(uses: tuple[str, ...], options: SourceOptions) -> list[str]:
    """Returns the names of options that were given but aren't in `uses`."""
    given = [field.name for field in fields(options) if getattr(options, field.name) != field.default]
    return [name for name in given if name not in uses]


def check_options(format: str, uses: tuple[str, ...], options: SourceOptions) -> None:
    """Raises errors for wrong options, before anything is read."""
    for name in _without_meaning(uses, options):
        raise ValueError(
            f"`{name}` is {getattr(options, name)!r}, but the format {format!r} has no such option; leave it out."
        )
    if options.items is not None and not Path(options.items).is_file():
        raise FileNotFoundError(f"`items` {options.items!r} isn't a file; name the file with the items' texts.")
