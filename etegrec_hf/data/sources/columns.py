"""Which columns of a table a reader needs."""

from pathlib import Path

from ..splits import SPLIT_NAMES
from .source import TEXT_FIELDS, SourceOptions

ALSO_VALIDATION = ("valid", "val", "dev")


def time_column(names: list[str], path: Path, options: SourceOptions) -> str | None:
    """The column of timestamps, if there is one.

    Raises:
        ValueError: a named one doesn't exist.
    """
    if options.time_column is None:
        return "timestamp" if "timestamp" in names else None
    if names and options.time_column not in names:
        raise ValueError(
            f"{path} has no column {options.time_column!r}, only {names}; name one of them with --time-column, or "
            "leave that out."
        )
    return options.time_column


def check_columns(names: list[str], path: Path, options: SourceOptions) -> None:
    """Raises a `ValueError` if a column isn't there."""
    wanted = {"user": options.user_column, "item": options.item_column, "split": options.split_column}
    for kind, name in wanted.items():
        if names and name is not None and name not in names:
            raise ValueError(f"{path} has no column {name!r}, only {names}; name it with --{kind}-column.")
    titled = options.title_column in names or options.title_column == SourceOptions.title_column or options.items
    if names and not titled:
        raise ValueError(f"{path} has no column {options.title_column!r}, only {names}; name it with --title-column.")


def needed_columns(names: list[str], path: Path, options: SourceOptions) -> list[str]:
    check_columns(names, path, options)
    wanted = {options.user_column, options.item_column, options.split_column, options.title_column, *TEXT_FIELDS[1:]}
    wanted.add(time_column(names, path, options))
    return [name for name in names if name in wanted]


def split_number(value, where: str) -> int:
    """0, 1 or 2 for the name of a split.

    Raises:
        ValueError: another name.
    """
    name = "validation" if value in ALSO_VALIDATION else value
    if name not in SPLIT_NAMES:
        raise ValueError(f"the split of {where} is {value!r}; write one of {', '.join(SPLIT_NAMES)}.")
    return SPLIT_NAMES.index(name)
