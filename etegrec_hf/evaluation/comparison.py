"""Comparison of several systems: means over random seeds, and confidence intervals of their differences."""

import numpy as np

from .metrics import KS, by_user, metrics_of_ranks
from .protocol import common_protocol
from .results import read_ranks, read_result

RESAMPLES = 2000
CHUNK = 50  # resamples that are drawn together


def compare(runs: dict[str, list[str]]) -> dict:
    """Compares the results of several systems, which must have been measured in the same way.

    Args:
        runs (`dict[str, list[str]]`): by system, the files that `etegrec evaluate` wrote, one per random seed.
            Differences are taken from the first system, and need the ranks that `--ranks` keeps.

    Returns:
        `dict` of `protocol`; `systems`, each with its number of `runs`, their `seeds`, and `mean` and `std` of the
        metrics; `differences` of the other `systems` `from` the first one, at list length 10 or the longest measured
        below it; and the `baselines` of all files.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that isn't of `etegrec evaluate`, or runs that were measured differently.
    """
    results = {system: {name: read_result(name) for name in names} for system, names in runs.items()}
    everything = {name: result for of_system in results.values() for name, result in of_system.items()}
    protocol = common_protocol(everything)
    metrics = {
        system: [result[protocol["split"]] for result in of_system.values()] for system, of_system in results.items()
    }
    systems = {
        system: {
            "runs": len(of_system),
            "seeds": [result["seeds"] for result in of_system.values()],
            **over_seeds(metrics[system]),
        }
        for system, of_system in results.items()
    }
    users, ranks = None, {}
    for system, of_system in results.items():
        of_rows, ranks[system] = read_ranks(of_system)
        users = of_rows if users is None else users  # the same in all of them
    reference, *others = runs
    measured = [k for k in KS if k <= 10 and all(f"recall@{k}" in run for of in metrics.values() for run in of)]
    differences = {
        system: paired_bootstrap(ranks[system], ranks[reference], tuple(measured[-1:]), users=users)
        for system in others
        if ranks[system] and ranks[reference]
    }
    return {
        "protocol": protocol,
        "systems": systems,
        "differences": {"from": reference, "systems": differences},
        "baselines": {name: row for result in everything.values() for name, row in result["baselines"].items()},
    }


def over_seeds(metrics: list[dict[str, float]]) -> dict[str, dict[str, float] | dict[str, None]]:
    """Returns mean and standard deviation of each metric over runs. For a single run the deviation is `None`.

    >>> over_seeds([{"recall@1": 0.25}, {"recall@1": 0.75}])["mean"]
    {'recall@1': 0.5}
    """
    values = {name: np.array([run[name] for run in metrics]) for name in metrics[0]}
    means = {name: float(of_runs.mean()) for name, of_runs in values.items()}
    if len(metrics) == 1:
        return {"mean": means, "std": dict.fromkeys(values)}
    return {"mean": means, "std": {name: float(of_runs.std(ddof=1)) for name, of_runs in values.items()}}


def paired_bootstrap(
    ranks: list[np.ndarray],
    other: list[np.ndarray],
    ks: tuple[int, ...] = (10,),
    seed: int = 0,
    users: np.ndarray | None = None,
) -> dict[str, dict[str, float]]:
    """Returns the differences of two systems' metrics for the same targets, with 95% bootstrap intervals.

    A target's metric is the mean over a system's runs. Users are drawn with replacement, each with all their targets,
    and both systems' values are drawn together. So the intervals cover other users like these, but not other random
    seeds.

    Args:
        ranks, other (`list[np.ndarray]`): per run of a system, the rank `[targets]` of each target, from 1; 0 for a
            target that isn't listed. All have the same order of targets.
        ks (`tuple[int]`, *optional*, defaults to `(10,)`): list lengths.
        seed (`int`, *optional*, defaults to 0): random seed of the resampling.
        users (`np.ndarray` of shape `(targets,)`, *optional*): number or id of each target's user; by default each
            target is of another user, as in leave-one-out.

    Returns:
        `dict` by metric of `difference` (the first system's value minus the other's), `low` and `high`. For a single
        user, `low` and `high` are -1 and 1.

    Raises:
        ValueError: runs with different numbers of targets.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), percentile intervals.
    """
    lengths = {len(of_run) for of_run in (*ranks, *other)}
    if len(lengths) != 1:
        raise ValueError(
            f"the runs have different numbers of targets, {sorted(lengths)}; compare runs on the same users."
        )
    mine, theirs = (
        {name: np.mean([by_target[name] for by_target in runs], axis=0) for name in runs[0]}
        for runs in ([metrics_of_ranks(of_run, ks) for of_run in system] for system in (ranks, other))
    )
    names = list(mine)
    differences = np.stack([mine[name] - theirs[name] for name in names], axis=1)  # [targets, metrics]
    sums, targets = by_user(differences, users)
    random, count = np.random.default_rng(seed), len(sums)
    means = []
    for _ in range(RESAMPLES // CHUNK):
        drawn = random.multinomial(count, np.full(count, 1 / count), size=CHUNK)  # [resamples, users]
        means.append(drawn @ sums / (drawn @ targets)[:, None])
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5], axis=0)
    if count == 1:
        low, high = np.full_like(low, -1), np.full_like(high, 1)
    return {
        name: {
            "difference": float(differences[:, column].mean()),
            "low": float(low[column]),
            "high": float(high[column]),
        }
        for column, name in enumerate(names)
    }
