"""YAML files whose entries are options of a command."""

import difflib
import json
from collections.abc import Collection
from pathlib import Path

import yaml


def read_config(path: Path, names: Collection[str]) -> dict:
    """Reads the entries of a YAML file.

    Args:
        path (`Path`): the file.
        names (`Collection[str]`): names of the command's options, with underscores.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file isn't a YAML mapping.
        ValueError: a key that isn't one of the names.
    """
    if not path.is_file():
        raise FileNotFoundError(f"`config` {str(path)!r} isn't a file; name a YAML file.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} isn't YAML: {' '.join(str(error).split())}; repair it.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}; it needs `name: value` lines.")
    check_keys(values, path, names)
    return values


def check_keys(values: dict, source: Path, names: Collection[str]) -> None:
    """Raises a `ValueError` for a key that isn't one of the names; the error suggests the nearest name."""
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "see --help for the options that exist."
            raise ValueError(f"config key {key!r} in {source} does not exist; {remedy}")


def as_arguments(values: dict) -> list[str]:
    """Converts a mapping to command line arguments; values that are `None` or an empty list are left out."""
    argv = []
    for name, value in values.items():
        if value is False and name.endswith("_strategy"):
            value = "no"  # YAML reads an unquoted `no` as false
        if value is not None and value != []:
            entries = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
            argv += [f"--{name}", *map(str, entries)]
    return argv
