"""YAML files and the command line, filling the same dataclasses."""

import argparse
import dataclasses
import difflib
import json
from enum import Enum
from pathlib import Path

import yaml
from transformers import HfArgumentParser

LIST_OPTIONS = "--list-options"


def parse(command: str, argv: list[str], *classes: type, examples: str = "") -> tuple:
    """Instances of `classes` from the command line, and from `--config FILE.yaml` for what it leaves out.

    A file's entries are read as if they stood first on the command line, so types are checked alike.

    Raises:
        ValueError: a file that is no YAML mapping, or a key in it that no class has.
        FileNotFoundError: no such file.
        SystemExit: arguments that can't be parsed, with code 2.
    """
    parser = make_parser(command, classes, examples)
    check_options(parser, argv)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    config = first.parse_known_args(argv)[0].config
    if config is not None:
        values = read_config(config, classes)
        parser.set_defaults(**{name: value for name, value in values.items() if value is None or value == []})
        argv = [*as_arguments(with_whole_numbers(values, parser)), *argv]
    *parsed, unknown = parser.parse_args_into_dataclasses(
        argv, look_for_args_file=False, return_remaining_strings=True
    )
    if unknown:
        parser.error(f"unknown argument {unknown[0]!r}; see --help.")
    return tuple(parsed[: len(classes)])


def make_parser(command: str, classes: tuple[type, ...], examples: str) -> HfArgumentParser:
    """The parser of a command, whose help shows every default, and examples."""
    parser = HfArgumentParser(
        classes,
        prog=f"etegrec {command}",
        usage=f"etegrec {command} [--help] [--config FILE.yaml] [--OPTION VALUE ...]",  # a list of all fills a screen
        epilog=examples,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    for action in parser._actions:
        action.help = action.help or inherited_help(classes, action.dest)
    parser.add_argument("--config", type=Path, help="YAML file with the same names; the command line wins.")
    debug = parser._option_string_actions.get("--debug")  # TrainingArguments has one, which a file alone can set
    if debug is None:
        debug = parser.add_argument("--debug", action="store_true")
    debug.help = "Show the trace of an error."
    parser.add_argument(LIST_OPTIONS, action=ListOptions, nargs=0, help=argparse.SUPPRESS)
    return parser


def inherited_help(classes: tuple[type, ...], name: str) -> str:
    """What the nearest parent says of a field whose default alone was changed."""
    parents = (parent for cls in classes for parent in cls.__mro__ if dataclasses.is_dataclass(parent))
    found = (field.metadata.get("help") for cls in parents for field in dataclasses.fields(cls) if field.name == name)
    return next(filter(None, found), "")


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    """The options to offer: each spelling with hyphens, and none that the help leaves out."""
    return [
        option
        for option, action in parser._option_string_actions.items()
        if option.startswith("--") and "_" not in option and action.help is not argparse.SUPPRESS
    ]


def check_options(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Stops with code 2 at an option that doesn't exist, naming the nearest, before others are found missing."""
    for argument in argv:
        option = argument.partition("=")[0]
        if option.startswith("--") and " " not in option and option not in parser._option_string_actions:
            near = difflib.get_close_matches(option, options_of(parser), n=1)
            parser.error(f"unknown argument {option!r}; " + (f"did you mean {near[0]!r}?" if near else "see --help."))


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Examples as they were written, and behind each option its default."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.required:
            return f"{action.help} (required)"
        if action.default is argparse.SUPPRESS:
            return action.help or ""
        default = action.default
        if isinstance(default, Enum):
            default = default.value
        elif isinstance(default, list):
            default = " ".join(map(str, default))
        default = str(default).replace("%", "%%")  # which argparse would take for a format
        return f"{action.help} (default: {default})"


class ListOptions(argparse.Action):
    """Prints a command's options, one a line, and ends: what `etegrec completion` asks each command for."""

    def __call__(self, parser, namespace, values, option_string=None):
        print("\n".join(options_of(parser)))
        parser.exit()


def read_config(path: Path, classes: tuple[type, ...]) -> dict:
    """The entries of a YAML file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no YAML mapping, or has a key that none of the dataclasses has.
    """
    if not path.is_file():
        raise FileNotFoundError(f"`config` {str(path)!r} is no file; name a YAML file.")
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


def with_whole_numbers(values: dict, parser: argparse.ArgumentParser) -> dict:
    """A mapping in which numbers like 2.0, also in lists, are whole where an option takes whole numbers."""

    def whole(value):
        if isinstance(value, list):
            return [whole(entry) for entry in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    names = {action.dest for action in parser._actions if action.type is int}
    return {name: whole(value) if name in names else value for name, value in values.items()}


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
