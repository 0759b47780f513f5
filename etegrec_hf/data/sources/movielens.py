"""The reader of MovieLens: folders of the 100K, 1M and 32M sets, and of others with the same layout."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

from ..wording import counted
from .csv_table import csv_table, row_number
from .item_texts import texts_of_entries
from .lines import raw_lines
from .log_builder import LogBuilder
from .source import ItemsFile, Malformed, Source, SourceOptions, Texts
from .tables import read_csv

# columns of u.item from the sixth on
GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
NO_GENRES = "(no genres listed)"


def read_movielens(path: Path, options: SourceOptions) -> Source:
    """Reads a folder with `u.data` (100K), `ratings.dat` (1M) or `ratings.csv` (32M); each rating is an interaction.

    Raises:
        FileNotFoundError: the folder holds none of these files.
        ValueError: too many malformed lines, or no interaction.
    """
    if (path / "u.data").is_file():
        source = _read_ratings(path / "u.data", "\t", options)
        return _with_texts(source, path / "u.item", _movies_100k, options)
    if (path / "ratings.dat").is_file():
        source = _read_ratings(path / "ratings.dat", "::", options)
        return _with_texts(source, path / "movies.dat", _movies_1m, options)
    if (path / "ratings.csv").is_file():
        named = SourceOptions("userId", "movieId", "timestamp", max_malformed=options.max_malformed)
        return _with_texts(read_csv(path / "ratings.csv", named), path / "movies.csv", _movies_32m, options)
    raise FileNotFoundError(
        f"{str(path)!r} isn't a folder with u.data, ratings.dat or ratings.csv; give the folder that the archive "
        "unpacks to."
    )


def _read_ratings(path: Path, separator: str, options: SourceOptions) -> Source:
    malformed = Malformed(path)
    log = LogBuilder(path, malformed, "user", "item", "timestamp")
    for number, fields in _fields(path, separator, 4, malformed):
        log.add(number, {"user": fields[0], "item": fields[1], "timestamp": fields[3]})
    malformed.check(options.max_malformed)
    return Source(log.build(), order="timestamp", malformed=[malformed], unused=["rating"])


def _with_texts(source: Source, movies: Path, parse: Callable, options: SourceOptions) -> Source:
    """Returns the source with titles and genres, if their file exists."""
    if not movies.is_file():
        return source
    file = ItemsFile(Malformed(movies), "item", {"title": "title", "categories": "categories"})

    def read_texts(item_ids: Collection[str]) -> Texts:
        texts = texts_of_entries(parse(movies, file.malformed), item_ids, file)
        file.malformed.check(options.max_malformed)
        return texts

    return replace(source, read_texts=read_texts, items_file=file)


def _fields(path: Path, separator: str, expected: int, malformed: Malformed) -> Iterator[tuple[int, list[str]]]:
    """Yields line number and fields of each line with the expected number of fields."""
    for number, line in enumerate(raw_lines(path), start=1):
        fields = _text(line).rstrip("\r\n").split(separator)
        if fields == [""]:
            continue
        malformed.rows += 1
        if len(fields) == expected:
            yield number, fields
        else:
            malformed.add(number, f"{counted(len(fields), 'field')} instead of {expected}, separated by {separator!r}")


def _text(line: bytes) -> str:
    """Decodes a line: the 100K and 1M sets are in latin-1, later ones in UTF-8, which latin-1 is rarely valid as."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _entry(item: str, title: str, genres: list[str]) -> dict:
    """Returns a movie as an object of a metadata file."""
    return {"item": item, "title": title, "categories": [genre for genre in genres if genre != NO_GENRES]}


def _movies_100k(path: Path, malformed: Malformed) -> Iterator[tuple[int, dict]]:
    for number, (item, title, _, _, _, *flags) in _fields(path, "|", 5 + len(GENRES), malformed):
        yield number, _entry(item, title, [genre for genre, flag in zip(GENRES, flags) if flag == "1"])


def _movies_1m(path: Path, malformed: Malformed) -> Iterator[tuple[int, dict]]:
    for number, (item, title, genres) in _fields(path, "::", 3, malformed):
        yield number, _entry(item, title, genres.split("|"))


def _movies_32m(path: Path, malformed: Malformed) -> Iterator[tuple[int, dict]]:
    def needed(names: list[str]) -> list[str]:
        if len(names) != 3:
            raise ValueError(f"{path} has the columns {names}; it needs three: ids, titles and genres.")
        return names

    malformed.unit = "row"
    movies = csv_table(path, ",", malformed, needed)
    for row, (item, title, genres) in enumerate(zip(*(column.to_pylist() for column in movies.table.columns))):
        yield row_number(row, movies.left_out), _entry(item, title, (genres or "").split("|"))
