"""Two processes, as `accelerate launch` and `torchrun` start them, on the CPU with gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import run_in_processes
import torch
from safetensors.torch import load_file


def in_two_processes(*arguments) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [*launch, run_in_processes.__file__, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def history(folder: Path) -> list[dict]:
    return json.loads((folder / "checkpoint-6/trainer_state.json").read_text())["log_history"]


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(prepared, prepared_folder, tmp_path):
    """With beams, which need no random numbers; samples are each process's own, and their weights still the same."""
    in_two_processes(prepared_folder, tmp_path, 32)
    alone = run_in_processes.rewarded(prepared, str(tmp_path / "alone"), 64, "beam")
    first, second = (load_file(tmp_path / f"beam/process{process}.safetensors") for process in range(2))
    for name, tensor in alone.model.named_parameters():
        for theirs in (first, second):
            torch.testing.assert_close(theirs[name], tensor.data, atol=1e-4, rtol=1e-4, msg=name)
    for ours, theirs in zip(history(tmp_path / "alone"), history(tmp_path / "beam"), strict=True):
        for name in {"reward", "kl", "skipped_groups", "loss", "eval_ndcg@10", "eval_coverage@10"} & ours.keys():
            assert theirs[name] == pytest.approx(ours[name], abs=1e-5), name
    first, second = (load_file(tmp_path / f"sample/process{process}.safetensors") for process in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert any(entry.get("reward") for entry in history(tmp_path / "sample"))
