"""The reader of files that hold one JSON object."""

import json
from collections import Counter
from pathlib import Path

from .lines import raw_lines


def read_json_object(path: Path) -> dict:
    """Reads the object in a JSON file, packed or not.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file isn't JSON, or doesn't hold an object.
        ValueError: a key that occurs twice in the object.
    """
    pairs: list[tuple[str, object]] = []

    def as_dict(entries: list[tuple[str, object]]) -> dict:
        nonlocal pairs
        pairs = entries  # the outermost object's come last
        return dict(entries)

    text = b"".join(raw_lines(path))
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=as_dict)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} isn't JSON: {error}; copy it again or repair it.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a JSON object.")
    if len(content) < len(pairs):
        ((key, count),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{path} has the key {key!r} {count} times; keep one entry per key.")
    return content
