"""Exported folders: their content, the programs that read them, and the errors about broken ones."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported import KINDS, TorchNetwork, exported_model, in_memory
from two_sides import run

import etegrec_hf
from etegrec_hf.cli.main import main
from etegrec_hf.runtime import OnnxRecommender
from etegrec_hf.runtime import export as exporting
from etegrec_hf.runtime.export import export
from etegrec_hf.runtime.folder import Export
from etegrec_hf.runtime.recommender import ExportedRecommender

FILES = ["decoder_step.onnx", "encoder.onnx", "search.npz", "settings.json"]
HISTORIES = [["i1", "i2"], ["i5"], [f"i{number}" for number in range(10, 30)]]
OPTIONS = {"top_k": 8, "exclude": ["i7"], "transition_weight": 0.3, "rerank_weight": 2.0, "exclude_history": True}
READER = Path(__file__).with_name("without_torch.py")


def in_words(rows: list) -> list:
    return [
        [(entry["item_id"], entry["codes"], entry.get("title"), round(entry["score"], 3)) for entry in row]
        for row in rows
    ]


@pytest.fixture(scope="module", params=list(KINDS))
def made(request, tmp_path_factory):
    """A model, its tokenizer and its export to ONNX."""
    model, tokenizer = exported_model(num_decoder_layers=1, **KINDS[request.param])
    folder = tmp_path_factory.mktemp("exports") / "onnx"
    assert export(model, tokenizer, folder) == folder
    return model, tokenizer, folder


@pytest.mark.slow
def test_onnx_runtime_recommends_what_the_model_does(made):
    model, tokenizer, folder = made
    assert sorted(path.name for path in folder.iterdir()) == FILES
    wanted = in_memory(model, tokenizer)
    recommender = OnnxRecommender(folder, threads=1)
    for options in ({}, OPTIONS, {"top_k": 60}, {"top_k": 1, "num_beams": 1}):
        assert in_words(recommender.recommend(HISTORIES, **options)) == in_words(
            wanted.recommend(HISTORIES, **options)
        )
        for history in HISTORIES:  # one user, whose networks have other shapes
            one = recommender.recommend(history, **options)
            assert in_words([one]) == in_words([wanted.recommend(history, **options)])


@pytest.mark.slow
def test_threads_may_call_at_once(made):
    recommender = OnnxRecommender(made[2], threads=1)
    wanted = [recommender.recommend(history) for history in HISTORIES]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(recommender.recommend, HISTORIES * 8))
    assert found == wanted * 8


@pytest.mark.slow
def test_a_process_without_torch_recommends(made):
    model, tokenizer, folder = made
    here = str(Path(etegrec_hf.__file__).parents[1])
    seen = run(sys.executable, READER, folder, json.dumps([HISTORIES, OPTIONS]), PYTHONPATH=here)
    assert seen.returncode == 0, seen.stderr
    assert in_words(json.loads(seen.stdout)) == in_words(in_memory(model, tokenizer).recommend(HISTORIES, **OPTIONS))


@pytest.mark.slow
def test_networks_name_inputs_and_no_lines_of_code(made):
    folder = made[2]
    history, step = (onnx.load(folder / name) for name in ("encoder.onnx", "decoder_step.onnx"))
    assert [value.name for value in history.graph.input] == ["items"]
    assert {"tokens", "back", "level", "cross_bias", "keys_0"} <= {value.name for value in step.graph.input}
    assert {"log_p", "next_keys_0", "next_values_0"} <= {value.name for value in step.graph.output}
    assert not any(node.metadata_props or node.doc_string for node in (*history.graph.node, *step.graph.node))


@pytest.mark.slow
def test_programs_of_torch_recommend_the_same(tmp_path):
    model, tokenizer = exported_model(num_decoder_layers=1)
    for name in ("one", "two"):
        export(model, tokenizer, tmp_path / name, "torch")
    networks = [
        TorchNetwork(
            *(torch.export.load(tmp_path / name / file).module() for file in ("encoder.pt2", "decoder_step.pt2"))
        )
        for name in ("one", "two")
    ]
    wanted = in_words(in_memory(model, tokenizer).recommend(HISTORIES, **OPTIONS))
    for network in networks:
        recommender = ExportedRecommender(Export.read(tmp_path / "one", "torch"), network)
        assert in_words(recommender.recommend(HISTORIES, **OPTIONS)) == wanted
    for name in ("search.npz", "settings.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with pytest.raises(FileNotFoundError, match=r"isn't an export to onnx: it holds no encoder\.onnx"):
        OnnxRecommender(tmp_path / "one")


@pytest.fixture
def empty_export(tmp_path, monkeypatch):
    """The folder of an export without networks, which takes little time to write."""
    monkeypatch.setattr(exporting, "programs", lambda model: {"encoder": None, "decoder_step": None})
    monkeypatch.setattr(exporting, "save_onnx", lambda program, path: path.write_bytes(b"no network"))
    return export(*exported_model(), tmp_path / "mine")


def set_version(folder: Path) -> None:
    path = folder / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 7}))


def forget_an_item(folder: Path) -> None:
    path = folder / "settings.json"
    content = json.loads(path.read_text())
    content["item_ids"].pop()
    path.write_text(json.dumps(content))


def pickle_a_table(folder: Path) -> None:
    np.savez(folder / "search.npz", codes=np.array([{}], dtype=object))


DAMAGES = {
    "no folder": (shutil.rmtree, FileNotFoundError, r"it holds no settings.json; make one with `etegrec export MODEL"),
    "a file is missing": (lambda f: (f / "search.npz").unlink(), FileNotFoundError, "it holds no search.npz"),
    "half of the settings": (
        lambda f: (f / "settings.json").write_text('{"form'), ValueError, "settings.json of .* is damaged; copy"
    ),
    "settings of something else": (
        lambda f: (f / "settings.json").write_text("[]"), ValueError, "settings.json of .* is damaged; copy"
    ),
    "another version": (set_version, ValueError, "has format version 7, but this etegrec_hf reads 2; export"),
    "other items": (forget_an_item, ValueError, "disagree about the number of items"),
    "half of the tables": (
        lambda f: (f / "search.npz").write_bytes((f / "search.npz").read_bytes()[:300]), ValueError, "search.npz of"
    ),
    "a pickled table": (pickle_a_table, ValueError, "search.npz of .* is damaged"),
    "no network": (lambda f: None, ValueError, "encoder.onnx of .* is damaged; copy"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_folders(empty_export, name):
    damage, error, message = DAMAGES[name]
    damage(empty_export)
    with pytest.raises(error, match=message):
        OnnxRecommender(empty_export)


def test_an_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(model):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "programs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(*exported_model(), tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def test_what_is_not_exported(tmp_path, monkeypatch):
    model, tokenizer = exported_model()
    with pytest.raises(ValueError, match="`format` is 'tf'; choose one of onnx, torch"):
        export(model, tokenizer, tmp_path / "x", "tf")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExistsError, match="already holds"):
        export(model, tokenizer, tmp_path / "full")
    with pytest.raises(ValueError, match="tokenizer and model disagree"):
        export(model, exported_model(seed=1)[1], tmp_path / "x")
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r"pip install 'etegrec_hf\[export\]'"):
            export(model, tokenizer, tmp_path / "x")
    handle = model.encoder.block[0].layer[0].SelfAttention.q.register_forward_hook(lambda *given: None)
    with pytest.raises(ValueError, match=r"`encoder.block.0.layer.0.SelfAttention.q` is a Linear .* with a hook"):
        export(model, tokenizer, tmp_path / "x")
    handle.remove()
    model.decoder.block[0].layer[-1].DenseReluDense.wo = torch.nn.Linear(32, 16, bias=False, device="meta")
    with pytest.raises(ValueError, match="without quantisation and offloading"):
        export(model, tokenizer, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_threads_are_checked(tmp_path):
    with pytest.raises(ValueError, match="`threads` is 0"):
        OnnxRecommender(tmp_path, threads=0)


def test_without_onnxruntime(empty_export, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"needs onnxruntime; install it with `pip install onnxruntime`"):
        OnnxRecommender(empty_export)


def test_the_command(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exporting, "programs", lambda model: {"encoder": None, "decoder_step": None})
    monkeypatch.setattr(exporting, "save_onnx", lambda program, path: path.write_bytes(b"no network"))
    assert main(["export", folder, "--output-dir", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out == f"40 items, 0.0 MB: {tmp_path / 'new'}\n"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == FILES
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    assert main(["export", folder, "--output-dir", str(tmp_path / "other")]) == 1
    assert "install it with `pip install 'etegrec_hf[export]'`" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
