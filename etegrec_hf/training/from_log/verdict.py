"""Verdicts: how a recommender compares with baselines, in plain words."""

from ...evaluation.comparison import paired_bootstrap
from ...evaluation.evaluate import Evaluation
from .presets import LogSize

METRIC = "ndcg@10"
# Descriptions of the baselines
BASELINES = {
    "transitions": "counting what follows what",
    "SASRec": "the item-ID baseline (SASRec)",
    "popularity": "the most popular items",
}
FEW = 10_000  # training targets below which more data help most


def verdict(evaluation: Evaluation, size: LogSize, remedies: list[str]) -> tuple[str, list[str]]:
    """Says whether a recommender is above the baselines.

    A difference counts if 0 isn't in the 95% interval of a paired bootstrap of NDCG@10 over users.

    Args:
        evaluation ([`Evaluation`]): evaluation on the test split.
        size ([`LogSize`]): size of the log.
        remedies (`list[str]`): further things to try, which this run left out.

    Returns:
        a sentence, and things to try next if the recommender isn't above every baseline.

    >>> import numpy as np
    >>> ranks, worse = np.array([1, 2, 1, 1] * 50), np.array([0, 2, 1, 1] * 50)
    >>> counts = {"transitions": {"ndcg@10": 0.6}}
    >>> evaluation = Evaluation("test", {"ndcg@10": 0.9}, {}, {}, counts, {}, {}, 0, 0, ranks, {"transitions": worse})
    >>> verdict(evaluation, LogSize(200, 10, 900), [])
    ('NDCG@10 is .9000: 50% above counting what follows what (.6000).', [])
    """
    told, is_above = [], True
    for name, words in BASELINES.items():
        if name not in evaluation.baselines:
            continue
        ours, theirs = evaluation.metrics[METRIC], evaluation.baselines[name][METRIC]
        theirs_of, users = evaluation.baseline_ranks[name], evaluation.users_of_ranks
        found = paired_bootstrap([evaluation.ranks], [theirs_of], users=users)[METRIC]
        told.append(f"{_compared(ours, theirs, found)} {words} ({_figure(theirs)})")
        is_above &= found["low"] > 0
    sentence = f"NDCG@10 is {_figure(evaluation.metrics[METRIC])}: {', '.join(told)}."
    if is_above:
        return sentence, []
    tries = list(remedies)
    if size.n_targets < FEW:
        tries.append(
            f"collect a longer log: training had {size.n_targets:,} next items, and below about {FEW:,} counting is "
            "hard to beat"
        )
    return sentence, tries or ["recommend by counts alone: this log seems to hold little more than what follows what"]


def _compared(ours: float, theirs: float, found: dict[str, float]) -> str:
    """Returns how two metrics compare: above, below, or level, if other users might reverse the order."""
    if found["low"] <= 0 <= found["high"]:
        return "level with"
    word = "above" if found["difference"] > 0 else "below"
    return f"{abs(ours / theirs - 1):.0%} {word}" if theirs else f"far {word}"


def _figure(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")
