"""Item codes from the `*.index.json` files of LC-Rec, LETTER and MiniOneRec."""

from pathlib import Path

import torch

from ..models.tokenization_etegrec import CODE_TOKEN, LEVEL_LETTERS, read_by_item

MOST_CODES = 2**20  # codes per level: a larger code is a typo, and its tables would take gigabytes


def read_code_index(path: str | Path, item_ids: list[str] | None = None) -> tuple[list[str], torch.LongTensor]:
    """Reads items and their raw codes from an `*.index.json`, which maps item ids to token strings like `<a_12>`.

    Args:
        path (`str` or `Path`): the file.
        item_ids (`list[str]`, *optional*): the items to take, in this order; by default all items of the file.

    Returns:
        item ids, and codes `[n_items, levels]`, which need not be unique.

    Raises:
        FileNotFoundError: the file doesn't exist.
        ValueError: the file holds no items, or lacks one of `item_ids`.
        ValueError: an item has something else than token strings, or another number of them than the other items.
        ValueError: a code is 2**20 or more.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{str(path)!r} isn't a file; give the path of a NAME.index.json.")
    try:
        index = read_by_item(str(path))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} can't be read: {error}; give a NAME.index.json.") from error
    if not isinstance(index, dict) or not index:
        raise ValueError(f"{str(path)!r} maps no items to codes; give a NAME.index.json.")
    item_ids = list(index) if item_ids is None else item_ids
    rows: list[list[int]] = []
    for item_id in item_ids:
        if item_id not in index:
            raise ValueError(f"{str(path)!r} has no codes for item {item_id!r}; take the index made for this data.")
        tokens = index[item_id]
        is_text = isinstance(tokens, list) and all(isinstance(token, str) and len(token) < 16 for token in tokens)
        matches = [CODE_TOKEN.fullmatch(token) for token in tokens] if is_text else [None]
        letters = "".join(match[1] for match in matches if match)
        if (
            not letters
            or None in matches
            or not LEVEL_LETTERS.startswith(letters)
            or (rows and len(matches) != len(rows[0]))
        ):
            raise ValueError(
                f"item {item_id!r} in {str(path)!r} has {tokens}; expected one token string per level, "
                "<a_0>, <b_0>, ..., as many as the other items have."
            )
        rows.append([int(match[2]) for match in matches if match])
        if max(rows[-1]) >= MOST_CODES:
            raise ValueError(
                f"item {item_id!r} in {str(path)!r} has the code {max(rows[-1])}, and a level has at most "
                f"{MOST_CODES} codes; repair the codes of this item."
            )
    return item_ids, torch.tensor(rows)
