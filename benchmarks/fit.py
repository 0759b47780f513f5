"""Measures time and memory of `etegrec fit`, and its metrics compared with simpler systems.

    python benchmarks/fit.py shop films tiny --preset best
    python benchmarks/fit.py FOLDER_OF_MICROLENS --preset fast --text-model FOLDER_OF_A_TEXT_ENCODER

A name in `made_up_logs.py` is a made-up log; anything else is a path. Each log is fitted in a process of its own.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from made_up_logs import KINDS, write_log

SYSTEMS = ("transitions", "SASRec", "popularity")
MEMORY = "seconds and peak memory: "


def fit_one(log: str, output: Path, options: dict) -> None:
    """Fits a log in this process, and prints its time and memory last."""
    from etegrec_hf import FitOptions, fit

    start = time.perf_counter()
    fit(log, output, FitOptions(**options), tell=lambda sentence: print(sentence, flush=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{MEMORY}{time.perf_counter() - start:.0f} {peak:.2f}", flush=True)


def row_of(name: str, folder: Path, told: str) -> str:
    """Returns a row of the table."""
    results = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    ours = results["test"]
    seconds, memory = told.rsplit(MEMORY, 1)[1].split()
    ratios = [
        f"{ours[metric] / results['baselines'][system][metric]:.2f}"
        for system in SYSTEMS
        for metric in ("recall@10", "ndcg@10")
    ]
    figures = [f"{ours[metric]:.4f}".removeprefix("0") for metric in ("recall@10", "ndcg@10")]
    weights = f"{results['transition_weight']:g}, {results['rerank_weight']:g}"
    minutes = f"{float(seconds) / 60:.1f}"
    return f"| {' | '.join([name, minutes, f'{float(memory):.1f}', *figures, *ratios, weights])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", help=f"of {', '.join(KINDS)}, or paths")
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--time-limit")
    parser.add_argument("--text-model")
    parser.add_argument("--min-count", type=int)
    parser.add_argument("--output-dir", type=Path, help="where everything is kept; by default nothing is")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = ("preset", "time_limit", "text_model", "min_count")
    options = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.one:
        fit_one(arguments.logs[0], Path(arguments.one), options)
        return
    with tempfile.TemporaryDirectory() as temporary:
        output = arguments.output_dir or Path(temporary)
        rows = []
        for log in arguments.logs:
            name = log if log in KINDS else Path(log).name
            path = str(write_log(log, output / f"{name}-log")) if log in KINDS else log
            folder = output / name
            command = [sys.executable, __file__, path, "--one", str(folder)]
            for option, value in options.items():
                command += [f"--{option.replace('_', '-')}", str(value)]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ, check=True)
            print(ended.stdout, file=sys.stderr)
            rows.append(row_of(name, folder, ended.stdout))
    heads = [f"{metric} / {system}" for system in SYSTEMS for metric in ("R@10", "N@10")]
    columns = ["log", "minutes", "GiB", "Recall@10", "NDCG@10", *heads, "votes, re-ranking"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
