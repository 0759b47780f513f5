"""Item ids as people type them: with commas between, one per line, or as a JSON list."""

import json
from collections.abc import Container

AS_JSON = """ids that hold a comma, or begin or end with a blank, are written as a JSON list: ["Earth, Wind & Fire"]"""


def read_item_ids(text: str, known: Container[str]) -> list[str]:
    """Reads item ids, one per line or with commas between.

    A line that is an id of the catalogue is one id, whatever it holds. A line may also be a JSON list of ids.

    Args:
        text (`str`): what was typed.
        known (`Container[str]`): the ids of the catalogue.

    Returns:
        `list[str]`: ids, some of which may be unknown. Of those with commas between, the blanks around are left out.

    Raises:
        ValueError: a JSON list of something else than strings.

    >>> read_item_ids("a, b", {"a", "b"})
    ['a', 'b']
    >>> read_item_ids("Earth, Wind & Fire", {"Earth, Wind & Fire"})
    ['Earth, Wind & Fire']
    >>> read_item_ids('["Earth, Wind & Fire", " b"]', {"a"})
    ['Earth, Wind & Fire', ' b']
    """
    return [item_id for line in text.split("\n") for item_id in _of_line(line.removesuffix("\r"), known)]


def write_item_ids(item_ids: list[str]) -> str:
    r"""Writes item ids so that [`read_item_ids`] reads them again: one per line.

    >>> write_item_ids(["a", "b, c", " d"])
    'a\nb, c\n[" d"]'
    """
    lines = []
    for item_id in item_ids:
        is_plain = item_id == item_id.strip() and "\n" not in item_id and not _json_list(item_id)
        lines.append(item_id if is_plain else json.dumps([item_id], ensure_ascii=False))
    return "\n".join(lines)


def _of_line(line: str, known: Container[str]) -> list[str]:
    for whole in (line, line.strip()):
        if whole in known:
            return [whole]
    listed = _json_list(line)
    if listed is not None:
        for item_id in listed:
            if not isinstance(item_id, str):
                raise ValueError(f"{line.strip()} holds {item_id!r}, and ids are text; write them in double quotes.")
        return listed
    return [part.strip() for part in line.split(",") if part.strip()]


def _json_list(text: str) -> list | None:
    """The list that a text is in JSON, or `None`."""
    try:
        found = json.loads(text) if text.lstrip().startswith("[") else None
    except ValueError:
        return None
    return found if isinstance(found, list) else None
