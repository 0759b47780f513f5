"""How a result was measured: what two results must have in common to stand in one table."""

from typing import Any

from ..data.fingerprint import fingerprint
from ..data.prepared import PreparedDataset


def protocol_of(data: PreparedDataset, split: str, exclude_seen: bool, **measured: Any) -> dict[str, Any]:
    """What is written beside metrics.

    Args:
        data ([`PreparedDataset`]): that was measured on.
        split (`str`): of it, `"validation"` or `"test"`.
        exclude_seen (`bool`): whether items that a user had before were left out of the lists.
        **measured: further entries, like `num_beams`.

    Returns:
        `dict` of `split`, `candidates`, `seen_items`, `users`, the further entries, and `data`: hashes of the items,
        of the training sequences and of the split's, see [`fingerprint`].
    """
    hashes = fingerprint(data)
    return {
        "split": split,
        "candidates": "all items",
        "seen_items": "left out" if exclude_seen else "kept",
        "users": len(data.split(split)),
        **measured,
        "data": {name: hashes[name] for name in ("items", "train", split)},
    }


def common_protocol(results: dict[str, dict]) -> dict[str, Any]:
    """The protocol that all results share.

    Args:
        results (`dict[str, dict]`): what `etegrec evaluate` wrote, by the name that errors call it.

    Raises:
        ValueError: a result without a protocol, or two that differ in it.
    """
    first_name, first = next(iter(results.items()))
    for name, result in results.items():
        if not isinstance(result.get("protocol"), dict) or "data" not in result["protocol"]:
            raise ValueError(
                f"{name} says nothing of the `protocol` it was measured by; run `etegrec evaluate` again."
            )
        protocols = first["protocol"], result["protocol"]
        for key in dict.fromkeys([*protocols[0], *protocols[1]]):
            theirs, mine = (protocol.get(key) for protocol in protocols)
            if theirs != mine:
                raise ValueError(
                    f"{first_name} and {name} were measured differently, `{key}` {theirs!r} and {mine!r}; compare "
                    "results of one protocol: evaluate again alike."
                )
    return first["protocol"]
