"""YAML files and the command line, filling the same dataclasses."""

import argparse
import dataclasses
import difflib
import json
from pathlib import Path

import yaml
from transformers import HfArgumentParser


def parse(command: str, argv: list[str], *classes: type, examples: str = "") -> tuple:
    """Instances of `classes` from the command line, and from `--config FILE.yaml` for what it leaves out.

    A file's entries are read as if they stood first on the command line, so types are checked alike.

    Raises:
        ValueError: a file that is no YAML mapping, or a key in it that no class has.
        FileNotFoundError: no such file.
        SystemExit: arguments that can't be parsed, with code 2.
    """
    parser = HfArgumentParser(
        classes,
        prog=f"etegrec {command}",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, help="YAML file with the same names; the command line wins.")
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    config = first.parse_known_args(argv)[0].config
    if config is not None:
        values = read_config(config, classes)
        parser.set_defaults(**{name: None for name, value in values.items() if value is None})
        argv = [*as_arguments(values), *argv]
    *parsed, unknown = parser.parse_args_into_dataclasses(
        argv, look_for_args_file=False, return_remaining_strings=True
    )
    if unknown:
        options = [option for option in parser._option_string_actions if "_" not in option]
        near = difflib.get_close_matches(unknown[0], options, n=1)
        parser.error(f"unknown argument {unknown[0]!r}; " + (f"did you mean {near[0]!r}?" if near else "see --help."))
    return tuple(parsed[: len(classes)])


def read_config(path: Path, classes: tuple[type, ...]) -> dict:
    """The entries of a YAML file.

    Raises:
        ValueError: it is no YAML mapping, or has a key that none of the dataclasses has.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}; repair it.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}; it needs `name: value` lines.")
    check_keys(values, path, classes)
    return values


def check_keys(values: dict, source: Path, classes: tuple[type, ...]) -> None:
    """Raises a `ValueError` for a key that none of the dataclasses has, naming the nearest one."""
    known = [field.name for cls in classes for field in dataclasses.fields(cls) if field.init]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "see --help for those that exist."
            raise ValueError(f"config key {key!r} in {source} does not exist; {remedy}")


def as_arguments(values: dict) -> list[str]:
    """A mapping as command line arguments, without what is `None`."""
    argv = []
    for name, value in values.items():
        if value is False and name.endswith("_strategy"):
            value = "no"  # which YAML reads as false
        if value is not None:
            entries = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
            argv += [f"--{name}", *map(str, entries)]
    return argv
