"""Parsing of YAML files and command lines into the same dataclasses."""

import argparse
import dataclasses
import inspect
import json
from enum import Enum

from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from ..data.config_file import as_arguments
from .options import (
    FIRST,
    GENERAL,
    HELP_ALL,
    LIBRARIES,
    REST,
    CommandOptions,
    Option,
    as_json,
    check_call,
    make_parser,
)
from .preset import PresetArguments, preset_names, preset_values

BY_PRESET = "by --preset"  # shown instead of a default
DESCRIBE = "--describe"  # the option by which `make options` asks a command for its description
GENERAL_OPTIONS = (
    Option("config", group=GENERAL, metavar="FILE.yaml", help="YAML file of options; the call overrides it."),
    Option("debug", nargs=0, group=GENERAL, help="Show the trace of an error."),
)
TYPE_NAMES = {int: "int", float: "float", string_to_bool: "bool"}
# Options of transformers and TRL that `--help` shows, with heading and help. `--help-all` shows all others too
SHOWN = {
    "output_dir": ("output", "A new folder, for the model, checkpoints and the report."),
    "num_train_epochs": ("training", "Epochs."),
    "learning_rate": ("training", "Highest learning rate."),
    "weight_decay": ("training", "Weight decay of AdamW."),
    "per_device_train_batch_size": ("training", "Samples per update and device."),
    "seed": ("training", "Random seed."),
    "bf16": ("training", "Compute in bfloat16."),
    "use_cpu": ("training", "Train on the CPU, even if there is a GPU."),
    "num_generations": ("training", "Completions per history; together they are a group."),
    "beta": ("training", "Weight of the KL divergence from the starting model."),
    "temperature": ("training", "Temperature of the policy."),
    "top_k": ("training", "Codes per level that are drawn from; 0 for all."),
    "epsilon": ("training", "Probability ratios are clipped to 1 - epsilon .. 1 + epsilon."),
    "num_iterations": ("training", "Rounds of updates per round of completions."),
    "reward_weights": ("training", "Weights of the rewards, in the order of --rewards."),
    "report_to": ("output", "Trackers that get the logs: tensorboard, wandb, ..., all or none."),
    "push_to_hub": ("output", "Publish the model on the Hub."),
    "hub_model_id": ("output", "Name of the model on the Hub: user/name."),
    "debug": (GENERAL, "Show the trace of an error."),
}


def parse(
    command: str, argv: list[str], *classes: type, examples: str = "", works_on: str = "", first: tuple[str, ...] = ()
) -> tuple:
    """Returns instances of `classes` with values from the command line, then `--config FILE.yaml`, then a preset.

    Entries of the file are parsed as if they came first on the command line, so types are checked in the same way.
    A preset gives values only if one of the classes is a [`PresetArguments`]. Help groups options by the class
    attribute `help_group`. Options in the class attribute `help_all` are shown only by `--help-all`.

    Args:
        command (`str`): name of the command.
        argv (`list[str]`): arguments of the command.
        classes (`type`): dataclasses whose fields are the command's options.
        examples (`str`, *optional*, defaults to `""`): example calls, under a heading.
        works_on (`str`, *optional*, defaults to `""`): the field whose value may be the first argument, without name.
        first (`tuple[str, ...]`, *optional*): fields that help shows first, between `works_on` and other required
            fields.

    Raises:
        ValueError: the file isn't a YAML mapping, or has a key that no class has.
        FileNotFoundError: the file doesn't exist.
        SystemExit: the arguments can't be parsed (code 2).
    """
    parser = HfArgumentParser(classes, prog=f"etegrec {command}", allow_abbrev=False, add_help=False)
    options = in_order(options_of(parser, classes), (works_on, *first))
    has_preset = any(issubclass(cls, PresetArguments) for cls in classes)
    if has_preset:
        names = preset_names(command)
        options = [
            dataclasses.replace(option, default=BY_PRESET) if option.name.replace("-", "_") in names else option
            for option in options
        ]
    described = CommandOptions(command, works_on.replace("_", "-"), examples, options)
    if argv == [DESCRIBE]:
        print(json.dumps(as_json(described)))
        parser.exit()
    if HELP_ALL in argv:
        make_parser(described, everything=True).print_help()
        parser.exit()
    argv, values = check_call(described, argv)
    if has_preset:
        values = preset_values(command, argv, values) | values
    parser.set_defaults(**{name: value for name, value in values.items() if value is None or value == []})
    parser.add_argument("--config")
    if "--debug" not in parser._option_string_actions:  # TrainingArguments has one, which only a file can set
        parser.add_argument("--debug", action="store_true")
    parsed = parser.parse_args_into_dataclasses([*as_arguments(values), *argv], look_for_args_file=False)
    return tuple(parsed[: len(classes)])


def options_of(parser: HfArgumentParser, classes: tuple[type, ...]) -> list[Option]:
    """Returns the options of a parser, and the options that every command has."""
    fields = {field.name: field for cls in classes for field in dataclasses.fields(cls)}
    options = [option_of(action, fields[action.dest], classes) for action in parser._actions]
    names = {option.name for option in options}
    return options + [option for option in GENERAL_OPTIONS if option.name not in names]


def option_of(action: argparse.Action, field: dataclasses.Field, classes: tuple[type, ...]) -> Option:
    """Returns an action of argparse as an [`Option`]."""
    name = action.option_strings[-1].removeprefix("--")
    group, told = heading_and_help(field.name, classes)
    if action.nargs == 0:
        told = f"The same as --{name.removeprefix('no-')} false."
        return Option(name, nargs=0, group=group, is_extra=True, help=told)
    return Option(
        name,
        type=next((kind for type_, kind in TYPE_NAMES.items() if action.type is type_), "text"),
        nargs=action.nargs,
        choices=None if action.choices is None else [str(choice) for choice in action.choices],
        required=action.required,
        group=group,
        is_extra=group == REST or any(field.name in getattr(cls, "help_all", ()) for cls in classes),
        metavar=field.metadata.get("metavar", ""),
        help=told,
        default=shown_default(action.default),
    )


def heading_and_help(name: str, classes: tuple[type, ...]) -> tuple[str, str]:
    """Returns an option's heading and help, from the first of its class and its parents that has a help text.

    A class that changes only a field's default needs no help text of its own.
    """
    holders = [
        parent
        for cls in classes
        for parent in cls.__mro__
        if dataclasses.is_dataclass(parent) and name in inspect.get_annotations(parent)
    ]
    helps = (holder.__dataclass_fields__[name].metadata.get("help") for holder in holders)
    told = next(filter(None, helps), "")
    if any(holder.__module__.split(".")[0] in LIBRARIES for holder in holders):
        return SHOWN.get(name, (REST, told))
    return getattr(holders[0], "help_group", "options"), told


def shown_default(default: object) -> str | None:
    """Returns a default as help shows it, or `None` for nothing."""
    if isinstance(default, Enum):
        default = default.value
    if isinstance(default, list):
        default = " ".join(map(str, default))
    return None if default is None or default is False or default == "" else str(default)


def in_order(options: list[Option], first: tuple[str, ...]) -> list[Option]:
    """Sorts options as help shows them: first those in `first`, in that order, then required ones, then the others."""
    names = [name.replace("_", "-") for name in first]
    ranks = {option.name: len(names) for option in options if option.required}
    ranks |= {name: rank for rank, name in enumerate(names) if name}
    chosen = sorted((option for option in options if option.name in ranks), key=lambda option: ranks[option.name])
    rest = [option for option in options if option.name not in ranks]
    return [dataclasses.replace(option, group=FIRST) for option in chosen] + rest
