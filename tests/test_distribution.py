"""The wheel and the sdist that it is built from."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = {"etegrec_hf/py.typed", "etegrec_hf/cli/options.json"}
DATA |= {f"etegrec_hf/presets/{name}.yaml" for name in ("best", "fast", "paper")}
NOT_BUILT = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Where the two files lie; the wheel is built from the sdist."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "tree", ignore=NOT_BUILT)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(folder / "tree")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def modules() -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in ROOT.joinpath("etegrec_hf").rglob("*.py")}


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = message_from_string(archive.read("etegrec_hf-0.1.0.dist-info/METADATA").decode())
        entry_points = archive.read("etegrec_hf-0.1.0.dist-info/entry_points.txt").decode()
    assert {name for name in names if ".dist-info/" not in name} == modules() | DATA
    assert "etegrec_hf-0.1.0.dist-info/licenses/LICENSE" in names
    assert "etegrec = etegrec_hf.cli.main:main" in entry_points
    assert metadata["License-Expression"] == "Apache-2.0"
    assert {"text", "plots", "ray", "dev"} <= set(metadata.get_all("Provides-Extra"))
    assert metadata.get_payload().startswith("# etegrec_hf")


@pytest.mark.slow
def test_the_sdist_holds_what_builds_it(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert modules() | DATA | {"pyproject.toml", "setup.cfg", "README.md", "LICENSE"} <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs", "examples", "runs"))]
