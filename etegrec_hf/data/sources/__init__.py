"""Readers of interaction logs, one for each format."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from ..checks import check_choice
from .amazon import EDITIONS, read_amazon
from .etegrec import read_etegrec
from .json_rows import read_jsonl
from .letter import read_letter
from .movielens import read_movielens
from .source import ROW_ORDER, Malformed, Source, SourceOptions
from .tables import read_csv, read_hub, read_parquet, read_recbole

__all__ = ["READERS", "ROW_ORDER", "Malformed", "Source", "SourceOptions", "read_source"]

COLUMNS = ("user_column", "item_column", "time_column", "title_column", "split_column", "items", "max_malformed")


@dataclass(frozen=True)
class Reader:
    """A function that reads a format, and the options that mean something to it."""

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


def read_source(path: str | Path, format: str, options: SourceOptions) -> Source:
    """Reads a log.

    Raises:
        FileNotFoundError: the reader doesn't find its files.
        ValueError: an unknown format, an option that means nothing to it, or broken data.
        ConnectionError: the Hub can't be reached.
    """
    check_choice("format", format, READERS)
    reader = READERS[format]
    for field in fields(options):
        value = getattr(options, field.name)
        if value != field.default and field.name not in reader.uses:
            raise ValueError(f"`{field.name}` is {value!r} and means nothing to the format {format!r}; leave it out.")
    if options.items is not None and not Path(options.items).is_file():
        raise FileNotFoundError(f"`items` {options.items!r} is no file; name the file of the items' texts.")
    return reader.read(Path(path), options)
