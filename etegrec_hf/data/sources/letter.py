"""The reader of the JSON layout of LC-Rec and LETTER."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from ..interactions import Interactions
from .item_texts import texts_of_entries
from .json_file import read_json_object
from .log_builder import empty_log
from .source import TEXT_FIELDS, ItemsFile, Malformed, Source, SourceOptions, Texts
from .values import wrong_id


def read_letter(path: Path, options: SourceOptions) -> Source:
    """Reads `NAME.inter.json` (histories in time order), and if they exist `NAME.item.json` and `NAME.index.json`.

    `path` is the `.inter.json` file or a folder with one. Items are numbers, which may be written as text. An `.npy`
    file of embeddings has one row per item that occurs, in the order of these numbers; in the order of the texts if an
    id isn't a number.

    Raises:
        FileNotFoundError: no `.inter.json`, or several.
        ValueError: files that aren't JSON.
        ValueError: histories that aren't lists of numbers or of texts.
        ValueError: codes that aren't token strings.
        ValueError: no interaction.
        ValueError: when the texts are read: texts of an item that aren't an object.
    """
    found = sorted(path.glob("*.inter.json")) if path.is_dir() else [path]
    if len(found) != 1:
        raise FileNotFoundError(f"{path} holds {len(found)} files NAME.inter.json; give the path of the one to read.")
    histories = read_json_object(found[0])
    kinds: set[type] = set()
    for user, history in histories.items():
        if not isinstance(history, list):
            raise ValueError(f"user {user!r} in {found[0]} has {history!r}; expected a list of item numbers.")
        wrong = wrong_id("user", user) or next(filter(None, (wrong_id("item", item) for item in history)), None)
        if wrong:
            raise ValueError(f"{wrong} in the history of user {user!r} in {found[0]}; write a number or a text.")
        kinds.update(map(type, history))
    if not kinds:
        raise empty_log(found[0])
    if len(kinds) > 1:
        raise ValueError(
            f"{found[0]} names items as {', '.join(sorted(kind.__name__ for kind in kinds))}; write all of them as "
            "numbers, or all as text."
        )
    # sorted without numpy, which would turn numbers around 2^63 into floats
    item_numbers = _in_order({item for history in histories.values() for item in history})
    row_of = {item: row for row, item in enumerate(item_numbers)}
    items = np.array([row_of[item] for history in histories.values() for item in history], dtype=np.int64)
    item_ids = np.array([str(item) for item in item_numbers], dtype=object)
    lengths = [len(history) for history in histories.values()]
    users = np.repeat(np.arange(len(lengths)), lengths)
    user_ids = np.array(list(histories), dtype=object)
    interactions = Interactions.from_rows(user_ids, item_ids, users, items)
    base = found[0].name.removesuffix(".inter.json")
    item_file, index_file = (found[0].with_name(f"{base}.{kind}.json") for kind in ("item", "index"))
    tokens = read_json_object(index_file) if index_file.exists() else {}
    for item, codes in tokens.items():
        if not isinstance(codes, list) or not all(isinstance(code, str) for code in codes):
            raise ValueError(
                f'item {item!r} in {index_file} has {codes!r}; expected token strings like ["<a_12>", ...].'
            )

    fields = dict(zip(TEXT_FIELDS, TEXT_FIELDS))
    file = ItemsFile(Malformed(item_file), "item", fields) if item_file.exists() else None

    def read_texts(item_ids: Collection[str]) -> Texts:
        if file is None:
            return {}
        entries = read_json_object(item_file)
        for item, texts in entries.items():
            if not isinstance(texts, dict):
                raise ValueError(
                    f'item {item!r} in {item_file} has {texts!r}; expected texts like {{"title": "..."}}.'
                )
        rows = ((0, {**texts, "item": item}) for item, texts in entries.items() if item)
        return texts_of_entries(rows, item_ids, file)

    return Source(interactions, read_texts, tokens, items_file=file)


def _in_order(items: set) -> list:
    """Returns numbers, or texts, in ascending order; texts count as numbers if all are decimal digits.

    >>> _in_order({"10", "9", "011"}), _in_order({"10", "9", "b1"})
    (['9', '10', '011'], ['10', '9', 'b1'])
    """
    if not all(isinstance(item, str) and item.isascii() and item.isdigit() for item in items):
        return sorted(items)
    width = max(map(len, items))
    return sorted(items, key=lambda item: (item.zfill(width), item))
