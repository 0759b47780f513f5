"""Measures time and memory for a catalogue of a million items, whose embeddings are mapped from disk.

    python benchmarks/catalogue.py [--items 1000000] [--small 10000] [--threads 2] [--only tokenizing]

The script makes up prepared datasets of few items and of many, with embeddings 1,024 wide. It makes an RQ-VAE of the
default sizes, whose codebooks come from k-means. Each of these is measured in a process of its own:

- making the mapped file from the parquet file, which is done once;
- tokenizing all items by `build_recommender`: embeddings are read from disk and encoded, and codes are made unique.
  Before that, the mapped file's pages are dropped from the system's cache;
- the memory of `etegrec train --map-embeddings true` with few items and with many, for the same few users: one epoch
  of the tokenizer, all codes again, one epoch of the recommender, evaluation, two checkpoints and the final model.

Two peaks of memory are shown. "Own" is the process's memory without mapped files (RssAnon, read every 5 ms).
"Resident" is the kernel's own peak (VmHWM). It includes pages of mapped files, which the system can drop at any time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from etegrec_hf import ETEGRecTrainingArguments, RQVAEConfig, RQVAEModel, build_recommender
from etegrec_hf.cli.train import TrainArguments, train
from etegrec_hf.data.mapped_embeddings import MAPPED, mapped_embeddings
from etegrec_hf.data.named_embeddings import embedding_column
from etegrec_hf.data.prepared import ITEM_ROW_GROUP
from etegrec_hf.data.splits import SPLIT_NAMES
from etegrec_hf.training.item_tokenizer.codebooks import initialize_codebooks
from etegrec_hf.training.recommender.options import RecommenderOptions

WIDTH, CLUSTERS = 1024, 1000
USERS, BATCH = 300, 256


def write_dataset(folder: Path, n_items: int) -> None:
    """Writes a prepared dataset of clustered items, with random histories of lengths as in a shop."""
    for name in ("items", "sequences"):
        (folder / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    centers = random.standard_normal((CLUSTERS, WIDTH), dtype=np.float32)
    ids = np.array([f"i{number:07d}" for number in range(n_items)])
    schema = pa.schema({"item_id": pa.string(), "embedding": pa.list_(pa.float32(), WIDTH)})
    with pq.ParquetWriter(folder / "items/items.parquet", schema) as writer:
        for start in range(0, n_items, ITEM_ROW_GROUP):
            few = ids[start : start + ITEM_ROW_GROUP]
            values = centers[random.integers(0, CLUSTERS, len(few))]
            values += random.standard_normal(values.shape, dtype=np.float32)
            writer.write_table(pa.table([pa.array(few), embedding_column(values)], schema=schema))
    random = np.random.default_rng(1)  # so that lengths of histories don't depend on the number of items
    lengths = np.minimum(5 + random.geometric(0.2, USERS), 50)
    histories = [ids[random.integers(0, n_items, length)].tolist() for length in lengths]
    for back, name in zip((2, 1, 0), SPLIT_NAMES):
        rows = [history[: len(history) - back] for history in histories]
        columns = {"user_id": [f"u{user}" for user in range(USERS)], "history": [row[:-1] for row in rows]}
        pq.write_table(
            pa.table({**columns, "target": [row[-1] for row in rows]}), folder / f"sequences/{name}.parquet"
        )
    (folder / "statistics.json").write_text("{}")


def status(name: str) -> float:
    """Returns a size of this process from the kernel, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":") for line in lines)[name].split()[0]) / 1e6


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Returns the seconds of `work`, and the process's peaks of memory in GB until then."""
    peak, over = status("RssAnon"), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.005):
            peak = max(peak, status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    over.set()
    watcher.join()
    return {"seconds": seconds, "own": peak, "resident": status("VmHWM")}


def train_tokenizer(folder: Path) -> None:
    """Saves an RQ-VAE of random weights, with codebooks from k-means over the items."""
    torch.manual_seed(0)
    model = RQVAEModel(RQVAEConfig(input_size=WIDTH))
    initialize_codebooks(model, mapped_embeddings(folder / "data"))
    model.save_pretrained(folder / "tokenizer")


def tokenize(folder: Path) -> None:
    item_tokenizer = RQVAEModel.from_pretrained(folder / "tokenizer")
    build_recommender(item_tokenizer, mapped_embeddings(folder / "data"), has_semantic_embedding=False)


def alternate(folder: Path) -> None:
    train(
        TrainArguments(str(folder / "data"), str(folder / "tokenizer"), map_embeddings=True),
        RecommenderOptions(reads_items=False, item_logits="none", recent_items=0),
        ETEGRecTrainingArguments(
            str(folder / "model"),
            num_train_epochs=2,
            warm_epochs=0,
            per_device_train_batch_size=BATCH,
            use_cpu=True,
            disable_tqdm=True,
        ),
    )


WORK = {
    "mapping": lambda folder: mapped_embeddings(folder / "data"),
    "codebooks": train_tokenizer,
    "tokenizing": tokenize,
    "training": alternate,
}


def in_a_process(work: str, folder: Path, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--threads", str(threads), "--work", work, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def drop_from_cache(path: Path) -> None:
    """Drops a file's pages from the system's cache, so that it is read from disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def show(name: str, figures: dict[str, float]) -> None:
    print(
        f"{name:<44} {figures['seconds']:7.1f} s  own {figures['own']:5.2f} GB  resident {figures['resident']:5.2f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("tokenizing", "training"))
    parser.add_argument("--work", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.work:
        name, folder = options.work
        print(json.dumps(measured(lambda: WORK[name](Path(folder)))))
        return
    peaks = []
    with tempfile.TemporaryDirectory() as scratch:
        for n_items in (options.small, options.items):
            folder = Path(scratch, str(n_items))
            write_dataset(folder / "data", n_items)
            mapping = in_a_process("mapping", folder, options.threads)
            in_a_process("codebooks", folder, options.threads)
            if n_items == options.items and options.only != "training":
                show(f"mapping {n_items:,} items, once", mapping)
                drop_from_cache(folder / "data" / MAPPED)
                show(f"tokenizing {n_items:,} items", in_a_process("tokenizing", folder, options.threads))
            if options.only != "tokenizing":
                figures = in_a_process("training", folder, options.threads)
                show(f"alternating training with {n_items:,} items", figures)
                peaks.append(figures["own"])
    if peaks:
        print(f"memory of training, many items against few   {peaks[1] / peaks[0]:.2f}x")


if __name__ == "__main__":
    main()
