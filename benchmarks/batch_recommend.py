"""Batch inference by two processes against one, in users a second; each has one thread.

    python benchmarks/batch_recommend.py FOLDER_OF_INSTRUMENTS [--users 4096] [--rounds 3]

FOLDER holds `NAME.inter.json`, whose first test users are recommended to as `etegrec recommend --data` does it, by a
model of random weights with 6 + 6 layers of width 128: beam 20, top 10. The clock runs from loading the model to the
finished file, after process start and imports. Both sides take turns; the ratio is the median of the rounds. Then what
share of the time of one process is not `model.recommend`.
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

import pyarrow.parquet as pq
import torch

from etegrec_hf import ETEGRecTokenizer, RecommendOptions, RQVAEConfig, RQVAEModel, TrainingRecord, batch_recommend
from etegrec_hf.data.prepare import prepare
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.evaluation.batch_recommend import processes
from etegrec_hf.hub.model_folder import load_recommender, save_model_folder
from etegrec_hf.models.modeling_etegrec import ETEGRecForConditionalGeneration
from etegrec_hf.training.item_tokenizer.codebooks import initialize_codebooks
from etegrec_hf.training.item_tokenizer.item_codes import build_recommender

OPTIONS = RecommendOptions(top_k=10, num_beams=20, shard_size=512)
ACCELERATE = Path(__file__).parents[1] / "examples/accelerate/cpu.yaml"


def make(folder: Path, source: Path, users: int) -> None:
    """`data` with so many test users, and `model`."""
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
    """What one of the processes does; the main one prints its seconds, and those of `model.recommend`."""
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
    """The figures of one run by `count` processes."""
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE), "--num_processes", str(count)]
    command = [sys.executable, *(launch if count > 1 else []), __file__, str(folder), "--work", str(output)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", help=argparse.SUPPRESS)  # what the processes are started with
    options = parser.parse_args()
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
