"""Columns of tables: which a reader needs, and what ids, texts and splits in them mean."""

import re
from pathlib import Path

import pyarrow as pa

from ..splits import SPLIT_NAMES
from .source import TEXT_FIELDS, SourceOptions

ALSO_VALIDATION = ("valid", "val", "dev")


def time_column(names: list[str], options: SourceOptions) -> str | None:
    """The column of timestamps: the one named, or `timestamp` if there is one."""
    return options.time_column or ("timestamp" if "timestamp" in names else None)


def check_columns(names: list[str], path: Path, options: SourceOptions) -> None:
    """Raises a `ValueError` if a column that was named isn't there, or there twice."""
    wanted = {
        "user": options.user_column,
        "item": options.item_column,
        "split": options.split_column,
        "time": options.time_column,
        "title": options.title_column,
    }
    if options.user_column == options.item_column:
        raise ValueError(f"users and items both are column {options.user_column!r}; name one with --item-column.")
    if options.title_column == SourceOptions.title_column or options.items:
        del wanted["title"]
    for kind, name in wanted.items():
        if name is None:
            continue
        remedy = f"name it with --{kind}-column"
        if kind == "time":
            remedy = "name one of them with --time-column, or leave that out"
        if name not in names and any(cell.replace(".", "", 1).isdigit() for cell in names):
            raise ValueError(
                f"{path} has no column {name!r}: its first line {names} holds no names; write a line with the names "
                "of its columns before it."
            )
        if name not in names and len(names) == 1 and re.search(r"\W", names[0]):  # a header in one piece
            remedy = "name the character between its columns with --separator"
        if name not in names:
            raise ValueError(f"{path} has no column {name!r}, only {names}; {remedy}, and check --format.")
        if names.count(name) > 1:
            raise ValueError(f"{path} has {names.count(name)} columns {name!r}; rename all but one.")


def needed_columns(names: list[str], path: Path, options: SourceOptions) -> list[str]:
    """Those of `names` that a log is made of.

    Raises:
        ValueError: one is missing.
    """
    check_columns(names, path, options)
    wanted = {options.user_column, options.item_column, options.split_column, time_column(names, options)}
    wanted |= set(text_columns(names, options).values())
    return [name for name in dict.fromkeys(names) if name in wanted]


def text_columns(names: list[str], options: SourceOptions, aliases: dict[str, str] | None = None) -> dict[str, str]:
    """For those of `TEXT_FIELDS` that a table has, the column's name.

    `aliases` names columns, and the field that each stands for where that has no column of its own name.
    """
    columns = dict(zip(TEXT_FIELDS, TEXT_FIELDS)) | {"title": options.title_column}
    for alias, field in (aliases or {}).items():
        if columns[field] not in names and alias in names:
            columns[field] = alias
    return {field: column for field, column in columns.items() if column in names}


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
