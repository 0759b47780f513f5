"""Scripts in `examples/`: their dependencies for `uv run`."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HEADER = re.compile(r"^# /// script\n((?:#(?: .*)?\n)+?)# ///\n", re.MULTILINE)
OF_EXTRA = {"ray": "ray", "gradio": "demo", "sentence_transformers": "text", "matplotlib": "plots"}


def names(requirements: list[str]) -> set[str]:
    return {Requirement(line).name for line in requirements}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_says_what_it_needs(script):
    text = script.read_text()
    (header,) = HEADER.findall(text)
    metadata = tomllib.loads(re.sub(r"^# ?", "", header, flags=re.MULTILINE))
    assert metadata["requires-python"] == PROJECT["requires-python"]
    wanted = {line.name: line.extras for line in map(Requirement, metadata["dependencies"])}
    assert wanted.keys() <= {PROJECT["name"], *names(PROJECT["dependencies"])}
    extras = wanted.get(PROJECT["name"], set())
    assert extras <= PROJECT["optional-dependencies"].keys()

    provided = wanted.keys() | {name for name, extra in OF_EXTRA.items() if extra in extras}
    if PROJECT["name"] in wanted:
        provided |= names(PROJECT["dependencies"])
    if "ray" in extras:
        provided |= {"starlette"}  # which Ray Serve is made with
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - sys.stdlib_module_names <= provided
    uses_texts = "text_embeddings" in text  # which imports its encoder when it is asked for one
    assert ("text" in extras) == uses_texts
