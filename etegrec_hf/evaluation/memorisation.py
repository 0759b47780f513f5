"""Metrics for memorised targets, which came right after an item of their history in training, and for others."""

import numpy as np

from ..data.cooccurrence import cooccurrence_counts
from ..data.prepared import PreparedDataset, Split
from ..data.wording import counted
from .metrics import OURS, metrics_of_systems, ranking_metrics

PARTS = {  # parts of a split's users, and a description of their targets
    "memorisation": "whose target came right after an item of their history in training",
    "generalisation": "whose target never came right after an item of their history in training",
}


def memorised_targets(data: PreparedDataset, split: Split) -> np.ndarray:
    """Returns whether each row's target came right after an item of its history in some training sequence.

    Such a target can be found by remembering pairs of neighbours. For other targets a recommender has to generalise.

    Args:
        data ([`PreparedDataset`]): the dataset with the training sequences.
        split ([`Split`]): `data.validation`, `data.test`, or rows of them.

    Returns:
        `np.ndarray` of `bool` and shape `(rows,)`; `False` for a row without a history.

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
    """Returns metrics for users with memorised targets, and for the other users.

    Args:
        memorised (`np.ndarray` of `bool`, shape `(users,)`): result of [`memorised_targets`].
        targets (`np.ndarray` of shape `(users,)`): item index of each user's target.
        baselines (`dict[str, np.ndarray]`): lists by baseline, see [`baseline_lists`].
        ranked (`np.ndarray` of shape `(users, listed)`, *optional*): lists of a model.

    Returns:
        `dict` of `memorisation` and `generalisation`; a part without users is left out. A part has the number of
        `users`, their `share` of all users, the model's `metrics` (see [`ranking_metrics`]) if `ranked` is given, and
        the metrics of the `baselines`. The mean of a metric over both parts, weighted by users, is the metric of all
        users.
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
    """Returns metrics by system, given a part of [`metrics_by_part`]; the model comes first if there is one."""
    of_model = {OURS: part["metrics"]} if "metrics" in part else {}
    return of_model | part["baselines"]


def part_title(name: str, part: dict) -> str:
    """Returns a heading for a part of [`metrics_by_part`].

    >>> part_title("memorisation", {"users": 1, "share": 0.25})
    'memorisation: the 1 of 4 users (25.0%) whose target came right after an item of their history in training'
    """
    users, share = part["users"], part["share"]
    return f"{name}: the {users:,} of {counted(round(users / share), 'user')} ({share:.1%}) {PARTS[name]}"
