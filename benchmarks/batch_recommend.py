"""Compares batch inference by two processes with one, in users per second; each process has one thread.

    python benchmarks/batch_recommend.py FOLDER_OF_INSTRUMENTS [--users 4096] [--rounds 3]

The folder holds `NAME.inter.json`. Its first test users get recommendations as by `etegrec recommend --data`, from a
model of random weights with 6 + 6 layers of width 128: beam 20, top 10. The clock runs from loading the model to the
finished file, without process start and imports. Both sides take turns, and the ratio is the median of the rounds. The
last line is the share of one process's time outside `model.recommend`.

    python benchmarks/batch_recommend.py --histories [--users 4096] [--rounds 3] [--read 1000000] [--paper]

needs no folder: it makes up users with 5 to 40 of 25,000 items, 20 items to leave out per user, and a small model, or
with `--paper` one of the paper's size. It compares `--data` with `--histories` of each format, each in a process of
its own. Figures are processor seconds and the peak of memory after the model is loaded. Then it measures how fast each
format is read for `--read` users, without a model.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from etegrec_hf import (
    ETEGRecConfig,
    ETEGRecTokenizer,
    RecommendOptions,
    RQVAEConfig,
    RQVAEModel,
    TrainingRecord,
    batch_recommend,
    read_histories,
)
from etegrec_hf.data.prepare import prepare
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.table_files import write_tables
from etegrec_hf.data.users.histories import UserHistories, split_histories
from etegrec_hf.evaluation.batch_recommend import processes
from etegrec_hf.hub.model_folder import load_recommender, save_model_folder
from etegrec_hf.models.modeling_etegrec import ETEGRecForConditionalGeneration
from etegrec_hf.training.item_tokenizer.codebooks import initialize_codebooks
from etegrec_hf.training.item_tokenizer.item_codes import build_recommender

OPTIONS = RecommendOptions(top_k=10, num_beams=20, shard_size=512)
SOURCES = ("data", "parquet", "jsonl", "csv", "log")
N_ITEMS, SHORTEST, LONGEST, LEFT_OUT = 25_000, 5, 40, 20  # of made-up users; LEFT_OUT is per user
SMALL = {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_layers": 2, "num_decoder_layers": 2}
ACCELERATE = Path(__file__).parents[1] / "examples/accelerate/cpu.yaml"


def make(folder: Path, source: Path, users: int) -> None:
    """Writes `data` with a number of test users, and `model`."""
    prepare(source, folder / "data", "letter", embedding="cooccurrence")
    test = folder / "data/sequences/test.parquet"
    pq.write_table(pq.read_table(test).slice(0, users), test)
    data = PreparedDataset.load(folder / "data")
    torch.manual_seed(0)
    embeddings = torch.from_numpy(data.embeddings)
    rqvae = RQVAEModel(RQVAEConfig(input_size=embeddings.shape[1]))
    initialize_codebooks(rqvae, embeddings)
    model = build_recommender(rqvae, embeddings)
    tokenizer = ETEGRecTokenizer.from_item_codes(data.item_ids, model.catalogue.item_codes, model.config.codebook_size)
    save_model_folder(folder / "model", model, tokenizer, TrainingRecord())


def work(folder: Path, output: str) -> None:
    """Recommends in one of the processes; the main one prints its seconds, and those of `model.recommend`."""
    decoding = 0.0
    recommend = ETEGRecForConditionalGeneration.recommend

    def timed(*args, **kwargs):
        nonlocal decoding
        start = time.perf_counter()
        found = recommend(*args, **kwargs)
        decoding += time.perf_counter() - start
        return found

    ETEGRecForConditionalGeneration.recommend = timed
    state = processes()
    state.wait_for_everyone()
    start = time.perf_counter()
    model, tokenizer = load_recommender(str(folder / "model"))
    batch_recommend(model, tokenizer, folder / "data", output, OPTIONS)
    if state.is_main_process:
        print(json.dumps({"seconds": time.perf_counter() - start, "decoding": decoding}))


def run(folder: Path, count: int, output: Path) -> dict[str, float]:
    """Returns the figures of one run by `count` processes."""
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE), "--num_processes", str(count)]
    command = [sys.executable, *(launch if count > 1 else []), __file__, str(folder), "--work", str(output)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def make_up(folder: Path, users: int) -> None:
    """Writes the same users as a split of a dataset, as tables and as a log."""
    random = np.random.default_rng(0)
    item_ids = pa.array([f"item{number:06d}" for number in range(N_ITEMS)])
    (folder / "data/items").mkdir(parents=True)
    (folder / "data/sequences").mkdir()
    pq.write_table(pa.table({"item_id": item_ids}), folder / "data/items/items.parquet")
    user_ids = pa.array([f"user{number:08d}" for number in range(users)])
    lengths = random.integers(SHORTEST, LONGEST + 1, users)
    offsets = np.concatenate([[0], lengths.cumsum()])
    taken = item_ids.take(pa.array(random.integers(N_ITEMS, size=offsets[-1])))
    table = pa.table({"user_id": user_ids, "history": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), taken)})
    for ending in ("parquet", "jsonl", "csv"):
        write_tables(folder / f"users.{ending}", f".{ending}", table.schema, [table])
    shorter = [history[:-1] for history in table["history"].to_pylist()]
    split = pa.table({"user_id": user_ids, "history": shorter, "target": taken.take(pa.array(offsets[1:] - 1))})
    pq.write_table(split, folder / "data/sequences/test.parquet")
    rows = pa.array(np.repeat(np.arange(users), lengths))
    log = pa.table({"user_id": user_ids.take(rows), "item_id": taken, "timestamp": np.arange(len(rows))})
    pq.write_table(log, folder / "log.parquet")
    left_out = item_ids.take(pa.array(random.integers(N_ITEMS, size=users * LEFT_OUT)))
    rows = pa.array(np.repeat(np.arange(users), LEFT_OUT))
    pq.write_table(pa.table({"user_id": user_ids.take(rows), "item_id": left_out}), folder / "exclude.parquet")


def make_random_model(folder: Path, sizes: dict[str, int]) -> None:
    """Writes `model`, with random weights."""
    torch.manual_seed(0)
    without = {"has_item_tokenizer": False, "has_semantic_embedding": False}
    model = ETEGRecForConditionalGeneration(ETEGRecConfig(n_items=N_ITEMS, code_length=3, **sizes, **without)).eval()
    numbers = torch.randperm(model.config.codebook_size**3)[:N_ITEMS]
    codes = torch.stack(
        [numbers // model.config.codebook_size**level % model.config.codebook_size for level in range(3)], 1
    )
    model.set_item_codes(codes)
    item_ids = [f"item{number:06d}" for number in range(N_ITEMS)]
    tokenizer = ETEGRecTokenizer.from_item_codes(item_ids, codes, model.config.codebook_size)
    save_model_folder(folder / "model", model, tokenizer, TrainingRecord())


def histories_of(folder: Path, source: str) -> UserHistories:
    """Returns the made-up users, read from a source."""
    if source == "data":
        return split_histories(folder / "data", "test")
    return read_histories(folder / ("log.parquet" if source == "log" else f"users.{source}"))


def work_on_histories(folder: Path, source: str, output: str | None) -> None:
    """Recommends from a source, or only reads it; prints seconds, and by how many MB memory grew."""
    model, tokenizer = load_recommender(str(folder / "model")) if output else (None, None)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start = time.process_time()
    histories = histories_of(folder, source)
    if output:
        options = RecommendOptions(on_empty="empty", exclude=str(folder / "exclude.parquet"))
        batch_recommend(model, tokenizer, histories, output, options)
    else:
        for _ in histories.pieces(OPTIONS.shard_size):
            pass
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "grown": memory("VmHWM") - before}))


def memory(name: str) -> float:
    """Returns a figure of this process's memory in MB, by the kernel's name for it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) / 1024


def compare_sources(users: int, rounds: int, read: int, sizes: dict[str, int]) -> None:
    """Prints the figures of all sources, by a model of given sizes."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_random_model(folder, sizes)
        make_up(folder, users)
        figures: dict[str, list[dict]] = {source: [] for source in SOURCES}
        for number in range(rounds):
            for source in SOURCES:
                output = folder / f"{number}-{source}.parquet"
                figures[source].append(run_alone(folder, "--source", source, "--work", str(output)))
        tables = [pq.read_table(folder / f"0-{source}.parquet") for source in SOURCES]
        print("the same lists:", all(table.equals(tables[0]) for table in tables))
        for source, runs in figures.items():
            ratios = [theirs["seconds"] / ours["seconds"] for theirs, ours in zip(figures["data"], runs)]
            rate, ratio = users / statistics.median(entry["seconds"] for entry in runs), statistics.median(ratios)
            print(f"{source}: {rate:.0f} users/s, {ratio:.2f}x of data, {runs[0]['grown']:.0f} MB more")
    with tempfile.TemporaryDirectory() as scratch:
        make_up(Path(scratch), read)
        for source in SOURCES:
            entry = run_alone(Path(scratch), "--source", source)
            print(
                f"reading {read} users, {source}: {read / entry['seconds']:.0f} users/s, {entry['grown']:.0f} MB more"
            )


def run_alone(folder: Path, *arguments: str) -> dict[str, float]:
    """Runs this script in another process, and returns its figures."""
    command = [sys.executable, __file__, str(folder), *arguments]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--histories", action="store_true")
    parser.add_argument("--read", type=int, default=1_000_000)
    parser.add_argument("--paper", action="store_true", help="with --histories, a model of the paper's size")
    parser.add_argument("--source", help=argparse.SUPPRESS)
    parser.add_argument("--users", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", help=argparse.SUPPRESS)  # what the processes are started with
    options = parser.parse_args()
    if options.histories:
        compare_sources(options.users, options.rounds, options.read, {} if options.paper else SMALL)
        return
    if options.source:
        work_on_histories(options.folder, options.source, options.work)
        return
    if options.folder is None:
        parser.error("give FOLDER_OF_INSTRUMENTS, or --histories")
    if options.work:
        work(options.folder, options.work)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make(folder, options.folder, options.users)
        ratios, rates, shares = [], {1: [], 2: []}, []
        for number in range(options.rounds):
            runs = {count: run(folder, count, folder / f"{number}-{count}.parquet") for count in (1, 2)}
            ratios.append(runs[1]["seconds"] / runs[2]["seconds"])
            shares.append(1 - runs[1]["decoding"] / runs[1]["seconds"])
            for count, figures in runs.items():
                rates[count].append(options.users / figures["seconds"])
        same = (folder / "0-1.parquet").read_bytes() == (folder / "0-2.parquet").read_bytes()
    for count, measured in rates.items():
        print(f"{count} process{'es' * (count > 1)}: {statistics.median(measured):.0f} users/s")
    print(f"two against one: {statistics.median(ratios):.2f}x ({', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    print(f"the same bytes: {same}")
    print(f"not `model.recommend`: {statistics.median(shares):.1%} of one process's time")


if __name__ == "__main__":
    main()
