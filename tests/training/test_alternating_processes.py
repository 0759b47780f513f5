"""Alternating training in two processes, on the CPU with gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import run_alternating_in_processes
import torch
from safetensors.torch import load_file

EXAMPLES = Path(__file__).parents[2] / "examples"


def history(folder: Path) -> list[dict]:
    (checkpoint,) = folder.glob("checkpoint-*")
    return json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(prepared, prepared_folder, tmp_path):
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(EXAMPLES / "accelerate/cpu.yaml"),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    half = str(run_alternating_in_processes.TOGETHER // 2)
    command = [*launch, run_alternating_in_processes.__file__, prepared_folder, str(tmp_path / "two"), half]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = run_alternating_in_processes.alternating(
        prepared, str(tmp_path / "alone"), run_alternating_in_processes.TOGETHER
    )
    for process in range(2):
        theirs = load_file(tmp_path / f"two/process{process}.safetensors")
        assert torch.equal(theirs["item_tokens"], alone.model.item_tokens)
        for name, tensor in alone.model.named_parameters():
            torch.testing.assert_close(theirs[name], tensor.data, atol=1e-5, rtol=1e-4, msg=name)
    ours, theirs = history(tmp_path / "alone"), history(tmp_path / "two")
    assert [sorted(entry) for entry in ours] == [sorted(entry) for entry in theirs]
    assert any(entry.get("changed_codes", 0) > 0 for entry in ours)
    for one, other in zip(ours, theirs):
        for name in {"eval_ndcg@10", "eval_recall@1", "grad_norm", "loss", "changed_codes"} & one.keys():
            assert other[name] == pytest.approx(one[name], abs=1e-5), name
