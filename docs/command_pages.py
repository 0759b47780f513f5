"""One page per command on the site, made at build from what the commands' own help shows.

mkdocs loads this file as a hook. No page is kept in the repository, so that none can differ from the commands.
"""

import re
from html import escape

from mkdocs.structure.files import File, Files

from etegrec_hf.cli.commands import COMMANDS
from etegrec_hf.cli.options import FIRST, GENERAL, GROUPS, Option, make_parser, read_options

FOLDER = "reference/commands"
INDEX = f"{FOLDER}/index.md"


def on_config(config):
    """Puts the pages of the commands below the entry of the navigation that names their index."""
    config["nav"] = with_pages(config["nav"])
    return config


def on_files(files: Files, *, config) -> Files:
    """Adds the pages."""
    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files


def with_pages(nav):
    """The navigation, in which the index of commands is a list of it and its commands."""
    if isinstance(nav, list):
        return [with_pages(entry) for entry in nav]
    if isinstance(nav, dict):
        return {title: with_pages(entry) for title, entry in nav.items()}
    if nav == INDEX:
        return [{"All commands": INDEX}, *({name: f"{FOLDER}/{name}.md"} for name in COMMANDS)]
    return nav


def pages() -> dict[str, str]:
    """The pages in Markdown, by their paths below `docs`."""
    rows = [f"| [`etegrec {name}`]({name}.md) | {purpose} |" for name, purpose in COMMANDS.items()]
    index = ["# Commands", "", "| command | what it does |", "| --- | --- |", *rows, "", GLOBAL]
    return {INDEX: "\n".join(index), **{f"{FOLDER}/{name}.md": command_page(name) for name in COMMANDS}}


GLOBAL = """Every command takes `--help`, `--help-all` where it has more options than `--help` shows, and `--debug`,
which shows the whole trace of an error. `etegrec --version` prints the version, and `etegrec completion bash` a script
that completes commands and options.
"""
HEAD = "| option | what it does | default |\n| --- | --- | --- |"


def command_page(name: str) -> str:
    """The page of a command: purpose, usage, examples, and a table of options under each heading of its help."""
    described = read_options(name)
    usage = make_parser(described).format_usage().removeprefix("usage: ").strip()
    parts = [f"# etegrec {name}", described.purpose, f"```bash\n{' '.join(usage.split())}\n```"]
    calls, _, remark = described.examples.strip().partition("\n\n")
    if calls:
        lines = [line.removeprefix("  ") for line in calls.splitlines()[1:]]  # below "examples:"
        calls = re.sub(r"\n(?! )", "\n\n", "\n".join(lines))  # a call may go on in a line that is indented
        parts.append("\n".join(["## Examples", "", "```bash", calls, "```", "", remark]).strip())
    for group in GROUPS:
        options = [option for option in described.options if option.group == group and not option.is_extra]
        if options:
            heading = {FIRST: "What matters first", GENERAL: "Help"}.get(group, group[0].upper() + group[1:])
            rows = [row(option, described.works_on) for option in options]
            parts.append("\n".join([f"## {heading}", "", HEAD, *rows]))
    extra = [f"`--{option.name}`" for option in described.options if option.is_extra]
    if extra:
        told = f"`etegrec {name} --help-all` says what these do; most are options of transformers or TRL."
        parts.append(f"## Further options\n\n{told}\n\n{', '.join(extra)}")
    return "\n\n".join(parts) + "\n"


def row(option: Option, works_on: str) -> str:
    """A row of the table of options. What a command works on may stand first, without its name."""
    usage = f"{option.value}</code> or <code>--{option.name}" if option.name == works_on else option.usage
    default = "required" if option.required else f"<code>{cell(option.default)}</code>" if option.default else ""
    return f'| <code id="{option.name}">{cell(usage, tags=True)}</code> | {cell(option.help)} | {default} |'


def cell(text: str, tags: bool = False) -> str:
    """Text in which nothing ends a cell or begins Markdown or, without `tags`, HTML; what is in backticks is code."""
    shown = text if tags else re.sub("`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    for mark in "|*_`[":
        shown = shown.replace(mark, f"&#{ord(mark)};")
    return shown
