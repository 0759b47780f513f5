"""Compares training by two processes with training by one, in targets per second, with one thread per process.

    python benchmarks/training_processes.py FOLDER_OF_INSTRUMENTS [--steps 24] [--rounds 3] [--bf16]

FOLDER holds `NAME.inter.json`. Both sides make the same updates of 256 prefixes of similar length (code loss), by
`trainer.train()` and over gloo: one process takes a batch of 256, two take 128 each. The first updates don't count.
The measured time includes loading, forward, backward, averaging of gradients, clipping and update. Both sides take
turns; the ratio is the median of the rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from training import BATCH, make_trainer
from transformers import TrainerCallback

from etegrec_hf import FinetuningArguments, RQVAEConfig, RQVAEModel
from etegrec_hf.data.prepare import prepare
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.training.item_tokenizer.codebooks import initialize_codebooks

WARM_UP = 2
ACCELERATE = Path(__file__).parents[1] / "examples/accelerate/cpu.yaml"


class Clock(TrainerCallback):
    """Measures the seconds from the end of the warm-up to the end of training."""

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == WARM_UP:
            self.start = time.perf_counter()
        self.seconds = time.perf_counter() - self.start if state.global_step >= WARM_UP else 0.0


def work(folder: Path, steps: int, bf16: bool, processes: int) -> None:
    """Trains in one of the processes; the main process prints its seconds."""
    data = PreparedDataset.load(folder / "data")
    torch.manual_seed(0)
    rqvae = RQVAEModel(RQVAEConfig(input_size=data.embeddings.shape[1]))
    initialize_codebooks(rqvae, torch.from_numpy(data.embeddings))
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(
            data,
            rqvae,
            scratch,
            per_device_train_batch_size=BATCH // processes,
            max_steps=WARM_UP + steps,
            kind=FinetuningArguments,
            save_strategy="no",
            early_stopping_patience=None,
            disable_tqdm=True,
            bf16=bf16,
        )
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
    if trainer.is_world_process_zero():
        print(f"seconds {clock.seconds}", flush=True)


def run(folder: Path, options: argparse.Namespace, processes: int) -> float:
    """Returns the seconds of one run by `processes` processes."""
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE)]
    command = [sys.executable, *(launch if processes > 1 else []), __file__, str(folder)]
    command += ["--steps", str(options.steps), "--processes", str(processes), *(["--bf16"] if options.bf16 else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.rsplit("seconds ", 1)[1].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="under bfloat16 autocast")
    parser.add_argument("--processes", type=int, help=argparse.SUPPRESS)  # what the processes are started with
    options = parser.parse_args()
    if options.processes:
        work(options.folder, options.steps, options.bf16, options.processes)
        return
    with tempfile.TemporaryDirectory() as scratch:
        prepare(options.folder, f"{scratch}/data", "letter", embedding="cooccurrence")
        rounds = [[run(Path(scratch), options, count) for count in (1, 2)] for _ in range(options.rounds)]
    for count, seconds in zip((1, 2), zip(*rounds)):
        rate = options.steps * BATCH / statistics.median(seconds)
        print(f"{count} process{'es' * (count > 1)}: {rate:.0f} targets/s")
    ratios = [one / two for one, two in rounds]
    print(f"two against one: {statistics.median(ratios):.2f}x ({', '.join(f'{ratio:.2f}' for ratio in ratios)})")


if __name__ == "__main__":
    main()
