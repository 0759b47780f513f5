"""A file that holds one JSON object."""

import json
from pathlib import Path


def read_json_object(path: Path) -> dict:
    """The object.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds no JSON, or something else than an object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is no file; check the path.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}; copy it again or repair it.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a JSON object.")
    return content
