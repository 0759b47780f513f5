"""Files that a command writes if it is asked to."""

import json
from pathlib import Path

from ..data.folders import replace_file
from ..data.table_files import check_ending


def check_output_file(name: str | None, option: str = "output", endings: tuple[str, ...] = (".json",)) -> Path | None:
    """The file of that name, whose folder exists then; before anything is measured.

    Args:
        name (`str`, *optional*): its path; `None` if nothing is to be written.
        option (`str`, *optional*, defaults to `"output"`): how errors call it.
        endings (`tuple[str, ...]`, *optional*, defaults to `(".json",)`): of files that the command can write.

    Raises:
        ValueError: it is a folder, or its ending says that it is of another kind.
    """
    if name is None:
        return None
    path = Path(name)
    if path.is_dir():
        raise ValueError(f"`{option}` {name!r} is a folder; name a file in it.")
    check_ending(name, endings, option)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_results(path: Path | None, results: dict) -> None:
    """Writes the results, if there is a file for them: whole or not at all."""
    if path is not None:
        text = json.dumps(results, indent=2) + "\n"
        replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))
