"""The JSON file that a measuring command writes if it is asked to."""

import json
from pathlib import Path

from ..data.folders import replace_file


def check_output_file(name: str | None, option: str = "output") -> Path | None:
    """The file of that name, whose folder exists then; before anything is measured.

    Raises:
        ValueError: it is a folder.
    """
    if name is None:
        return None
    path = Path(name)
    if path.is_dir():
        raise ValueError(f"`{option}` {name!r} is a folder; name a file in it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_results(path: Path | None, results: dict) -> None:
    """Writes the results, if there is a file for them: whole or not at all."""
    if path is not None:
        text = json.dumps(results, indent=2) + "\n"
        replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))
