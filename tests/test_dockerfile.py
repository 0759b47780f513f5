"""The Dockerfile, read without Docker: what it names exists, and it runs as it says."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from etegrec_hf.cli.commands import COMMANDS
from etegrec_hf.cli.options import check_call, read_options

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXT = (ROOT / "Dockerfile").read_text()


def instructions() -> list[tuple[str, str]]:
    """Each instruction's name and what follows it, on one line."""
    lines = [line for line in TEXT.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()]


def of(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


@pytest.fixture
def call() -> list[str]:
    """What a container runs if nothing else is asked for."""
    (entry,), (default,) = of("ENTRYPOINT"), of("CMD")
    return json.loads(entry) + json.loads(default)


def copied() -> list[str]:
    return [source for line in of("COPY") for source in shlex.split(line)[:-1]]


def test_the_base_image_has_a_python_that_the_package_takes():
    (image,) = of("FROM")
    version = re.fullmatch(r"python:(\d+\.\d+)-slim", image)[1]
    assert version in SpecifierSet(PROJECT["requires-python"])


def test_copied_files_exist_and_are_not_ignored():
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in patterns, "all is left out that isn't named"
    for source in copied():
        assert (ROOT / source).exists()
        assert f"!{source}" in patterns
    needed = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "setup.cfg", "etegrec_hf"}
    assert needed <= set(copied()), "which building the package needs"


def test_what_pip_installs_is_named_in_the_project():
    commands = [shlex.split(part) for line in of("RUN") for part in re.split(r"&&|;", line) if "pip install" in part]
    installed = [word for words in commands for word in words]
    for place, word in enumerate(installed):
        if word == "-c":
            assert installed[place + 1] in copied()
    extras = [re.fullmatch(r"\.\[(.+)\]", word)[1] for word in installed if word.startswith(".")]
    assert extras == ["serve"]
    assert set(extras) <= PROJECT["optional-dependencies"].keys()


def test_it_runs_as_a_user_without_rights():
    names = [name for name, _ in instructions()]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert of("USER") == ["etegrec"]
    made = [words for words in map(shlex.split, of("RUN")) if words[0] == "useradd"]
    assert [words[-1] for words in made] == ["etegrec"]


def test_it_starts_a_command_that_takes_its_options(call):
    assert call[0] in PROJECT["scripts"]
    assert call[1] in COMMANDS
    arguments, _ = check_call(read_options(call[1]), call[2:])
    assert dict(zip(arguments[::2], arguments[1::2])) == {"--model": "/model", "--host": "0.0.0.0", "--port": "8000"}


def test_its_health_is_asked_at_the_port_that_is_served(call):
    (check,) = of("HEALTHCHECK")
    program, flag, code = json.loads(re.search(r"CMD (\[.+\])", check)[1])
    assert (program, flag) == ("python", "-c")
    compile(code, "HEALTHCHECK", "exec")
    port = call[call.index("--port") + 1]
    assert f"http://127.0.0.1:{port}/health" in code
    assert of("EXPOSE") == [port]


def test_no_other_host_is_named():
    assert set(re.findall(r"\w+://([^/:\s'\"]+)", TEXT)) == {"127.0.0.1"}
