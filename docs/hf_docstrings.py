"""Docstrings of Hugging Face's form on the site: readable types for the parser, and links from [`Name`].

mkdocs loads this file as a hook, which makes the links, and griffe as an extension, which reads docstrings.
"""

import re
from pathlib import Path

import griffe

ARGUMENT = re.compile(r"^(\s+\**\w+(?:, \**\w+)*) \((.*[`*].*)\):", re.MULTILINE)
REFERENCE = Path(__file__).with_name("reference")


class HuggingFaceTypes(griffe.Extension):
    """Takes the marks out of types like (`int`, *optional*) and ([`Name`]), which the site shows as code."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring:
            obj.docstring.value = ARGUMENT.sub(lambda match: f"{match[1]} ({plain(match[2])}):", obj.docstring.value)


def plain(type_: str) -> str:
    """Returns a type without backticks, without brackets around names and without the stars of *optional*.

    A list like `str, Path or Table` gets a comma before its last name, or griffe would show it as a tuple.
    """
    text = re.sub(r"\*(\w+)\*", r"\1", re.sub(r"\[(`\w+`)\]", r"\1", type_)).replace("`", "")
    return re.sub(r"^([\w.\[\]]+(?:, [\w.\[\]]+)+) or ", r"\1, or ", text)


def documented() -> dict[str, str]:
    """Where each public name lives, by name, from the pages of the reference."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(REFERENCE.glob("*.md")))
    return {path.rpartition(".")[2]: path for path in re.findall(r"^::: (\S+)$", text, re.MULTILINE)}


def on_page_content(html: str, **kwargs) -> str:
    """Makes a link of every [`Name`] that the reference documents, and plain code of the others.

    Of [`~Class.method`] the method alone is shown.
    """
    where = documented()

    def link(match: re.Match) -> str:
        first, _, rest = match[2].partition(".")
        code = f"<code>{match[2].rpartition('.')[2] if match[1] else match[2]}</code>"
        if first not in where:
            return code
        return f'<autoref identifier="{where[first]}{"." * bool(rest)}{rest}">{code}</autoref>'

    return re.sub(r"\[<code>(~?)([\w.]+)</code>\](?!\()", link, html)
