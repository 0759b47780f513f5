"""A file that holds one JSON object."""

import json
from pathlib import Path

from .lines import raw_lines


def read_json_object(path: Path) -> dict:
    """The object, of a file that may be packed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds no JSON, something else than an object, or an object with a key twice.
    """
    pairs: list[tuple[str, object]] = []

    def as_dict(entries: list[tuple[str, object]]) -> dict:
        nonlocal pairs
        pairs = entries  # the outermost object's come last
        return dict(entries)

    try:
        content = json.loads(b"".join(raw_lines(path)).decode("utf-8"), object_pairs_hook=as_dict)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}; copy it again or repair it.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a JSON object.")
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in content if names.count(name) > 1)
        raise ValueError(f"{path} has {twice!r} {names.count(twice)} times; keep one entry of each.")
    return content
