"""`etegrec diagnose` on saved item tokenizers."""

import json
import sys
from pathlib import Path

import pytest
import torch

from etegrec_hf import RQVAEConfig, RQVAEModel
from etegrec_hf.cli.main import main
from etegrec_hf.data.synthetic import SyntheticProcess
from etegrec_hf.evaluation.code_diagnostics import tokenizer_diagnostics


def save_tokenizer(folder: Path, width: int = 12, num_levels: int = 2, seed: int = 0) -> RQVAEModel:
    torch.manual_seed(seed)
    sizes = {"hidden_sizes": [16], "latent_size": 8, "codebook_size": 8}
    model = RQVAEModel(RQVAEConfig(input_size=width, num_levels=num_levels, **sizes))
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory) -> str:
    """A dataset of another width."""
    folder = tmp_path_factory.mktemp("other") / "data"
    SyntheticProcess(n_users=120, n_items=60, n_clusters=4, width=16, seed=5).write(folder)
    return str(folder)


def diagnose(*argv) -> int:
    return main(["diagnose", *map(str, argv)])


def failure(capsys, *argv) -> str:
    assert diagnose(*argv) == 1
    return " ".join(capsys.readouterr().err.split())


def test_tokenizers_stand_side_by_side(prepared_folder, prepared, tmp_path, capsys):
    models = {"two": save_tokenizer(tmp_path / "two"), "three": save_tokenizer(tmp_path / "three", num_levels=3)}
    output = tmp_path / "new/codes.json"
    wanted = ["--tokenizer", tmp_path / "two", tmp_path / "three", "--data", prepared_folder, "--output", output]
    assert diagnose(*wanted) == 0
    results = json.loads(output.read_text())
    assert list(results) == ["two", "three"]
    embeddings = torch.from_numpy(prepared.embeddings)
    for name, model in models.items():
        expected = tokenizer_diagnostics(model.eval(), embeddings)
        told = dict(results[name])
        assert (told.pop("tokenizer"), told.pop("data")) == (str(tmp_path / name), prepared_folder)
        assert told == pytest.approx(expected, rel=1e-5)
    rows = {}
    for line in capsys.readouterr().out.splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        rows |= {cells[0]: cells[1:]} if len(cells) == 3 else {}
    assert rows["prefixes 1"] == [str(results["two"]["prefixes_1"]), str(results["three"]["prefixes_1"])]
    assert rows["gini 0"] == [f"{results[name]['gini_0']:.4g}" for name in results]
    assert rows["gini 2"] == ["-", f"{results['three']['gini_2']:.4g}"], "the first has no such level"
    names = list(rows)
    assert names.index("gini 2") == names.index("gini 1") + 4, "levels stand together"
    assert [path.name for path in output.parent.iterdir()] == ["codes.json"]


def test_every_tokenizer_has_its_own_dataset_and_name(prepared_folder, other_folder, tmp_path):
    save_tokenizer(tmp_path / "a/tokenizer")
    save_tokenizer(tmp_path / "b/tokenizer", width=16)
    output = tmp_path / "codes.json"
    tokenizers = ["--tokenizer", tmp_path / "a/tokenizer", tmp_path / "b/tokenizer"]
    assert diagnose(*tokenizers, "--data", prepared_folder, other_folder, "--output", output) == 0
    results = json.loads(output.read_text())
    assert {name: figures["data"] for name, figures in results.items()} == {
        "tokenizer": prepared_folder,
        "tokenizer-2": other_folder,
    }


@pytest.mark.slow
def test_plots_of_every_tokenizer(prepared_folder, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    save_tokenizer(tmp_path / "a/same")
    save_tokenizer(tmp_path / "b/same", seed=1)
    plots = tmp_path / "deep/plots"
    tokenizers = ["--tokenizer", tmp_path / "a/same", tmp_path / "b/same"]
    assert diagnose(*tokenizers, "--data", prepared_folder, "--plots", plots) == 0
    pictures = {path.name: path.read_bytes() for path in plots.iterdir()}
    assert set(pictures) == {f"{name}_{kind}.png" for name in ("same", "same-2") for kind in ("usage", "prefixes")}
    assert all(content.startswith(b"\x89PNG") for content in pictures.values())
    assert pictures["same_usage.png"] != pictures["same-2_usage.png"]


def test_other_numbers_of_datasets_are_an_error(prepared_folder, capsys):
    for folders, tokenizers in ((2, 3), (2, 1)):
        message = failure(capsys, "--tokenizer", *["x"] * tokenizers, "--data", *[prepared_folder] * folders)
        assert f"`data` names {folders} datasets for {tokenizers} tokenizers; name one dataset for all" in message


def test_embeddings_of_another_width_are_an_error(other_folder, tmp_path, capsys):
    save_tokenizer(tmp_path / "a")
    message = failure(
        capsys, "--tokenizer", tmp_path / "a", "--data", other_folder, "--output", tmp_path / "codes.json"
    )
    assert f"'{tmp_path / 'a'}' reads embeddings of width 12, but those of '{other_folder}' have width 16" in message
    assert "name the dataset that the tokenizer was trained on" in message
    assert not (tmp_path / "codes.json").exists()


def test_what_is_no_tokenizer_is_an_error(prepared_folder, folder, tmp_path, capsys):
    assert "holds a model of type 'etegrec'" in failure(capsys, "--tokenizer", folder, "--data", prepared_folder)
    missing = ("--tokenizer", tmp_path / "nothing", "--data", prepared_folder)
    assert "isn't a folder" in failure(capsys, *missing)


def test_where_nothing_can_be_written_is_known_first(prepared_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("etegrec_hf.cli.diagnose.load_model", lambda *arguments: pytest.fail("too late"))
    wanted = ["--tokenizer", tmp_path / "a", "--data", prepared_folder]
    assert "is a folder; name a file in it" in failure(capsys, *wanted, "--output", tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setitem(sys.modules, "matplotlib", sys)  # whether it is installed doesn't matter here
    assert "is a file; name a folder" in failure(capsys, *wanted, "--plots", tmp_path / "file")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install etegrec_hf[plots]" in failure(capsys, *wanted, "--plots", tmp_path / "plots")
    assert not (tmp_path / "plots").exists()


@pytest.mark.usefixtures("undrawn_pictures")
def test_training_ends_with_the_same_figures(prepared_folder, tmp_path):
    arguments = ["--data", prepared_folder, "--output-dir", tmp_path / "run", "--hidden-sizes", 16, "--latent-size", 8,
                 "--num-levels", 2, "--codebook-size", 8, "--num-train-epochs", 1, "--use-cpu", "true",
                 "--disable-tqdm", "true"]  # fmt: skip
    assert main(["train-tokenizer", *map(str, arguments)]) == 0
    assert diagnose("--tokenizer", tmp_path / "run", "--data", prepared_folder, "--output", tmp_path / "d.json") == 0
    figures = json.loads((tmp_path / "d.json").read_text())["run"]
    told = json.loads((tmp_path / "run/diagnostics.json").read_text())
    assert set(figures) == {"tokenizer", "data", *told}
    assert {name: figures[name] for name in told} == pytest.approx(told, rel=1e-5)
