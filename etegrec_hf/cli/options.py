"""A command's options: what its help shows, and what a call of it is checked by before its modules are imported.

`options.json` holds those of every command. `make options` writes it anew, from the dataclasses that commands parse.
"""

import argparse
import difflib
import json
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from ..data.config_file import as_arguments, read_config

FILE = Path(__file__).with_name("options.json")
LIBRARIES = ("transformers", "trl")  # whose options the file holds too, as they were in these versions
FIRST, GENERAL, REST = "what matters first", "help", "transformers and TRL"
GROUPS = (FIRST, "options", "data", "model", "training", "search", "output", REST, GENERAL)  # headings, in their order
HELP_ALL = "--help-all"
TRUE, FALSE = ("true", "yes", "t", "y", "1"), ("false", "no", "f", "n", "0")


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Args:
        name (`str`): with hyphens, without those before it.
        type (`str`, *optional*, defaults to `"text"`): of a value: `"int"`, `"float"`, `"bool"` or `"text"`.
        nargs (`str` or `int`, *optional*): how many values, as argparse says it; by default one.
        choices (`list[str]`, *optional*): its values, if they are few.
        required (`bool`, *optional*, defaults to `False`): whether a call must give it.
        group (`str`, *optional*, defaults to `"options"`): the heading it is under.
        is_extra (`bool`, *optional*, defaults to `False`): whether `--help-all` alone shows it.
        metavar (`str`, *optional*, defaults to `""`): what stands for a value; by default that is made of the name.
        help (`str`, *optional*, defaults to `""`): what it does.
        default (`str`, *optional*): as the help shows it; `None` where there is nothing to show.
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
        """What stands for a value in usage and help."""
        if self.type == "bool":
            return "true|false"
        return self.metavar or {"int": "N", "float": "X"}.get(self.type, self.name.rpartition("-")[2].upper())

    @property
    def usage(self) -> str:
        """The option and what stands for its values."""
        return f"--{self.name}{self.values}"

    @property
    def values(self) -> str:
        """What stands for its values, after a blank; nothing for those that need none."""
        is_flag = self.nargs == 0 or (self.nargs == "?" and self.default is None)
        if is_flag or self.name == "debug":  # whose value a file alone can give, for transformers
            return ""
        return f" {self.value}" + (" ..." if self.nargs == "+" else "")


@dataclass(frozen=True)
class CommandOptions:
    """A command's options and examples.

    Args:
        command (`str`): its name.
        works_on (`str`): the option whose value may stand first, without its name; `""` for none.
        examples (`str`): calls, under a heading.
        options (`list[Option]`): in the order of the help.
    """

    command: str
    works_on: str
    examples: str
    options: list[Option]

    @property
    def names(self) -> dict[str, Option]:
        """The options that have values, by their names in Python and YAML."""
        return {
            option.name.replace("-", "_"): option
            for option in self.options
            if option.nargs != 0 and option.name != "config"
        }

    def spelling(self, option: Option) -> str:
        """How usage and errors call an option: by its value where that stands first."""
        return option.value if option.name == self.works_on else f"--{option.name}"


def as_json(described: CommandOptions) -> dict:
    """A command's options as `options.json` holds them: without what is a field's default.

    Those that `--help-all` alone shows have no help there, as their command is imported for it.
    """
    usual = {field.name: field.default for field in fields(Option)}
    kept = [replace(option, help="", default=None) if option.is_extra else option for option in described.options]
    options = [{name: value for name, value in asdict(option).items() if value != usual[name]} for option in kept]
    return {"works_on": described.works_on, "examples": described.examples, "options": options}


def read_options(command: str) -> CommandOptions:
    """A command's options, as `options.json` holds them."""
    entry = json.loads(FILE.read_text(encoding="utf-8"))["commands"][command]
    options = [Option(**values) for values in entry["options"]]
    return CommandOptions(command, entry["works_on"], entry["examples"], options)


def made_with() -> dict[str, str]:
    """The libraries' versions whose options `options.json` holds."""
    return json.loads(FILE.read_text(encoding="utf-8"))["made_with"]


def installed_versions() -> dict[str, str]:
    """The libraries' versions that are installed."""
    return {name: version(name) for name in LIBRARIES}


def check_command(command: str, argv: list[str]) -> None:
    """Answers `--help` and wrong calls of a command by `options.json`, without its modules.

    An option that the file doesn't hold may be one of another version of transformers or TRL than it was made with:
    then the command itself looks.

    Raises:
        ValueError: a configuration that [`read_config`] refuses.
        FileNotFoundError: a configuration that doesn't exist.
        SystemExit: help was shown, or the call is wrong (code 2).
    """
    described = read_options(command)
    if HELP_ALL in argv or (unknown_options(described, argv) and made_with() != installed_versions()):
        return
    check_call(described, argv)


def check_call(described: CommandOptions, argv: list[str]) -> tuple[list[str], dict]:
    """The arguments of a call, what it works on by its name, and the entries of its `--config`.

    Raises:
        ValueError: a configuration that [`read_config`] refuses.
        FileNotFoundError: a configuration that doesn't exist.
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
    """The arguments, in which what the command works on has its name; after help was shown, if one asks for it.

    Raises:
        SystemExit: help was shown, or that is there twice (code 2).
    """
    if {"-h", "--help"} & set(argv):
        parser.print_help()
        parser.exit()
    if not described.works_on or not argv or argv[0].startswith("-"):
        return argv
    name = f"--{described.works_on}"
    if name in {argument.partition("=")[0] for argument in argv}:
        parser.error(f"{argv[0]!r} stands first, and {name} is given too; leave one of them out.")
    return [name, *argv]


def spelled(argument: str) -> str:
    """An argument, with hyphens where an option has underscores.

    >>> spelled("--top_k=3"), spelled("a_b"), spelled("--{a_b} {c}")
    ('--top-k=3', 'a_b', '--{a_b} {c}')
    """
    option, equals, value = argument.partition("=")
    return option.replace("_", "-") + equals + value if option.startswith("--") and " " not in option else argument


def offered(described: CommandOptions) -> list[str]:
    """The options that completion and corrections offer."""
    return ["--help", HELP_ALL, *(f"--{option.name}" for option in described.options)]


def unknown_options(described: CommandOptions, argv: list[str]) -> list[str]:
    """Options of a call that the command doesn't have."""
    known = set(offered(described))
    given = (spelled(argument).partition("=")[0] for argument in argv)
    return [option for option in given if option.startswith("--") and " " not in option and option not in known]


def with_whole_numbers(values: dict, described: CommandOptions) -> dict:
    """A mapping in which numbers like 2.0, also in lists, are whole where an option takes whole numbers."""

    def whole(value):
        if isinstance(value, list):
            return [whole(entry) for entry in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    names = {name for name, option in described.names.items() if option.type == "int"}
    return {name: whole(value) if name in names else value for name, value in values.items()}


def true_or_false(text: str) -> bool:
    """What a word says.

    Raises:
        argparse.ArgumentTypeError: neither.
    """
    if text.lower() not in TRUE + FALSE:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in TRUE


TYPES = {"int": int, "float": float, "bool": true_or_false, "text": str}


def make_parser(described: CommandOptions, everything: bool = False) -> argparse.ArgumentParser:
    """A parser of a command's options, whose help leaves out extra ones, or shows `everything`."""
    required = [option for option in described.options if option.required or option.name == described.works_on]
    required.sort(key=lambda option: option.name != described.works_on)
    shown = [option.values.strip() if option.name == described.works_on else option.usage for option in required]
    usages = {option.name: option.usage for option in described.options}
    if described.works_on:
        usages[described.works_on] = f"{shown[0]} (or --{described.works_on})"
    parser = argparse.ArgumentParser(
        prog=f"etegrec {described.command}",
        usage=" ".join(["etegrec", described.command, *shown, "[--OPTION VALUE ...]"]),
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
    """An option's line of help, with its default."""
    if option.required:
        return f"{option.help} (required)"
    return option.help if option.default is None else f"{option.help} (default: {option.default})"


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Examples as they were written, and each option by its usage.

    Args:
        usages (`dict[str, str]`): how each option is written, by its name.
    """

    def __init__(self, prog: str, usages: dict[str, str]):
        super().__init__(prog, max_help_position=36)
        self.usages = usages

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return self.usages.get(action.dest) or super()._format_action_invocation(action)
