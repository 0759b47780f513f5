"""Columns of tables: which a reader needs, and what ids, texts and splits in them mean."""

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
    """A column that a log may have, and how it is recognised.

    Args:
        noun (`str`): what it holds.
        option (`str`): what names it.
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
        """The column of this kind, if exactly one has a name that says so.

        Args:
            names (`list[str]`): of all columns.
            path (`Path`): of their file, for errors.
            kinds (`Mapping[str, pa.DataType]`, *optional*): types of columns, by which those are ruled out that can't
                be meant where several have such names.
            without (`Collection[str]`, *optional*): columns that are something else.

        Raises:
            ValueError: several columns that are equally likely.
        """
        found = named_like(names, self.groups, without)
        if len(found) > 1:
            possible = [name for name in found if self._may_hold((kinds or {}).get(name))]
            found = possible if len(possible) == 1 else found
        if len(found) > 1:
            raise ValueError(
                f"{path} has several columns that may hold {self.noun}, {found}; name one with {self.option}."
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
    """The columns of a log: those that were named, and others by common names.

    Raises:
        ValueError: one that was named is missing, or there twice; none or several look like users or items, or
            several like times or titles.
    """
    check_named(names, path, options)
    columns = guess_columns(names, path, options, kinds)
    for name in columns.needed():
        if names.count(name) > 1:
            raise ValueError(f"{path} has {names.count(name)} columns {name!r}; rename all but one.")
    return columns


def check_named(names: list[str], path: Path, options: SourceOptions) -> None:
    """Raises a `ValueError` if a column that was named isn't there."""
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
            remedy = "name one of them with --time-column, or leave that out"
        raise ValueError(f"{path} has no column {name!r}{_only(names, remedy)}")


def guess_columns(
    names: list[str], path: Path, options: SourceOptions, kinds: Mapping[str, pa.DataType] | None = None
) -> LogColumns:
    """As [`find_columns`], but the columns that were named may be missing."""
    named = [options.user_column, options.item_column, options.time_column, options.split_column]
    without = [name for name in named if name]
    user = options.user_column or USER.guess(names, path, kinds, without)
    item = options.item_column or ITEM.guess(names, path, kinds, without)
    if user is None or item is None:
        missing = USER if user is None else ITEM
        only = _only(names, f"name it with {missing.option}")
        raise ValueError(f"{path} has no column whose name says that it holds {missing.noun}{only}")
    if user == item:
        raise ValueError(f"users and items both are column {user!r}; name one with --item-column.")
    without += [user, item]
    time = options.time_column or TIME.guess(names, path, kinds, without)
    title = options.title_column or TITLE_OR_DESCRIPTION.guess(names, path, kinds, without)
    texts = text_columns(names, title)
    return LogColumns(tuple(names), user, item, time, options.split_column, texts)


def is_log(names: list[str], options: SourceOptions) -> bool:
    """Whether a header has the columns of ids: those that were named, or one of users and one of items."""
    try:
        columns = guess_columns(names, Path(), options)
    except ValueError:
        return False
    return {columns.user, columns.item} <= set(names)


def _only(names: list[str], remedy: str) -> str:
    """The end of a sentence on a column that isn't among `names`."""
    if any(cell.replace(".", "", 1).isdigit() for cell in names):
        return f": its first line {names} holds no names; write a line with the names of its columns before it."
    if len(names) == 1 and re.search(r"\W", names[0]):  # a header in one piece
        remedy = "name the character between its columns with --separator"
    return f", only {names}; {remedy}, and check --format."


def text_columns(names: Collection[str], title: str | None, aliases: dict[str, str] | None = None) -> dict[str, str]:
    """For those of `TEXT_FIELDS` that a table has, the column's name.

    Args:
        names (`Collection[str]`): of all columns.
        title (`str`, *optional*): the column of titles.
        aliases (`dict[str, str]`, *optional*): names of columns, and the field that each is where that has no column
            of its own name.
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
    """Tells a file of texts which of its columns has ids and which has each text.

    Raises:
        ValueError: no column of ids, or several that are equally likely; several that look like titles.
    """
    path = file.malformed.path
    file.item_column = id_column_of_file(names, path, options, log)
    titles = TITLE if "title" in log.texts else TITLE_OR_DESCRIPTION
    title = options.title_column or titles.guess(names, path, without=[file.item_column])
    # fields that these columns don't hold may come in later lines
    file.fields |= text_columns([name for name in names if name != file.item_column], title, aliases)
    file.fields = {field: name for field, name in file.fields.items() if field == "title" or name != title}


def id_column_of_file(names: list[str], path: Path, options: SourceOptions, log: LogColumns) -> str:
    """The column of ids of a file of texts: called as in the log, or else by a common name.

    Raises:
        ValueError: none, or several that are equally likely.
    """
    if log.item in names:
        return log.item
    found = None if options.item_column else ID_OF_FILE.guess(names, path)
    if found is None:
        raise ValueError(f"{path} has no column {log.item!r}, only {names}; name it as in the log.")
    return found


def ids_as_text(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    """A column of ids as text, or as a dictionary of texts if it is one.

    Raises:
        ValueError: ids that are neither text nor whole numbers.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise ValueError(f"column {name!r} of {path} holds {kind}; ids are text or whole numbers: convert the column.")
    return column if is_text(kind) else column.cast(kind).cast(pa.string())


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def split_number(value, where: str) -> int:
    """0, 1 or 2 for the name of a split.

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
