"""Ranking metrics of lists of items."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import EvalPrediction

KS = (1, 5, 10, 50)
OURS = "this model"  # the recommender's name in tables of systems


def shown_name(metric: str) -> str:
    """Returns a metric's name as tables show it.

    >>> shown_name("recall@10"), shown_name("ndcg@10")
    ('Recall@10', 'NDCG@10')
    """
    return metric.replace("recall", "Recall").replace("ndcg", "NDCG")


def ranking_metrics(item_index: np.ndarray, target: np.ndarray, ks: tuple[int, ...] = KS) -> dict[str, float]:
    """Computes Recall and NDCG of ranked lists with one relevant item each.

    Args:
        item_index (`np.ndarray` of shape `(users, listed)`): ranked item indices, best first; shorter lists are padded
            with 0.
        target (`np.ndarray` of shape `(users,)`): item index of each user's target.
        ks (`tuple[int]`, *optional*, defaults to `(1, 5, 10, 50)`): list lengths; those above `listed` are left out.

    Returns:
        `dict` of `recall@k` (share of users whose target is among the first k items) and `ndcg@k` (mean over users of
        `1 / log2(rank + 1)`, or of 0 if the rank is above k).

    >>> ranking_metrics(np.array([[3, 1], [4, 5]]), np.array([1, 4]), ks=(1, 2))["recall@1"]
    0.5
    """
    return {name: float(values.mean()) for name, values in _by_target(item_index, target, ks).items()}


def metrics_of_systems(lists: dict[str, np.ndarray], target: np.ndarray) -> dict[str, dict[str, float]]:
    """Returns [`ranking_metrics`] of each system's lists `[users, listed]` for the same users."""
    return {name: ranking_metrics(items, target) for name, items in lists.items()}


def rank(prediction: "EvalPrediction") -> dict[str, float]:
    """Returns ranking metrics of a Trainer's prediction: ranked item indices, with targets as labels."""
    return ranking_metrics(prediction.predictions, prediction.label_ids)


def spread_metrics(item_index: np.ndarray, item_counts: np.ndarray, k: int = 10) -> dict[str, float]:
    """Measures how much of the catalogue is recommended, and how popular the recommended items are.

    Args:
        item_index (`np.ndarray` of shape `(users, listed)`): ranked item indices, best first; shorter lists are padded
            with 0.
        item_counts (`np.ndarray` of shape `(n_items + 1,)`): number of times that each item occurs in training; 0 for
            padding.
        k (`int`, *optional*, defaults to 10): number of places of each list that count.

    Returns:
        `dict` of `coverage@k` (distinct items in all lists divided by the items of the catalogue) and `popularity@k`
        (mean count of a listed item); empty if `listed` is below k.

    >>> spread_metrics(np.array([[3, 1], [3, 0]]), np.array([0, 4, 9, 7]), k=2)
    {'coverage@2': 0.6666666666666666, 'popularity@2': 6.0}
    """
    if item_index.shape[1] < k:
        return {}
    items = item_index[:, :k]
    items = items[items > 0]
    return {
        f"coverage@{k}": len(np.unique(items)) / (len(item_counts) - 1),
        f"popularity@{k}": float(item_counts[items].mean()) if len(items) else 0.0,
    }


def confidence_intervals(
    item_index: np.ndarray, target: np.ndarray, ks: tuple[int, ...] = KS, users: np.ndarray | None = None
) -> dict[str, tuple[float, float]]:
    """Computes 95% confidence intervals of [`ranking_metrics`], by the normal approximation of the mean over users.

    Args:
        item_index, target, ks: as in [`ranking_metrics`].
        users (`np.ndarray` of shape `(targets,)`, *optional*): number or id of each target's user; by default each
            target is of another user. Targets of one user tell less than as many of several users.

    Returns:
        `dict` of lower and upper end by metric, limited to 0..1. For a single user they are 0 and 1.

    >>> low, high = confidence_intervals(np.array([[1], [2], [1], [2]]), np.array([1, 1, 1, 1]), ks=(1,))["recall@1"]
    >>> round(low, 3), round(high, 3)
    (0.01, 0.99)
    """
    intervals = {}
    for name, values in _by_target(item_index, target, ks).items():
        deviations, _ = by_user(values - values.mean(), users)
        half = 1.96 * np.sqrt((deviations**2).sum()) / len(values) if len(deviations) > 1 else np.inf
        intervals[name] = (float(max(0, values.mean() - half)), float(min(1, values.mean() + half)))
    return intervals


def target_ranks(item_index: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the rank `[users]` of each user's target in the list, from 1; 0 for a target that isn't listed.

    >>> target_ranks(np.array([[3, 1], [4, 5]]), np.array([1, 9]))
    array([2, 0])
    """
    hits = item_index == target[:, None]
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)


def metrics_of_ranks(ranks: np.ndarray, ks: tuple[int, ...] = KS) -> dict[str, np.ndarray]:
    """Returns each user's `recall@k` and `ndcg@k`, given the ranks `[users]` of [`target_ranks`]."""
    gains = np.where(ranks > 0, 1 / np.log2(np.maximum(ranks, 1) + 1), 0)
    return {
        f"{name}@{k}": np.where((ranks > 0) & (ranks <= k), values, 0.0)
        for k in ks
        for name, values in (("recall", 1.0), ("ndcg", gains))
    }


def by_user(values: np.ndarray, users: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns each user's sum of `values` `[targets, ...]`, and number of targets; without `users` each has one.

    >>> sums, targets = by_user(np.array([1.0, 2.0, 4.0]), np.array(["a", "b", "a"]))
    >>> sums.tolist(), targets.tolist()
    ([5.0, 2.0], [2, 1])
    """
    if users is None:
        return values, np.ones(len(values), dtype=int)
    _, numbers, targets = np.unique(users, return_inverse=True, return_counts=True)
    sums = np.zeros((len(targets), *values.shape[1:]))
    np.add.at(sums, numbers, values)
    return sums, targets


def _by_target(item_index: np.ndarray, target: np.ndarray, ks: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Returns each target's `recall@k` and `ndcg@k`, for the values of k up to the length of the lists."""
    return metrics_of_ranks(target_ranks(item_index, target), tuple(k for k in ks if k <= item_index.shape[1]))
