"""Runs of reinforcement learning in one of several processes: DATA FOLDER BATCH. torchrun gives each its number."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from grpo_runs import make_trainer, tiny_model
from safetensors.torch import save_file

from etegrec_hf import PrefixReward
from etegrec_hf.data.prepared import PreparedDataset


def rewarded(prepared: PreparedDataset, folder: str, batch: int, rollout: str, **options):
    """A finished run, `batch` completions a step on each process."""
    model = tiny_model(prepared)
    run = make_trainer(
        prepared,
        folder,
        PrefixReward(model),
        model,
        per_device_train_batch_size=batch,
        rollout=rollout,
        num_iterations=2,
        max_steps=6,
        learning_rate=3e-3,
        save_total_limit=2,
        **options,
    )
    run.train()
    run.save_model()
    return run


def main(data_folder: str, folder: str, batch: str) -> None:
    for rollout in ("beam", "sample"):
        prepared = PreparedDataset.load(data_folder)
        run = rewarded(prepared, f"{folder}/{rollout}", int(batch), rollout, ddp_backend="gloo")
        own = f"{folder}/{rollout}/process{run.args.process_index}.safetensors"
        save_file(dict(run.model.named_parameters()), own)


if __name__ == "__main__":
    main(*sys.argv[1:])
