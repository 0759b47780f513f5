"""YAML files and the command line, filling the same dataclasses."""

import argparse
import dataclasses
import difflib
from pathlib import Path

import yaml
from transformers import HfArgumentParser


def parse(command: str, argv: list[str], *classes: type, examples: str = "") -> tuple:
    """Instances of `classes` from the command line, and from `--config FILE.yaml` for what it leaves out.

    Raises:
        ValueError: a key in the file that no class has.
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
        values = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
        check_keys(values, config, classes)
        parser.set_defaults(**values)
        for action in parser._actions:
            if action.dest in values:
                action.required = False
    return parser.parse_args_into_dataclasses(argv, look_for_args_file=False)[: len(classes)]


def check_keys(values: dict, source: Path, classes: tuple[type, ...]) -> None:
    """Raises a `ValueError` for a key that none of the dataclasses has, naming the nearest one."""
    known = [field.name for cls in classes for field in dataclasses.fields(cls) if field.init]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "see --help for those that exist."
            raise ValueError(f"config key {key!r} in {source} does not exist; {remedy}")
