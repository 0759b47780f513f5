"""What a run's figures say, in plain words."""

from ...evaluation.comparison import paired_bootstrap
from ...evaluation.evaluate import Evaluation
from .presets import LogSize

METRIC = "ndcg@10"
# What each baseline is, in words
BASELINES = {
    "transitions": "counting what follows what",
    "SASRec": "the item-ID baseline (SASRec)",
    "popularity": "the most popular items",
}
FEW = 10_000  # training targets below which more data help most


def verdict(evaluation: Evaluation, size: LogSize, remedies: list[str]) -> tuple[str, list[str]]:
    """Says whether a recommender is above the baselines.

    A difference counts if the 95% interval of NDCG@10's paired bootstrap over users doesn't hold 0.

    Args:
        evaluation ([`Evaluation`]): on the test split.
        size ([`LogSize`]): of the log.
        remedies (`list[str]`): what this run left out, as things to try.

    Returns:
        a sentence, and what to try next if the recommender isn't above every baseline.

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
        found = paired_bootstrap([evaluation.ranks], [evaluation.baseline_ranks[name]])[METRIC]
        told.append(f"{_compared(ours, theirs, found)} {words} ({_figure(theirs)})")
        is_above &= found["low"] > 0
    sentence = f"NDCG@10 is {_figure(evaluation.metrics[METRIC])}: {', '.join(told)}."
    if is_above:
        return sentence, []
    tries = list(remedies)
    if size.n_targets < FEW:
        tries.append(
            f"wait for more of the log: training saw {size.n_targets:,} next items, and below some {FEW:,} counts are "
            "hard to beat"
        )
    return sentence, tries or ["recommend by counts alone: this log seems to hold little more than what follows what"]


def _compared(ours: float, theirs: float, found: dict[str, float]) -> str:
    """How two figures compare: above, below, or so near that other users might turn it."""
    if found["low"] <= 0 <= found["high"]:
        return "within chance of"
    word = "above" if found["difference"] > 0 else "below"
    return f"{abs(ours / theirs - 1):.0%} {word}" if theirs else f"far {word}"


def _figure(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")
