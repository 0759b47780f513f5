"""Item ids as users type them: separated by commas, one per line, or as a JSON list."""

import json
from collections.abc import Container

AS_JSON = 'ids that hold a comma, or begin or end with a blank, must be written as a JSON list: ["Earth, Wind & Fire"]'


def read_item_ids(text: str, known: Container[str]) -> list[str]:
    """Reads item ids, one per line or separated by commas.

    A line that equals an id of the catalogue is one id, even with commas in it. A line may also be a JSON list of ids.

    Args:
        text (`str`): the text that a user typed.
        known (`Container[str]`): ids of the catalogue.

    Returns:
        `list[str]`: ids, which may be unknown. Blanks around ids that are separated by commas are left out.

    Raises:
        ValueError: a JSON list that holds anything other than strings.
        ValueError: a line that begins with a bracket, but is neither a JSON list nor begins with an id of the
            catalogue.

    >>> read_item_ids("a, b", {"a", "b"})
    ['a', 'b']
    >>> read_item_ids("Earth, Wind & Fire", {"Earth, Wind & Fire"})
    ['Earth, Wind & Fire']
    >>> read_item_ids('["Earth, Wind & Fire", " b"]', {"a"})
    ['Earth, Wind & Fire', ' b']
    """
    return [item_id for line in text.split("\n") for item_id in _of_line(line.removesuffix("\r"), known)]


def write_item_ids(item_ids: list[str]) -> str:
    r"""Writes item ids as text that [`read_item_ids`] reads, one id per line.

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
                raise ValueError(f"{line.strip()} holds {item_id!r}, but ids are text; write them in double quotes.")
        return listed
    parts = [part.strip() for part in line.split(",") if part.strip()]
    if parts and parts[0].startswith("[") and parts[0] not in known:
        raise ValueError(
            f"{line.strip()} begins like a JSON list, but isn't one; write a list with brackets and double quotes, "
            'like ["a", "b"].'
        )
    return parts


def _json_list(text: str) -> list | None:
    """Returns the list that a JSON text holds, or `None`."""
    try:
        found = json.loads(text) if text.lstrip().startswith("[") else None
    except ValueError:
        return None
    return found if isinstance(found, list) else None
