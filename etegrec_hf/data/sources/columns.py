"""Columns of tables: finding those that a reader needs, and converting ids, texts and splits."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ..splits import SPLIT_NAMES
from .column_names import DESCRIPTIONS, ITEMS, ITEMS_OF_FILE, TIMES, TITLES, USERS, named_like, plain
from .source import TEXT_FIELDS, ItemsFile, LogColumns, SourceOptions

ALSO_VALIDATION = ("valid", "val", "dev")


@dataclass(frozen=True)
class Kind:
    """A kind of column that a log may have, and the names by which it is recognised.

    Args:
        noun (`str`): name of the column's contents, for errors.
        option (`str`): command line option that names the column.
        groups (`tuple[tuple[str, ...], ...]`): common names, see [`named_like`].
    """

    noun: str
    option: str
    groups: tuple[tuple[str, ...], ...]

    def guess(
        self,
        names: list[str],
        path: Path,
        kinds: Mapping[str, pa.DataType] | None = None,
        without: Collection[str] = (),
    ) -> str | None:
        """Returns the column of this kind by its name, or `None` if no column has a common name.

        Args:
            names (`list[str]`): names of all columns.
            path (`Path`): their file, for errors.
            kinds (`Mapping[str, pa.DataType]`, *optional*): types of columns. If several columns have common names,
                those whose type doesn't fit are left out.
            without (`Collection[str]`, *optional*): columns known to be of another kind.

        Raises:
            ValueError: several columns that are equally likely.
        """
        found = named_like(names, self.groups, without)
        if len(found) > 1:
            possible = [name for name in found if self._may_hold((kinds or {}).get(name))]
            found = possible if len(possible) == 1 else found
        if len(found) > 1:
            raise ValueError(
                f"{path} has several columns that may hold {self.noun}: {found}; name one with {self.option}."
            )
        return found[0] if found else None

    def _may_hold(self, kind: pa.DataType | None) -> bool:
        if kind is None:
            return True
        if pa.types.is_dictionary(kind):
            return self._may_hold(kind.value_type)
        if is_text(kind) or pa.types.is_integer(kind):
            return True
        is_moment = pa.types.is_floating(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind)
        return self.option == TIME.option and is_moment


USER = Kind("users", "--user-column", USERS)
ITEM = Kind("items", "--item-column", ITEMS)
TIME = Kind("times", "--time-column", TIMES)
TITLE = Kind("titles", "--title-column", TITLES)
TITLE_OR_DESCRIPTION = Kind("titles", "--title-column", (*TITLES, *DESCRIPTIONS))
ID_OF_FILE = Kind("items", "--item-column", ITEMS_OF_FILE)


def find_columns(
    names: list[str], path: Path, options: SourceOptions, kinds: Mapping[str, pa.DataType] | None = None
) -> LogColumns:
    """Finds the columns of a log: those that options name, and others by common names.

    Raises:
        ValueError: a column that an option names is missing or occurs twice.
        ValueError: no column, or several, have a common name for users or items.
        ValueError: several columns have a common name for times or titles.
    """
    check_named_columns(names, path, options)
    columns = guess_columns(names, path, options, kinds)
    for name in columns.needed():
        if names.count(name) > 1:
            raise ValueError(f"{path} has {names.count(name)} columns {name!r}; rename all but one of them.")
    return columns


def check_named_columns(names: list[str], path: Path, options: SourceOptions) -> None:
    """Raises a `ValueError` if a column that an option names doesn't exist."""
    wanted = {
        "user": options.user_column,
        "item": options.item_column,
        "split": options.split_column,
        "time": options.time_column,
        "title": None if options.items else options.title_column,
    }
    for kind, name in wanted.items():
        if name is None or name in names:
            continue
        remedy = f"name it with --{kind}-column"
        if kind == "time":
            remedy = "name one of them with --time-column, or leave that option out"
        raise ValueError(f"{path} has no column {name!r}{_only(names, remedy)}")


def guess_columns(
    names: list[str], path: Path, options: SourceOptions, kinds: Mapping[str, pa.DataType] | None = None
) -> LogColumns:
    """Finds columns as [`find_columns`] does, but columns that options name needn't exist."""
    named = [options.user_column, options.item_column, options.time_column, options.split_column]
    without = [name for name in named if name]
    user = options.user_column or USER.guess(names, path, kinds, without)
    item = options.item_column or ITEM.guess(names, path, kinds, without)
    if user is None or item is None:
        missing = USER if user is None else ITEM
        only = _only(names, f"name it with {missing.option}")
        raise ValueError(f"{path} has no column whose name says that it holds {missing.noun}{only}")
    if user == item:
        raise ValueError(f"column {user!r} would be both users and items; name another with --item-column.")
    without += [user, item]
    time = options.time_column or TIME.guess(names, path, kinds, without)
    title = options.title_column or TITLE_OR_DESCRIPTION.guess(names, path, kinds, without)
    texts = text_columns(names, title)
    return LogColumns(tuple(names), user, item, time, options.split_column, texts)


def is_log(names: list[str], options: SourceOptions) -> bool:
    """Returns whether a header has columns of user and item ids, named by options or by common names."""
    try:
        columns = guess_columns(names, Path(), options)
    except ValueError:
        return False
    return {columns.user, columns.item} <= set(names)


def _only(names: list[str], remedy: str) -> str:
    """Returns the end of an error about a column that isn't among `names`."""
    if any(cell.replace(".", "", 1).isdigit() for cell in names):
        return f": its first line {names} holds no names; insert a first line with the names of the columns."
    if len(names) == 1 and re.search(r"\W", names[0]):  # a header in one piece
        remedy = "name the character between its columns with --separator"
    return f", only {names}; {remedy}, and check --format."


def text_columns(names: Collection[str], title: str | None, aliases: dict[str, str] | None = None) -> dict[str, str]:
    """Returns the column of each of `TEXT_FIELDS` that a table has, by field.

    Args:
        names (`Collection[str]`): names of all columns.
        title (`str`, *optional*): the column of titles.
        aliases (`dict[str, str]`, *optional*): further names of columns, and the field that each holds if no column
            has the field's own name.
    """
    columns = {} if title is None else {"title": title}
    for field in TEXT_FIELDS:
        like = [name for name in names if plain(name) == field and name != title]
        if field != "title" and like:
            columns[field] = field if field in like else like[0]
    for alias, field in (aliases or {}).items():
        if alias in names:
            columns.setdefault(field, alias)
    return {field: column for field, column in columns.items() if column in names}


def find_file_columns(
    file: ItemsFile, names: list[str], options: SourceOptions, log: LogColumns, aliases: dict[str, str] | None = None
) -> None:
    """Finds the columns of ids and texts in a file of texts, and sets them in `file`.

    Raises:
        ValueError: no column of ids, or several that are equally likely.
        ValueError: several columns that may hold titles.
    """
    path = file.malformed.path
    file.item_column = id_column_of_file(names, path, options, log)
    titles = TITLE if "title" in log.texts else TITLE_OR_DESCRIPTION
    title = options.title_column or titles.guess(names, path, without=[file.item_column])
    # later lines may have fields that aren't among these columns
    file.fields |= text_columns([name for name in names if name != file.item_column], title, aliases)
    file.fields = {field: name for field, name in file.fields.items() if field == "title" or name != title}


def id_column_of_file(names: list[str], path: Path, options: SourceOptions, log: LogColumns) -> str:
    """Returns the column of ids in a file of texts: the one named as in the log, or one with a common name.

    Raises:
        ValueError: no such column, or several that are equally likely.
    """
    if log.item in names:
        return log.item
    found = None if options.item_column else ID_OF_FILE.guess(names, path)
    if found is None:
        raise ValueError(f"{path} has no column {log.item!r}, only {names}; rename the column of ids as in the log.")
    return found


def ids_as_text(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    """Converts a column of ids to text; a dictionary-encoded column of texts stays encoded.

    Raises:
        ValueError: ids that are neither text nor whole numbers.
    """
    kind = kind_of_ids(column.type, name, path)
    return column if is_text(kind) else column.cast(kind).cast(pa.string())


def kind_of_ids(kind: pa.DataType, name: str, path: Path) -> pa.DataType:
    """Returns the type of a column of ids, or of the values that it encodes.

    Raises:
        ValueError: ids that are neither text nor whole numbers.
    """
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise ValueError(
            f"column {name!r} of {path} holds {kind}, but ids must be text or whole numbers; convert the column."
        )
    return kind


def without_views(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns a column with texts instead of views of texts, which polars makes and pyarrow hardly supports."""
    if pa.types.is_string_view(column.type):
        return column.cast(pa.string())
    if pa.types.is_dictionary(column.type) and pa.types.is_string_view(column.type.value_type):
        chunks = [
            pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary.cast(pa.string()))
            for chunk in column.chunks
        ]
        return pa.chunked_array(chunks, pa.dictionary(column.type.index_type, pa.string()))
    return column


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def split_number(value, where: str) -> int:
    """Returns 0, 1 or 2 for the name of a split.

    Raises:
        ValueError: another name.
    """
    name = value.strip().lower() if isinstance(value, str) else value
    name = "validation" if name in ALSO_VALIDATION else name
    if name not in SPLIT_NAMES:
        raise ValueError(
            f"the split of {where} is {value!r}; write one of {', '.join(SPLIT_NAMES)}, or name another column with "
            "--split-column."
        )
    return SPLIT_NAMES.index(name)
