"""Training on a dataset of the Hub whose training sequences stay there, by a real client over HTTP."""

import hashlib
import json
from pathlib import Path

import pytest
from loopback_hub import Repository
from safetensors.torch import load_file
from two_sides import etegrec, several

from etegrec_hf import RQVAEConfig, RQVAEModel

SIZES = {"d-model": 16, "d-ff": 16, "d-kv": 8, "num-layers": 1, "num-decoder-layers": 1, "num-heads": 2}
SIZES |= {"num-transitions": 0}  # a stream can count none
OPTIONS = {"num-train-epochs": 2, "warm-epochs": 0, "num-beams": 10, "per-device-train-batch-size": 32}
OPTIONS |= {"use-cpu": "true", "disable-tqdm": "true"}


def flags(options: dict) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


def weights(folder: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "model.safetensors").items()}


@pytest.mark.slow
def test_training_sequences_stay_on_the_hub(prepared_folder, hub, tmp_path):
    repository = hub.repositories["datasets/tester/log"] = Repository()
    files = {path.relative_to(prepared_folder): path for path in Path(prepared_folder).rglob("*") if path.is_file()}
    tree = {str(name): hub.store(path.read_bytes()) for name, path in files.items()}
    repository.commit("main", tree, "data")
    sizes = RQVAEConfig(input_size=12, hidden_sizes=[16], latent_size=8, num_levels=2, codebook_size=8)
    RQVAEModel(sizes).save_pretrained(tmp_path / "tokenizer")
    environment = hub.environment(tmp_path / "home") | {"OMP_NUM_THREADS": "1"}
    arguments = ["--tokenizer", str(tmp_path / "tokenizer"), *flags(SIZES), *flags(OPTIONS)]

    streamed, whole = tmp_path / "streamed", tmp_path / "whole"
    commands = [
        ("train", "--data", "tester/log", "--stream", "true", "--output-dir", streamed, *arguments),
        ("train", "--data", prepared_folder, "--output-dir", whole, *arguments),  # which asks the Hub for nothing
    ]
    done = several([(command, {}) for command in commands], **environment)
    assert [code for code, _, _ in done] == [0, 0], done
    assert hub.requests["GET large"] > 3, "items, validation and test, and parts of train"
    cached = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    hashes = {hashlib.sha256(path.read_bytes()).hexdigest() for path in cached}
    assert tree["sequences/train.parquet"] not in hashes
    assert hashes >= {tree[name] for name in ("items/items.parquet", "sequences/validation.parquet")}
    assert weights(streamed) == weights(whole), "one buffer holds all, so that the order is that of memory"
    records = [json.loads((folder / "training_record.json").read_text()) for folder in (streamed, whole)]
    assert records[0]["fingerprint"] == records[1]["fingerprint"]

    finetuning = ["--model", streamed, "--output-dir", tmp_path / "finetuned", "--stream", "true", *flags(OPTIONS)]
    done = etegrec("finetune", "--data", "tester/log", *finetuning, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    stages = json.loads((tmp_path / "finetuned/training_record.json").read_text())["stages"]
    assert [stage["stage"] for stage in stages] == ["alternating training", "finetuning"]
