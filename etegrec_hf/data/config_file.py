"""YAML files whose entries are options of a command."""

import difflib
import json
from collections.abc import Collection
from pathlib import Path

import yaml


def read_config(path: Path, names: Collection[str]) -> dict:
    """The entries of a YAML file.

    Args:
        path (`Path`): of the file.
        names (`Collection[str]`): of the command's options, as Python writes them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no YAML mapping, or has a key that isn't among the names.
    """
    if not path.is_file():
        raise FileNotFoundError(f"`config` {str(path)!r} is no file; name a YAML file.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}; repair it.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}; it needs `name: value` lines.")
    check_keys(values, path, names)
    return values


def check_keys(values: dict, source: Path, names: Collection[str]) -> None:
    """Raises a `ValueError` for a key that isn't among the names, naming the nearest one."""
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "see --help for those that exist."
            raise ValueError(f"config key {key!r} in {source} does not exist; {remedy}")


def as_arguments(values: dict) -> list[str]:
    """A mapping as command line arguments, without what is `None` or an empty list."""
    argv = []
    for name, value in values.items():
        if value is False and name.endswith("_strategy"):
            value = "no"  # which YAML reads as false
        if value is not None and value != []:
            entries = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
            argv += [f"--{name}", *map(str, entries)]
    return argv
