"""Two sides of the Hub: who publishes, and a stranger who has never seen this package."""

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


def run(python, *arguments, **environment) -> subprocess.CompletedProcess:
    """Runs Python in a clean environment: nothing of this repository on its path, and its own settings of the Hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    command = [str(python), *map(str, arguments)]
    return subprocess.run(
        command, env=kept | environment, cwd="/", capture_output=True, text=True, check=False, timeout=300
    )


def etegrec(*arguments, **environment) -> subprocess.CompletedProcess:
    """Runs the command line."""
    return run(sys.executable, "-m", "etegrec_hf.cli.main", *arguments, **environment)
