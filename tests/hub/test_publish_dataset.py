"""Prepared datasets on the Hub, by real clients over HTTP."""

import json
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from two_sides import etegrec, run, several

from etegrec_hf.cli.main import main
from etegrec_hf.data.dataset_card import dataset_card, license_of

READ = """
import json, sys
from datasets import load_dataset
sequences, items = load_dataset("tester/log", "sequences"), load_dataset("tester/log", "items", split="train")
clusters = load_dataset("tester/log", "embedding_clusters", split="train")
print(json.dumps({"rows": {name: split.num_rows for name, split in sequences.items()}, "test": sequences["test"][0],
                  "item": items[3], "clusters": clusters[3]}))
"""


@pytest.fixture
def dataset(prepared_folder, tmp_path) -> Path:
    return Path(shutil.copytree(prepared_folder, tmp_path / "data"))


@pytest.mark.slow
def test_a_pushed_dataset_opens_by_its_id(dataset, prepared, hub, tmp_path):
    environment = hub.environment(tmp_path / "home")
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    pushed = etegrec("push", "--data", str(dataset), "--repo-id", "log", "--license", "cc-by-4.0", **environment)
    assert pushed.returncode == 0, pushed.stderr
    assert {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()} == before
    files = hub.files("datasets/tester/log")
    assert set(files) == {str(path.relative_to(dataset)) for path in before}
    assert b"license: cc-by-4.0" in files["README.md"]
    assert json.loads(files["statistics.json"])["license"] == "cc-by-4.0"
    assert hub.repositories["datasets/tester/log"].messages[1:] == ["Upload prepared dataset"]

    read = run(sys.executable, "-c", READ, **environment)
    assert read.returncode == 0, read.stderr
    found = json.loads(read.stdout.splitlines()[-1])
    assert found["rows"] == {"train": 120, "validation": 120, "test": 120}
    start, end = prepared.test.offsets[:2]
    ids = [prepared.item_ids[index - 1] for index in prepared.test.sequences[start:end]]
    assert found["test"] == {"user_id": prepared.test.user_ids[0], "history": ids[:-1], "target": ids[-1]}
    assert found["item"]["item_id"] == found["clusters"]["item_id"] == prepared.item_ids[3]
    assert found["item"]["embedding"] == found["clusters"]["embedding"] == prepared.embeddings[3].tolist()

    # another push keeps the license, and takes out the embedding that the dataset doesn't have any more
    (dataset / "embeddings/clusters.parquet").unlink()
    repository = hub.repositories["datasets/tester/log"]
    tree = repository.commits[repository.find("main")]
    theirs = {"embeddings/mine.npy": hub.store(b"mine"), "notes.txt": hub.store(b"notes")}
    repository.commit("main", tree | theirs, "notes of somebody else")
    baselines = ("baselines", "--data", "tester/log", "--output", tmp_path / "b.json")
    push = ("push", "--data", dataset, "--repo-id", "log")
    measured, again = several([(baselines, {}), (push, {"HF_TOKEN": "hf_writer"})], **environment)
    assert measured[0] == again[0] == 0, (measured, again)
    rows = {"popularity", "transitions", "k-NN, clusters"}
    assert set(json.loads((tmp_path / "b.json").read_text())["baselines"]) == rows
    files = hub.files("datasets/tester/log")
    assert "embeddings/clusters.parquet" not in files
    assert b"embedding_clusters" not in files["README.md"]
    assert b"license: cc-by-4.0" in files["README.md"]
    assert (files["embeddings/mine.npy"], files["notes.txt"]) == (b"mine", b"notes")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("license: mit", "mit"),
        ("license:\n- mit", "mit"),
        ("license:\n- mit\n- other", ["mit", "other"]),
        ("license: []", "unknown"),
        ("license: [null]", "unknown"),
        ("license:", "unknown"),
        ("tags:\n- a", "unknown"),
        ("license: [mit", "unknown"),
    ],
)
def test_a_card_names_its_license_in_several_ways(written, expected):
    assert license_of(f"---\n{written}\n---\n# Mine\n") == expected


def test_several_licenses_stay(tmp_path):
    card = dataset_card(tmp_path, "me/log", {"license": ["mit", "other"]})
    assert license_of(card) == ["mit", "other"]
    assert "| license | mit, other |" in card


def test_what_is_no_dataset_is_not_pushed(dataset, capsys):
    """This process is offline: a push that went on to the Hub would end in another error."""
    for name, message in (
        ("embeddings/clusters.parquet", "1 item has no embedding in"),
        ("items/items.parquet", "which isn't in `items`; prepare again"),
    ):
        whole = pq.read_table(dataset / name)
        pq.write_table(whole.slice(1), dataset / name)
        assert main(["push", "--data", str(dataset), "--repo-id", "log"]) == 1
        assert message in " ".join(capsys.readouterr().err.split())
        pq.write_table(whole, dataset / name)


def test_what_is_in_a_folder_says_how_it_is_pushed(dataset, tmp_path, monkeypatch, capsys):
    (tmp_path / "model").mkdir()
    monkeypatch.setattr("etegrec_hf.cli.push.publish_dataset", lambda folder, *_: f"dataset {folder}")
    monkeypatch.setattr("etegrec_hf.cli.push.publish", lambda folder, *_, **__: f"model {folder}")
    for folder, kind in ((dataset, "dataset"), (tmp_path / "model", "model")):
        for argv in ([folder], ["--folder", folder], [f"--{kind.removesuffix('set')}", folder]):
            assert main(["push", *map(str, argv), "--repo-id", "it"]) == 0
            assert capsys.readouterr().out == f"{kind} {folder}\n"


def test_what_to_push_must_be_said(dataset, tmp_path, capsys):
    for arguments, message in (
        (("--data", str(tmp_path / "nothing")), "nothing' doesn't exist; check the path"),
        (("--data", str(tmp_path)), "isn't a prepared dataset; make one with"),
        ((), "give one FOLDER to publish, as the first argument or as --model or --data"),
        (
            (str(dataset), "--model", str(dataset)),
            "give one FOLDER to publish, as the first argument or as --model or --data",
        ),
        (("--data", str(dataset), "--dataset-id", "x/y"), "`dataset_id` has no meaning for a dataset"),
    ):
        assert main(["push", *arguments, "--repo-id", "log"]) == 1
        assert message in " ".join(capsys.readouterr().err.split())
