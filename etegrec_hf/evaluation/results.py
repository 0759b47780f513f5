"""Files that `etegrec evaluate` writes: its results, and each user's rank."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..data.folders import replace_file
from .metrics import KS, metrics_of_ranks


def read_result(name: str | Path) -> dict:
    """Reads a file that `etegrec evaluate --output` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another file.
    """
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"{str(name)!r} isn't a file; name a file that `etegrec evaluate --output` wrote.")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{name} isn't JSON ({error}); name a file that `etegrec evaluate --output` wrote."
        ) from error
    if not isinstance(result, dict) or not {"protocol", "baselines", "seeds"} <= result.keys():
        raise ValueError(f"{name} isn't a result of `etegrec evaluate`, or is an older one; evaluate again.")
    return result


def write_ranks(path: Path, user_ids: list[str], ranks: np.ndarray) -> None:
    """Writes a parquet file of `user_id` and `rank`, a row per target, completely or not at all."""
    table = pa.table({"user_id": user_ids, "rank": ranks})
    replace_file(path, lambda beside: pq.write_table(table, beside))


def read_ranks(results: dict[str, dict]) -> tuple[np.ndarray | None, list[np.ndarray]]:
    """Reads each target's user, and the ranks `[targets]` of each result, which are none if a result names no file.

    Results with the same protocol have the same order of targets.

    Args:
        results (`dict[str, dict]`): results by their file, in whose folder the file of ranks is.

    Raises:
        FileNotFoundError: a missing file of ranks.
        ValueError: a file of ranks that is damaged, or of another run.
    """
    if not all("ranks" in result for result in results.values()):
        return None, []
    paths = [Path(name).parent / result["ranks"] for name, result in results.items()]
    for name, path in zip(results, paths):
        if not path.is_file():
            raise FileNotFoundError(
                f"{name} has its ranks in {str(path)!r}, which doesn't exist; move both files together."
            )
    users, ranks = zip(*map(_read_ranks, paths))
    for name, path, of_run in zip(results, paths, ranks):
        _check_ranks(name, results[name], path, of_run)
    return users[0], list(ranks)


def _check_ranks(name: str, result: dict, path: Path, ranks: np.ndarray) -> None:
    """Raises a `ValueError` if the ranks aren't those of the result, since another run has written its own there."""
    metrics = result[result["protocol"]["split"]]
    for metric, values in metrics_of_ranks(ranks, KS).items():
        found = float(values.mean())
        if metric in metrics and abs(found - metrics[metric]) > 1e-6:
            raise ValueError(
                f"{name} has a {metric} of {metrics[metric]:.4f}, but its ranks in {str(path)!r} one of {found:.4f}: "
                "another run has written them; evaluate again, with a file of ranks for each run."
            )


def _read_ranks(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        table = pq.read_table(path, columns=["user_id", "rank"])
        return table["user_id"].dictionary_encode().combine_chunks().indices.to_numpy(), table["rank"].to_numpy()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"{str(path)!r} holds no ranks ({error}); run `etegrec evaluate --ranks` again.") from error
