"""Prints constraints: each dependency in `pyproject.toml`, those of extras too, at the lowest version it allows."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in sum(project["optional-dependencies"].values(), project["dependencies"]):
    if bound := re.fullmatch(r"([\w-]+)(?:\[.*\])?>=([\d.]+)(,.*)?", requirement):
        print(f"{bound[1]}=={bound[2]}")
