"""The protocol of a measurement: what two results must have in common to be compared in one table."""

from typing import Any

from ..data.fingerprint import fingerprint_of_splits
from ..data.prepared import PreparedDataset


def protocol_of(data: PreparedDataset, split: str, exclude_seen: bool, **measured: Any) -> dict[str, Any]:
    """Returns the protocol of a measurement, which is saved with the metrics.

    Args:
        data ([`PreparedDataset`]): the dataset.
        split (`str`): its split, `"validation"` or `"test"`.
        exclude_seen (`bool`): whether items that a user has seen were left out of the lists.
        **measured: further entries, such as `num_beams`.

    Returns:
        `dict` of `split`, `candidates`, `seen_items`, `users`, the further entries, and `data`: hashes of the items,
        of the training sequences and of the split's, see [`fingerprint_of_splits`].
    """
    return {
        "split": split,
        "candidates": "all items",
        "seen_items": "left out" if exclude_seen else "kept",
        "users": len(data.split(split)),
        **measured,
        "data": fingerprint_of_splits(data, ("train", split)),
    }


def common_protocol(results: dict[str, dict]) -> dict[str, Any]:
    """Returns the protocol that all results share.

    Args:
        results (`dict[str, dict]`): results of `etegrec evaluate`, by a name for errors.

    Raises:
        ValueError: a result without a protocol.
        ValueError: two results with different protocols.
    """
    first_name, first = next(iter(results.items()))
    for name, result in results.items():
        if not isinstance(result.get("protocol"), dict) or "data" not in result["protocol"]:
            raise ValueError(
                f"{name} has no `protocol`, which tells how it was measured; run `etegrec evaluate` again."
            )
        protocols = first["protocol"], result["protocol"]
        for key in dict.fromkeys([*protocols[0], *protocols[1]]):
            theirs, mine = (protocol.get(key) for protocol in protocols)
            if theirs != mine:
                raise ValueError(
                    f"{first_name} and {name} were measured differently, with `{key}` {theirs!r} and {mine!r}; "
                    "evaluate both again in the same way."
                )
    return first["protocol"]
