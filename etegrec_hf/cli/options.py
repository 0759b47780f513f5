"""Options of commands, for showing help and checking calls before a command's modules are imported.

`options.json` holds the options of every command. `make options` writes it anew, from the dataclasses of commands.
"""

import argparse
import difflib
import json
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from ..data.config_file import as_arguments, read_config
from .commands import COMMANDS

FILE = Path(__file__).with_name("options.json")
LIBRARIES = ("transformers", "trl")  # libraries whose options the file holds too, with their versions
FIRST, GENERAL, REST = "what matters first", "help", "transformers and TRL"
GROUPS = (FIRST, "options", "data", "model", "training", "search", "output", REST, GENERAL)  # headings, in their order
HELP_ALL = "--help-all"
TRUE, FALSE = ("true", "yes", "t", "y", "1"), ("false", "no", "f", "n", "0")


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Args:
        name (`str`): name with hyphens, but without leading ones.
        type (`str`, *optional*, defaults to `"text"`): type of a value: `"int"`, `"float"`, `"bool"` or `"text"`.
        nargs (`str` or `int`, *optional*): number of values, as in argparse; by default one.
        choices (`list[str]`, *optional*): allowed values, if they are few.
        required (`bool`, *optional*, defaults to `False`): whether each call must give the option.
        group (`str`, *optional*, defaults to `"options"`): heading of the option in help.
        is_extra (`bool`, *optional*, defaults to `False`): whether only `--help-all` shows the option.
        metavar (`str`, *optional*, defaults to `""`): placeholder of a value; by default it is made from the name.
        help (`str`, *optional*, defaults to `""`): description of the option.
        default (`str`, *optional*): default as help shows it; `None` for nothing.
    """

    name: str
    type: str = "text"
    nargs: str | int | None = None
    choices: list[str] | None = None
    required: bool = False
    group: str = "options"
    is_extra: bool = False
    metavar: str = ""
    help: str = ""
    default: str | None = None

    @property
    def value(self) -> str:
        """Returns the placeholder of a value in usage and help."""
        if self.type == "bool":
            return "true|false"
        return self.metavar or {"int": "N", "float": "X"}.get(self.type, self.name.rpartition("-")[2].upper())

    @property
    def usage(self) -> str:
        """Returns the option with the placeholders of its values."""
        return f"--{self.name}{self.values}"

    @property
    def values(self) -> str:
        """Returns the placeholders of the option's values after a blank, or `""` if it needs no value."""
        is_flag = self.nargs == 0 or (self.nargs == "?" and self.default is None)
        if is_flag or self.name == "debug":  # transformers' values of `debug` can be given only in a file
            return ""
        return f" {self.value}" + (" ..." if self.nargs == "+" else "")


@dataclass(frozen=True)
class CommandOptions:
    """A command's options and examples.

    Args:
        command (`str`): name of the command.
        works_on (`str`): the option whose value may be the first argument, without the option's name; `""` for none.
        examples (`str`): example calls, under a heading.
        options (`list[Option]`): options in the order of the help.
    """

    command: str
    works_on: str
    examples: str
    options: list[Option]

    @property
    def purpose(self) -> str:
        """Returns a sentence that says what the command is for, or `""` for a command that isn't of this package."""
        purpose = COMMANDS.get(self.command)
        return f"{purpose[0].upper()}{purpose[1:]}." if purpose else ""

    @property
    def names(self) -> dict[str, Option]:
        """Returns the options that have values, by their names in Python and YAML."""
        return {
            option.name.replace("-", "_"): option
            for option in self.options
            if option.nargs != 0 and option.name != "config"
        }

    def spelling(self, option: Option) -> str:
        """Returns how usage and errors write an option; an option that may come first is written without its name."""
        return option.value if option.name == self.works_on else f"--{option.name}"


def as_json(described: CommandOptions) -> dict:
    """Returns a command's options as `options.json` holds them, without values that are a field's default.

    Options that only `--help-all` shows have no help text in the file: for `--help-all`, the command is imported.
    """
    usual = {field.name: field.default for field in fields(Option)}
    kept = [replace(option, help="", default=None) if option.is_extra else option for option in described.options]
    options = [{name: value for name, value in asdict(option).items() if value != usual[name]} for option in kept]
    return {"works_on": described.works_on, "examples": described.examples, "options": options}


def read_options(command: str) -> CommandOptions:
    """Reads a command's options from `options.json`."""
    entry = json.loads(FILE.read_text(encoding="utf-8"))["commands"][command]
    options = [Option(**values) for values in entry["options"]]
    return CommandOptions(command, entry["works_on"], entry["examples"], options)


def made_with() -> dict[str, str]:
    """Returns the versions of the libraries whose options `options.json` holds."""
    return json.loads(FILE.read_text(encoding="utf-8"))["made_with"]


def installed_versions() -> dict[str, str]:
    """Returns the installed versions of these libraries."""
    return {name: version(name) for name in LIBRARIES}


def check_command(command: str, argv: list[str]) -> None:
    """Answers `--help` and wrong calls of a command from `options.json`, without importing its modules.

    If another version of transformers or TRL is installed than the file was made with, it may lack an option. Unknown
    options are then left to the command itself.

    Raises:
        ValueError: [`read_config`] refuses the configuration.
        FileNotFoundError: the configuration doesn't exist.
        SystemExit: help was shown, or the call is wrong (code 2).
    """
    described = read_options(command)
    if HELP_ALL in argv or (unknown_options(described, argv) and made_with() != installed_versions()):
        return
    check_call(described, argv)


def check_call(described: CommandOptions, argv: list[str]) -> tuple[list[str], dict]:
    """Returns the arguments of a call, all with the names of their options, and the entries of its `--config`.

    Raises:
        ValueError: [`read_config`] refuses the configuration.
        FileNotFoundError: the configuration doesn't exist.
        SystemExit: help was shown, or the call is wrong (code 2).
    """
    parser = make_parser(described)
    unknown = unknown_options(described, argv)
    if unknown:
        near = difflib.get_close_matches(unknown[0], offered(described), n=1)
        parser.error(f"unknown argument {unknown[0]!r}; " + (f"did you mean {near[0]!r}?" if near else "see --help."))
    argv = named_arguments(described, [spelled(argument) for argument in argv], parser)
    first = argparse.ArgumentParser(prog=parser.prog, usage=parser.usage, add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    config = first.parse_known_args(argv)[0].config
    values = {} if config is None else with_whole_numbers(read_config(config, described.names), described)
    given, extra = parser.parse_known_args([*map(spelled, as_arguments(values)), *argv])
    if extra:
        parser.error(f"unknown argument {extra[0]!r}; see --help.")
    missing = [option for option in described.options if option.required and option.name not in given]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(map(described.spelling, missing))}")
    return argv, values


def named_arguments(described: CommandOptions, argv: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """Returns the arguments with the option's name before a first value; shows help if an argument asks for it.

    Raises:
        SystemExit: help was shown, or the option is given twice (code 2).
    """
    if {"-h", "--help"} & set(argv):
        parser.print_help()
        parser.exit()
    if not described.works_on or not argv or argv[0].startswith("-"):
        return argv
    name = f"--{described.works_on}"
    if name in {argument.partition("=")[0] for argument in argv}:
        parser.error(f"{argv[0]!r} is the first argument, and {name} is given too; leave one of them out.")
    return [name, *argv]


def spelled(argument: str) -> str:
    """Returns an argument, with hyphens instead of the underscores of an option.

    >>> spelled("--top_k=3"), spelled("a_b"), spelled("--{a_b} {c}")
    ('--top-k=3', 'a_b', '--{a_b} {c}')
    """
    option, equals, value = argument.partition("=")
    return option.replace("_", "-") + equals + value if option.startswith("--") and " " not in option else argument


def offered(described: CommandOptions) -> list[str]:
    """Returns the options that completion and corrections offer."""
    return ["--help", HELP_ALL, *(f"--{option.name}" for option in described.options)]


def unknown_options(described: CommandOptions, argv: list[str]) -> list[str]:
    """Returns the options of a call that the command doesn't have."""
    known = set(offered(described))
    given = (spelled(argument).partition("=")[0] for argument in argv)
    return [option for option in given if option.startswith("--") and " " not in option and option not in known]


def with_whole_numbers(values: dict, described: CommandOptions) -> dict:
    """Returns a mapping in which numbers like 2.0, also in lists, are integers if the option takes integers."""

    def whole(value):
        if isinstance(value, list):
            return [whole(entry) for entry in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    names = {name for name, option in described.names.items() if option.type == "int"}
    return {name: whole(value) if name in names else value for name, value in values.items()}


def true_or_false(text: str) -> bool:
    """Returns whether a word means true.

    Raises:
        argparse.ArgumentTypeError: the word means neither true nor false.
    """
    if text.lower() not in TRUE + FALSE:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in TRUE


TYPES = {"int": int, "float": float, "bool": true_or_false, "text": str}


def make_parser(described: CommandOptions, everything: bool = False) -> argparse.ArgumentParser:
    """Makes a parser of a command's options; its help leaves out extra options unless `everything` is True."""
    required = [option for option in described.options if option.required or option.name == described.works_on]
    required.sort(key=lambda option: option.name != described.works_on)
    shown = [option.values.strip() if option.name == described.works_on else option.usage for option in required]
    usages = {option.name: option.usage for option in described.options}
    if described.works_on:
        usages[described.works_on] = f"{shown[0]} (or --{described.works_on})"
    parser = argparse.ArgumentParser(
        prog=f"etegrec {described.command}",
        usage=" ".join(["etegrec", described.command, *shown, "[--OPTION VALUE ...]"]),
        description=described.purpose,
        epilog=described.examples,
        formatter_class=partial(HelpFormatter, usages=usages),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=False,
    )
    groups = {heading: parser.add_argument_group(heading) for heading in GROUPS}
    for option in described.options:
        how: dict = {"action": "store_true"} if option.nargs == 0 else {"type": TYPES[option.type]}
        if option.nargs != 0:
            how |= {"nargs": option.nargs, "choices": option.choices}
        if option.nargs == "?":
            how["const"] = True
        hidden = option.is_extra and not everything
        told = argparse.SUPPRESS if hidden else help_line(option).replace("%", "%%")
        groups[option.group].add_argument(f"--{option.name}", dest=option.name, help=told, **how)
    groups[GENERAL].add_argument("-h", "--help", action="help", help="Show this.")
    has_more = any(option.is_extra for option in described.options)
    more = "Show all options." if has_more else argparse.SUPPRESS
    groups[GENERAL].add_argument(HELP_ALL, action="store_true", help=more)
    return parser


def help_line(option: Option) -> str:
    """Returns an option's line of help, with its default."""
    if option.required:
        return f"{option.help} (required)"
    return option.help if option.default is None else f"{option.help} (default: {option.default})"


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Formats help with examples as they are written, and with one usage per option.

    Args:
        usages (`dict[str, str]`): the usage of each option, by the option's name.
    """

    def __init__(self, prog: str, usages: dict[str, str]):
        super().__init__(prog, max_help_position=36)
        self.usages = usages

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return self.usages.get(action.dest) or super()._format_action_invocation(action)
