"""Two sides of the Hub: who publishes, and a stranger who has never seen this package."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def requirements(names: list[str]) -> dict[str, Distribution]:
    """The distributions that `names` need, themselves among them, by name."""
    found: dict[str, Distribution] = {}
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        needed = [Requirement(text) for text in found[name].requires or ()]
        names += [need.name for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def make_stranger(folder: Path) -> Path:
    """The Python of a new virtual environment that holds torch, transformers and what they need, and nothing else.

    What is installed here is linked there, so that it costs neither time nor a network.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for package in requirements(["torch", "transformers"]).values():
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            source, target = Path(package.locate_file(top)), site / top
            if source.exists() and not target.exists():
                target.symlink_to(source)
    return folder / "bin" / "python"


def settings(environment: dict[str, str]) -> dict:
    """A process that sees nothing of this repository, and its own settings of the Hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    return {"env": kept | environment, "cwd": "/", "text": True}


def run(python, *arguments, **environment) -> subprocess.CompletedProcess:
    """Runs a Python with these arguments."""
    command = [str(python), *map(str, arguments)]
    return subprocess.run(command, **settings(environment), capture_output=True, check=False, timeout=300)


def etegrec(*arguments, **environment) -> subprocess.CompletedProcess:
    """Runs the command line."""
    return run(sys.executable, "-m", "etegrec_hf.cli.main", *arguments, **environment)


def start(*arguments, **environment) -> subprocess.Popen:
    """Starts the command line and doesn't wait for it."""
    command = [sys.executable, "-m", "etegrec_hf.cli.main", *map(str, arguments)]
    return subprocess.Popen(command, **settings(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


SEVERAL = """
import contextlib, io, json, os, sys
from etegrec_hf.cli.main import main
from etegrec_hf.hub import report
report.svg_of = lambda figure: b"<svg></svg>"  # drawing takes long
results = []
for arguments, environment in json.loads(sys.argv[1]):
    os.environ.pop("HF_TOKEN", None)
    os.environ.update(environment)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    results.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(results))
"""


def several(commands: list[tuple[tuple, dict]], **environment) -> list[tuple[int, str, str]]:
    """Runs commands one after the other in one process, each with its token: exit code, output and errors of each."""
    todo = json.dumps([([str(part) for part in arguments], more) for arguments, more in commands])
    done = run(sys.executable, "-c", SEVERAL, todo, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
