"""Hashes that tell whether two prepared datasets are the same, whatever their names."""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

from .prepared import PreparedDataset, Split
from .splits import SPLIT_NAMES

ROWS = 65_536  # embeddings that are read together


def fingerprint(data: PreparedDataset) -> dict[str, str]:
    """Returns hashes of the item ids, of the semantic embeddings if there are any, and of each split's sequences."""
    hashes = fingerprint_of_splits(data, SPLIT_NAMES)
    if data.embeddings is not None:
        values = data.embeddings
        hashes["embedding"] = hash_of(
            np.asarray(values[start : start + ROWS]) for start in range(0, len(values), ROWS)
        )
    return hashes


def fingerprint_of_splits(data: PreparedDataset, names: Iterable[str]) -> dict[str, str]:
    """Returns hashes of the item ids, and of the sequences of these splits."""
    hashes = {"items": hash_of(item_id.encode() + b"\0" for item_id in data.item_ids)}
    return hashes | {name: splits_hash([data.split(name)]) for name in names}


def splits_hash(splits: Iterable[Split]) -> str:
    """Returns one hash of the sequences of several splits, or parts of a split; it also covers where each begins."""
    return hash_of(array.astype("<i8") for split in splits for array in (split.offsets, split.sequences))


def hash_of(parts: Iterable) -> str:
    """Returns one hash of several bytes objects and arrays, in order."""
    hashed = blake2b(digest_size=8)
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()
