"""The layout of the original ETEGRec code."""

import json
from pathlib import Path

import numpy as np

from .lines import LogBuilder, json_lines
from .source import Malformed, Source, SourceOptions


def read_etegrec(path: Path, options: SourceOptions) -> Source:
    """Reads `NAME.train.jsonl`, `NAME.valid.jsonl` and `NAME.test.jsonl`, whose lines are `user_id`, `inter_history`
    and `target_id`, and `NAME.emb_map.json`, item id to row of the embedding matrices.

    Each user's sequence is put together from its lines: a line's history is the sequence so far (or its last items,
    where histories were cut) and its target comes next. The splits are those of the files. Row 0 of a matrix stands
    for padding, whether or not the map names it.

    Args:
        path (`Path`): the folder, with one such data set in it.
        options ([`SourceOptions`]): as in every reader.

    Raises:
        FileNotFoundError: a file is missing, or there are several data sets.
        ValueError: lines that don't continue their user's sequence, items that the map doesn't hold.
    """
    found = sorted(path.glob("*.train.jsonl"))
    if len(found) != 1:
        raise FileNotFoundError(f"{path} holds {len(found)} files NAME.train.jsonl; give a folder with one.")
    name = found[0].name.removesuffix(".train.jsonl")
    files = [found[0], *(path / f"{name}.{split}.jsonl" for split in ("valid", "test"))]
    sequences: dict[str, list] = {}
    splits: dict[str, list[int]] = {}
    malformed = [Malformed(file) for file in files]
    for split, (file, of_file) in enumerate(zip(files, malformed)):
        for number, entry in json_lines(file, of_file):
            user, history, target = (entry.get(key) for key in ("user_id", "inter_history", "target_id"))
            if user is None or target is None or not isinstance(history, list):
                of_file.add(f"line {number}", "it lacks `user_id`, `target_id` or a list `inter_history`")
                continue
            known = sequences.setdefault(user, list(history))
            splits.setdefault(user, [0] * len(known))
            if known[len(known) - len(history) :] != history or not history:
                raise ValueError(
                    f"line {number} of {file}: its history doesn't end the sequence so far of user {user!r}; a user's "
                    "lines must stand in the order of time."
                )
            known.append(target)
            splits[user].append(split)
        of_file.check(options.max_malformed)
    log = LogBuilder(path, malformed[0], "user_id", "item_id", "")
    for number, (user, sequence) in enumerate(sequences.items(), start=1):
        for item, split in zip(sequence, splits[user]):
            log.add(number, {"user_id": user, "item_id": item}, split)
    interactions = log.build()
    found = sorted(path.glob("*emb_map.json"))
    if not found:
        return Source(interactions, malformed=malformed)
    rows, n_rows = _embedding_rows(found[0], interactions.item_ids)
    return Source(interactions, embedding_rows=rows, n_embedding_rows=n_rows, malformed=malformed)


def _embedding_rows(path: Path, item_ids: np.ndarray) -> tuple[np.ndarray, int]:
    """The row of each item in a matrix of embeddings, and how many rows that has, by `emb_map.json`."""
    row_of = json.loads(path.read_text(encoding="utf-8"))
    missing = [item_id for item_id in item_ids if item_id not in row_of]
    if missing:
        raise ValueError(f"{len(missing)} items are not in {path}, first {missing[0]!r}; use the map of this data.")
    rows = np.array([row_of[item_id] for item_id in item_ids], dtype=np.int64)
    if rows.min() < 1:
        raise ValueError(
            f"{path} gives item {item_ids[rows.argmin()]!r} the row {rows.min()}; rows of items start at 1."
        )
    return rows, max(row_of.values()) + 1
