"""Optional output files of commands."""

import json
from pathlib import Path

from ..data.folders import make_folder, replace_text
from ..data.table_files import check_ending


def check_output_file(name: str | None, option: str = "output", endings: tuple[str, ...] = (".json",)) -> Path | None:
    """Returns the path of an output file, and makes its folder, before anything is measured.

    Args:
        name (`str`, *optional*): path of the file; `None` if no file is to be written.
        option (`str`, *optional*, defaults to `"output"`): name of the option in errors.
        endings (`tuple[str, ...]`, *optional*, defaults to `(".json",)`): endings of files that the command can write.

    Raises:
        ValueError: the path is a folder.
        ValueError: the file has another ending.
        ValueError: its folder can't be made.
    """
    if name is None:
        return None
    path = Path(name)
    if path.is_dir():
        raise ValueError(f"`{option}` {name!r} is a folder; name a file in it.")
    check_ending(name, endings, option)
    make_folder(path.parent, f"the folder of `{option}` {name!r}")
    return path


def write_results(path: Path | None, results: dict) -> None:
    """Writes the results into the file, if there is one, whole or not at all."""
    if path is not None:
        text = json.dumps(results, indent=2) + "\n"
        replace_text(path, text)
