"""MovieLens: the folders of the 100K, 1M and 32M sets (and of those laid out like them), as they are published."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from .lines import LogBuilder, raw_lines, texts_of_entries
from .source import Malformed, Source, SourceOptions, Texts
from .tables import read_csv

# The columns of u.item, from the sixth on
GENRES = (
    *(
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
        "Fantasy",
    ),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def read_movielens(path: Path, options: SourceOptions) -> Source:
    """Reads a folder with `u.data` (100K), `ratings.dat` (1M) or `ratings.csv` (32M), every rating as an interaction.

    Raises:
        FileNotFoundError: none of these is there.
        ValueError: see [`Malformed`].
    """
    if (path / "u.data").exists():
        return _read_lines(path / "u.data", "\t", path / "u.item", _movies_100k, options)
    if (path / "ratings.dat").exists():
        return _read_lines(path / "ratings.dat", "::", path / "movies.dat", _movies_1m, options)
    if (path / "ratings.csv").exists():
        movies = path / "movies.csv"
        named = SourceOptions(
            user_column="userId",
            item_column="movieId",
            time_column="timestamp",
            items=str(movies) if movies.exists() else None,
            max_malformed=options.max_malformed,
        )
        return read_csv(path / "ratings.csv", named, {"categories": "genres"})
    raise FileNotFoundError(
        f"{path} holds none of u.data, ratings.dat and ratings.csv; give the folder that the archive unpacks to."
    )


def _read_lines(path: Path, separator: str, movies: Path, parse: Callable, options: SourceOptions) -> Source:
    malformed = Malformed(path)
    log = LogBuilder(path, malformed, "user", "item", "time")
    for number, fields in _fields(path, separator, 4, malformed):
        log.add(number, {"user": fields[0], "item": fields[1], "time": fields[3]})
    malformed.check(options.max_malformed)
    if not movies.exists():
        return Source(log.build(), order="timestamp", malformed=[malformed])
    of_movies = Malformed(movies)
    read_texts = partial(_read_movies, movies, parse, of_movies, options.max_malformed)
    return Source(log.build(), read_texts, order="timestamp", malformed=[malformed, of_movies])


def _fields(path: Path, separator: str, expected: int, malformed: Malformed) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that has as many as expected."""
    for number, line in enumerate(raw_lines(path), start=1):
        fields = line.decode("latin-1").rstrip("\r\n").split(separator)
        if fields == [""]:
            continue
        malformed.rows += 1
        if len(fields) == expected:
            yield number, fields
        else:
            malformed.add(f"line {number}", f"{len(fields)} fields instead of {expected}, separated by {separator!r}")


def _read_movies(
    path: Path, parse: Callable, malformed: Malformed, max_malformed: float, item_ids: Collection[str]
) -> Texts:
    texts = texts_of_entries(parse(path, malformed), "item", item_ids, {})
    malformed.check(max_malformed)
    return texts


def _movies_100k(path: Path, malformed: Malformed) -> Iterator[tuple[int, dict]]:
    for number, fields in _fields(path, "|", 5 + len(GENRES), malformed):
        genres = [genre for genre, flag in zip(GENRES, fields[5:]) if flag == "1"]
        yield number, {"item": fields[0], "title": fields[1], "categories": genres}


def _movies_1m(path: Path, malformed: Malformed) -> Iterator[tuple[int, dict]]:
    for number, fields in _fields(path, "::", 3, malformed):
        yield number, {"item": fields[0], "title": fields[1], "categories": fields[2].split("|")}
