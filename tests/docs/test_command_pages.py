"""The site's pages of commands say what the commands' own help says."""

from html import unescape
from pathlib import Path

import pytest
from docs_scripts import load_script

from etegrec_hf.cli.commands import COMMANDS
from etegrec_hf.cli.options import read_options

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def hook():
    return load_script("command_pages")


def cells(line: str) -> list[str]:
    return [unescape(cell.strip()) for cell in line.strip("|").split("|")]


def test_each_command_has_a_page_that_the_navigation_and_the_index_name(hook):
    pages = hook.pages()
    index = f"{hook.FOLDER}/index.md"
    assert sorted(pages) == sorted([index, *(f"{hook.FOLDER}/{name}.md" for name in COMMANDS)])
    nav = hook.with_pages([{"Home": "index.md"}, {"Reference": [{"Commands": index}]}])
    assert nav[0] == {"Home": "index.md"}
    listed = [path for entry in nav[1]["Reference"][0]["Commands"] for path in entry.values()]
    assert sorted(listed) == sorted(pages)
    rows = [cells(line) for line in pages[index].splitlines() if line.startswith("| [")]
    assert rows == [[f"[`etegrec {name}`]({name}.md)", purpose] for name, purpose in COMMANDS.items()]
    assert not (DOCS / hook.FOLDER).exists(), "a copy would come apart from the commands"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_has_every_option_with_its_help_and_default(hook, command):
    page, described = hook.command_page(command), read_options(command)
    lines = [line for line in page.splitlines() if line.startswith("| <code id=")]
    rows = {line.split('"')[1]: cells(line) for line in lines}
    shown = [option for option in described.options if not option.is_extra]
    assert sorted(rows) == sorted(option.name for option in shown)
    for option in shown:
        usage, told, default = rows[option.name]
        assert f"--{option.name}" in usage
        assert told.replace("<code>", "`").replace("</code>", "`") == option.help
        assert default == (
            "required" if option.required else f"<code>{option.default}</code>" if option.default else ""
        )
    for option in described.options:
        assert f"--{option.name}" in page
    for line in described.examples.splitlines()[1:]:
        assert line.strip() in page


def test_text_of_an_option_is_text(hook):
    assert hook.cell("a|b of `x_y` <i> *c*") == "a&#124;b of <code>x&#95;y</code> &lt;i&gt; &#42;c&#42;"
