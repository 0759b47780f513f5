"""A file that holds one JSON object."""

import json
from collections import Counter
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

    text = b"".join(raw_lines(path))
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=as_dict)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}; copy it again or repair it.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a JSON object.")
    if len(content) < len(pairs):
        ((key, count),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{path} has the key {key!r} {count} times; keep one entry for each.")
    return content
