"""The reader of the authors' ETEGRec data layout."""

from pathlib import Path

import numpy as np

from ..wording import counted
from .json_file import read_json_object
from .lines import json_lines
from .log_builder import LogBuilder
from .source import Malformed, Source, SourceOptions
from .values import wrong_id

KEYS = ("user_id", "inter_history", "target_id")


def read_etegrec(path: Path, options: SourceOptions) -> Source:
    """Reads a folder with data in the layout of the authors' ETEGRec code.

    `NAME.train.jsonl`, `NAME.valid.jsonl` and `NAME.test.jsonl` have lines with `user_id`, `inter_history` and
    `target_id`. `NAME.emb_map.json` maps item ids to rows of the embedding matrices; row 0 is padding, whether or not
    the map names it.

    Each user's sequence is put together from the user's lines: the history of a line is the sequence so far (or its
    last items, if histories were cut), and its target comes next. The splits are those of the files.

    Args:
        path (`Path`): the folder, which holds one such data set.
        options ([`SourceOptions`]): not used by this format.

    Raises:
        FileNotFoundError: a file is missing, or there are several data sets.
        ValueError: a malformed line, without which the user's sequence can't be put together.
        ValueError: a line that doesn't continue the user's sequence.
        ValueError: items that aren't in the map.
    """
    found = sorted(path.glob("*.train.jsonl"))
    if len(found) != 1:
        raise FileNotFoundError(f"{path} holds {len(found)} files NAME.train.jsonl; give a folder with one.")
    name = found[0].name.removesuffix(".train.jsonl")
    sequences: dict[str | int, list] = {}
    splits: dict[str | int, list[int]] = {}
    columns: dict[str, None] = {}
    log = LogBuilder(path, Malformed(path), "user_id", "target_id", "")
    for split, kind in enumerate(("train", "valid", "test")):
        log.path = file = path / f"{name}.{kind}.jsonl"
        malformed = Malformed(file)
        for number, entry in json_lines(file, malformed):
            wrong = _wrong(entry)
            if wrong:
                malformed.add(number, wrong)
            if malformed.count:
                break
            if not entry.keys() <= columns.keys():
                columns |= dict.fromkeys(entry)
            user, history, target = (entry[key] for key in KEYS)
            log.check_kind(number, 0, user)
            known = sequences.get(user)
            for item in (target,) if known else (*history, target):
                log.check_kind(number, 1, item)
            if known is None:
                known, splits[user] = sequences.setdefault(user, list(history)), [0] * len(history)
            elif not history or known[-len(history) :] != history:
                raise ValueError(
                    f"line {number} of {file}: its history isn't the end of the sequence of user {user!r} so far; "
                    "sort a user's lines by time, so that each target is the last item of the next history."
                )
            known.append(target)
            splits[user].append(split)
        if malformed.count:
            raise ValueError(
                f"{malformed}; a user's sequence is put together from all its lines: repair them, or check --format."
            )
    log.path = path
    for user, sequence in sequences.items():
        for item, split in zip(sequence, splits[user]):
            log.add(0, {"user_id": user, "target_id": item}, split)  # was checked above, so it can't be malformed
    interactions = log.build()
    rows, n_rows = _embedding_rows(path / f"{name}.emb_map.json", interactions.item_ids)
    unused = [name for name in columns if name not in KEYS]
    return Source(interactions, embedding_rows=rows, n_embedding_rows=n_rows, unused=unused)


def _wrong(entry: dict) -> str | None:
    """Returns what is wrong with a line, or `None`."""
    user, history, target = (entry.get(key) for key in KEYS)
    if not isinstance(history, list):
        return f"'inter_history' is {history!r}, not a list"
    wrong = (wrong_id(name, value) for name, value in (("user_id", user), ("target_id", target)))
    of_items = (wrong_id("inter_history", item) for item in history)
    return next(filter(None, (*wrong, *of_items)), None)


def _embedding_rows(path: Path, item_ids: np.ndarray) -> tuple[np.ndarray, int]:
    """Reads `emb_map.json`: each item's row in a matrix of embeddings, and the matrix's number of rows."""
    row_of = read_json_object(path)
    wrong = next((item_id for item_id, row in row_of.items() if type(row) is not int), None)
    if wrong is not None:
        raise ValueError(
            f"{path} gives item {wrong!r} the row {row_of[wrong]!r}, which isn't a whole number; repair it."
        )
    missing = [item_id for item_id in item_ids if item_id not in row_of]
    if missing:
        raise ValueError(
            f"{counted(len(missing), 'item is', 'items are')} not in {path}, first {missing[0]!r}; use this data "
            "set's map."
        )
    rows = np.array([row_of[item_id] for item_id in item_ids], dtype=np.int64)
    if rows.min() < 1:
        raise ValueError(
            f"{path} gives item {item_ids[rows.argmin()]!r} the row {rows.min()}; rows of items start at 1."
        )
    if len(np.unique(rows)) < len(rows):
        raise ValueError(f"{path} gives several items the same row; use this data set's map.")
    return rows, max(row_of.values()) + 1
