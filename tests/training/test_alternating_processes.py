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


@pytest.fixture(scope="module")
def two(prepared_folder, tmp_path_factory) -> Path:
    """The run folder of two processes."""
    folder = tmp_path_factory.mktemp("two")
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(EXAMPLES / "accelerate/cpu.yaml"),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    half = str(run_alternating_in_processes.TOGETHER // 2)
    command = [*launch, run_alternating_in_processes.__file__, prepared_folder, str(folder), half]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def results(folder: Path, process: int, start: str = "") -> dict[str, torch.Tensor]:
    """Returns the results of a process whose names begin with a prefix."""
    tensors = load_file(folder / f"process{process}.safetensors")
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(prepared, two, tmp_path):
    alone = run_alternating_in_processes.alternating(
        prepared, str(tmp_path / "alone"), run_alternating_in_processes.TOGETHER
    )
    for process in range(2):
        theirs = results(two, process)
        assert torch.equal(theirs["item_tokens"], alone.model.catalogue.item_tokens)
        for name, tensor in alone.model.named_parameters():
            torch.testing.assert_close(theirs[name], tensor.data, atol=1e-4, rtol=1e-4, msg=name)
    ranked = alone.predict(alone.eval_dataset)
    assert ranked.label_ids.shape == (run_alternating_in_processes.USERS,)
    for process in range(2):  # each user once, and in order
        theirs = results(two, process)
        assert theirs["targets"].tolist() == ranked.label_ids.tolist()
        assert theirs["items"].tolist() == ranked.predictions.tolist()
    ours, theirs = history(tmp_path / "alone"), history(two)
    assert [sorted(entry) for entry in ours] == [sorted(entry) for entry in theirs]
    assert any(entry.get("changed_codes", 0) > 0 for entry in ours)
    for one, other in zip(ours, theirs):
        for name in {"eval_ndcg@10", "eval_recall@1", "grad_norm", "loss", "changed_codes"} & one.keys():
            assert other[name] == pytest.approx(one[name], abs=1e-5), name


@pytest.mark.slow
def test_negatives_of_a_process_with_fewer_targets(two):
    first, second = (results(two, process, "negatives.") for process in range(2))
    assert first["theirs"].tolist() == [[item] * 4 for item in (6, 7, 8)]
    assert second["theirs"].tolist() == [[item] * 4 for item in (5, 6)]
    assert first["reconstructions"].equal(-first["theirs"])
    assert second["reconstructions"].equal(-second["theirs"])
    assert first["same"].tolist() == [[False] * 3, [True, False, False]]
    assert second["same"].tolist() == [[False, True], [False, False], [False, False]]
    assert first["gradient"].tolist() == [[2.0] * 4] * 2, "from what the second did with them"
    assert second["gradient"].tolist() == [[1.0] * 4] * 3


@pytest.mark.slow
def test_two_processes_that_resume_within_the_second_epoch_equal_no_interruption(two):
    for process in range(2):
        whole, resumed = (results(two, process, f"{kind}.") for kind in ("whole", "resumed"))
        assert whole
        for name, tensor in whole.items():
            assert torch.equal(tensor, resumed[name]), name


@pytest.mark.slow
def test_streamed_sequences_train_two_processes_as_memory_does(two):
    memory, stream = results(two, 0, "memory."), results(two, 0, "stream.")
    others = results(two, 1, "stream.")
    for name, tensor in memory.items():
        assert torch.equal(tensor, stream[name]), name
        assert torch.equal(tensor, others[name]), name
