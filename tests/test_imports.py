"""Import rules: what may ship, the one way through the package, and tests that import no tests."""

import ast
import importlib
from pathlib import Path

import pytest

import etegrec_hf

PACKAGE = Path(etegrec_hf.__file__).parent
ROOMS = ["models", "data", "evaluation", "hub", "training", "demo", "runtime", "serving", "cli"]
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> list[tuple[int, str]]:
    """(level, module) of every import statement, also inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, name.name) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


@pytest.mark.parametrize("path", sorted((PACKAGE / "models").glob("*.py")), ids=lambda path: path.name)
def test_what_ships_imports_torch_transformers_and_siblings_alone(path):
    siblings = {sibling.stem for sibling in path.parent.glob("*.py")}
    standard = {
        "collections",
        "contextlib",
        "copy",
        "dataclasses",
        "difflib",
        "functools",
        "itertools",
        "json",
        "math",
    }
    standard |= {"numbers", "os", "re", "typing"}
    for level, module in imports(path):
        if level == 0:
            assert module.split(".")[0] in {"torch", "transformers"} | standard, module
        else:
            assert level == 1, "from ..x can't be flattened into a Hub folder"
            assert module in siblings, f"{module} is no sibling: `from . import x` is not copied"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    parts = path.relative_to(PACKAGE).parts
    if len(parts) == 1:
        return
    room = parts[0]
    assert room in ROOMS, f"{room} is no room of the design"
    for level, module in imports(path):
        assert not module.startswith("etegrec_hf"), "imports within the package are relative"
        if level == len(parts):  # as many dots lead up to the package
            other = module.split(".")[0]
            assert ROOMS.index(other) <= ROOMS.index(room), f"{room} imports {other}"


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.rglob("*.py")), ids=lambda path: path.name)
def test_nothing_is_imported_from_a_test_file(path):
    """What two test files share stands in a module of helpers; conftest.py is imported by pytest alone."""
    parts = {part for _, module in imports(path) for part in module.split(".")}
    assert not {part for part in parts if part.startswith("test_") or part == "conftest"}


def test_every_public_name_exists_and_is_documented():
    for name in etegrec_hf.__all__:
        assert getattr(etegrec_hf, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = etegrec_hf.Nothing
    assert importlib.metadata.version("etegrec_hf") == etegrec_hf.__version__
