"""Which targets came right after an item of their history in training, and metrics of those and of the others."""

import numpy as np

from ..data.cooccurrence import cooccurrence_counts
from ..data.prepared import PreparedDataset, Split
from .metrics import metrics_of_systems, ranking_metrics

PARTS = {  # of a split's users, and what is said of their targets
    "memorisation": "the target came right after an item of the history in training",
    "generalisation": "the target came right after no item of the history in training",
}


def memorised_targets(data: PreparedDataset, split: Split) -> np.ndarray:
    """Whether each row's target came right after an item of its history in some training sequence.

    Such a target can be found by remembering pairs of neighbours; any other asks a recommender to generalise.

    Args:
        data ([`PreparedDataset`]): its training sequences are what can be remembered.
        split ([`Split`]): `data.validation`, `data.test`, or rows of them.

    Returns:
        `np.ndarray` of `bool`, shape `(rows,)`. A row without a history is `False`.

    Source: the one-hop memorization of Kim et al., On the Memorization Behavior of LLMs in Generative Recommendation
    (2026, arXiv 2606.17276).
    """
    neighbours = cooccurrence_counts(data.train.sequences - 1, data.train.offsets, data.n_items, window=1)
    earlier, later = neighbours.nonzero()
    rows, items = split.histories
    # a pair of items as one number
    known = earlier.astype(np.int64) * data.n_items + later
    asked = (items - 1) * data.n_items + split.targets[rows] - 1
    return np.bincount(rows[np.isin(asked, known)], minlength=len(split)) > 0


def metrics_by_part(
    memorised: np.ndarray, targets: np.ndarray, baselines: dict[str, np.ndarray], ranked: np.ndarray | None = None
) -> dict[str, dict]:
    """Metrics for users with memorised targets, and for the other users.

    Args:
        memorised (`np.ndarray` of `bool`, shape `(users,)`): see [`memorised_targets`].
        targets (`np.ndarray` of shape `(users,)`): item index of each user's target.
        baselines (`dict[str, np.ndarray]`): lists of each baseline, see [`baseline_lists`].
        ranked (`np.ndarray` of shape `(users, listed)`, *optional*): lists of a model.

    Returns:
        `dict` of `memorisation` and `generalisation`, without a part that has no users. A part has `users`, their
        `share`, the model's `metrics` (see [`ranking_metrics`]) if `ranked` is given, and those of the `baselines`.
        The mean of a metric over both parts, weighted by their users, is that of all users.
    """
    parts = {}
    for name, chosen in zip(PARTS, (memorised, ~memorised)):
        if chosen.any():
            of_model = {} if ranked is None else {"metrics": ranking_metrics(ranked[chosen], targets[chosen])}
            lists = {system: items[chosen] for system, items in baselines.items()}
            parts[name] = {
                "users": int(chosen.sum()),
                "share": float(chosen.mean()),
                **of_model,
                "baselines": metrics_of_systems(lists, targets[chosen]),
            }
    return parts


def systems_of_part(part: dict) -> dict[str, dict[str, float]]:
    """Returns metrics by system, the model first if there is one, of a part that [`metrics_by_part`] gives."""
    of_model = {"this model": part["metrics"]} if "metrics" in part else {}
    return of_model | part["baselines"]


def part_title(name: str, part: dict) -> str:
    """Returns a heading of one of the parts that [`metrics_by_part`] gives.

    >>> part_title("memorisation", {"users": 1, "share": 0.25})
    'memorisation: 1 of 4 users (25.0%), the target came right after an item of the history in training'
    """
    users, share = part["users"], part["share"]
    return f"{name}: {users} of {round(users / share)} users ({share:.1%}), {PARTS[name]}"
