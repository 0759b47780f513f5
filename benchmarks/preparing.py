"""Measures time and memory of preparing a large log, and of reading prefixes from it.

    python benchmarks/preparing.py [--interactions 10000000] [--users 1000000] [--items 200000]

The log is made up: one parquet file with rows in the order of time, users with 5 items or more, and items by a law of
popularity. `etegrec prepare` reads it in a process of its own. For comparison, pyarrow reads and sorts the same rows,
which every preparation has to do at least.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.sequences import SequenceDataset


def write_log(path: Path, interactions: int, users: int, items: int) -> None:
    """Writes rows in the order of time; every user has 5 interactions or more."""
    random = np.random.default_rng(0)
    lengths = 5 + random.multinomial(interactions - 5 * users, random.dirichlet(np.ones(users)))
    user = random.permutation(np.repeat(np.arange(users), lengths))
    item = np.minimum((items * random.random(interactions) ** 2).astype(np.int64), items - 1)
    ids = [pa.array([f"{kind}{number:07d}" for number in range(n)]) for kind, n in (("u", users), ("i", items))]
    columns = {"user_id": ids[0].take(pa.array(user)), "item_id": ids[1].take(pa.array(item))}
    times = 1_500_000_000 + np.sort(random.integers(0, 10**8, interactions))
    pq.write_table(pa.table({**columns, "timestamp": times}), path)


def run(*arguments: str) -> tuple[float, float]:
    """Runs a process, and returns its seconds and its peak of memory in GB."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1e6


READ_AND_SORT = "import sys, pyarrow.parquet as pq; pq.read_table(sys.argv[1]).sort_by([('user_id', 'ascending')])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        log, folder = Path(scratch, "log.parquet"), Path(scratch, "data")
        write_log(log, options.interactions, options.users, options.items)
        print(f"{options.interactions:,} interactions, {options.users:,} users, {options.items:,} items")
        least, memory = run("-c", READ_AND_SORT, str(log))
        print(f"pyarrow reads and sorts     {least:6.1f} s  {memory:5.2f} GB   1.0x")
        arguments = ("prepare", str(log), "--format", "parquet", "--output-dir", str(folder))
        seconds, memory = run("-m", "etegrec_hf.cli.main", *arguments)
        print(f"etegrec prepare             {seconds:6.1f} s  {memory:5.2f} GB  {seconds / least:4.1f}x")

        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        data = PreparedDataset.load(folder)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
        print(f"loading the prepared folder {time.perf_counter() - start:6.1f} s  {grown:5.2f} GB")

        dataset = SequenceDataset.for_training(data.train, 50)
        own = sum(column.nbytes for column in (dataset.sequences, dataset.position, dataset.lengths, dataset.rows))
        written_out = 8 * int(dataset.lengths.sum() + len(dataset))
        print(
            f"{len(dataset):,} prefixes take {own / len(dataset.sequences):.0f} bytes an interaction, "
            f"{own / 1e9:.2f} GB; written out they would take {written_out / 1e9:.2f} GB, {written_out / own:.1f}x"
        )
        random = np.random.default_rng(0)
        batches = random.integers(0, len(dataset), (200, 256))
        start = time.perf_counter()
        for batch in batches:
            dataset.__getitems__(batch)
        print(f"reading a batch of 256 random prefixes takes {(time.perf_counter() - start) / 200 * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
