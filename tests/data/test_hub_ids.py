"""Revisions of what data rooms read from the Hub themselves."""

import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest

from etegrec_hf.data.hub_ids import split_revision
from etegrec_hf.data.sources import SourceOptions
from etegrec_hf.data.sources.tables import read_hub
from etegrec_hf.data.text_embeddings import embed_texts
from etegrec_hf.hub.dataset_folder import training_files


@pytest.mark.parametrize(("name", "revision"), [("user/log@v2", "v2"), ("user/log", None)])
def test_a_log_of_a_revision(name, revision, monkeypatch):
    asked = []

    def load_dataset(repo_id, config, split, revision, features):
        asked.append((repo_id, revision))
        return datasets.Dataset.from_dict({"user_id": ["a"], "item_id": ["x"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read_hub(Path(name), SourceOptions()).interactions.item_ids == ["x"]
    assert asked == [("user/log", revision)]


@pytest.mark.parametrize(("name", "revision"), [("user/texts@v2", "v2"), ("user/texts", None)])
def test_a_text_model_of_a_revision(name, revision, prepared_folder, monkeypatch):
    asked = []

    def model(repo_id, revision):
        asked.append((repo_id, revision))
        raise OSError("no such model")

    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=model))
    with pytest.raises(FileNotFoundError, match=f"'{name}' isn't a sentence-transformers model"):
        embed_texts(prepared_folder, name, "{title}")
    assert asked == [("user/texts", revision)]


def test_a_folder_has_no_revisions(tmp_path, monkeypatch, prepared_folder):
    """`datasets` and sentence-transformers would read the folder, whatever the revision."""
    monkeypatch.chdir(tmp_path)
    Path("logs").mkdir()
    Path("logs/a.csv").write_text("user_id,item_id\nu,a\n")
    Path("of@v1").mkdir()
    assert split_revision("of@v1") == ("of@v1", None)
    message = "'logs@v1' names a revision, but 'logs' is a folder; leave it out, or give an id on the Hub"
    for read in (
        lambda: read_hub(Path("logs@v1"), SourceOptions()),
        lambda: training_files("logs@v1"),
        lambda: embed_texts(prepared_folder, "logs@v1", "{title}"),
    ):
        with pytest.raises(ValueError, match=message):
            read()
