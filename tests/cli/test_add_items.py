import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from calling import call, failure

from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.hub.model_card import license_in
from etegrec_hf.hub.model_folder import load_recommender, save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord


def write_items(path: Path, ids: list[str], width: int = 12) -> np.ndarray:
    embeddings = np.random.default_rng(0).normal(size=(len(ids), width)).astype(np.float32)
    titles = [f"Title of {item_id}" for item_id in ids]
    pq.write_table(pa.table({"item_id": ids, "title": titles, "embedding": list(embeddings)}), path)
    return embeddings


@pytest.fixture
def trained(model, tokenizer, tmp_path) -> str:
    """A recommender of i1..i40 whose record knows a stage and an evaluation."""
    tokenizer.item_titles = {"i3": "Third"}
    record = TrainingRecord({"source": "a log"}, [{"stage": "finetuning"}])
    record.add_evaluation({"split": "test", "metrics": {"recall@10": 0.5}})
    save_model_folder(tmp_path / "trained", model, tokenizer, record)
    return str(tmp_path / "trained")


def test_a_complete_model_with_items_of_a_file(trained, tmp_path, capsys):
    embeddings = write_items(tmp_path / "new.parquet", ["n1", "n2"])
    card = Path(trained, "README.md")
    card.write_text(card.read_text().replace("---\n", "---\nlicense: cc0-1.0\n", 1))
    call("add-items", "--model", trained, "--items", tmp_path / "new.parquet", "--output-dir", tmp_path / "next",
         "--json")  # fmt: skip
    assert license_in(tmp_path / "next") == "cc0-1.0"
    assert json.loads(capsys.readouterr().out) == {
        "items_before": 40, "items_known": 0, "items_added": 2, "items": 42,
    }  # fmt: skip
    (before, _), (model, tokenizer) = load_recommender(trained), load_recommender(str(tmp_path / "next"))
    assert tokenizer.item_ids == [*(f"i{number}" for number in range(1, 41)), "n1", "n2"]
    assert torch.equal(model.catalogue.item_codes[:40], before.catalogue.item_codes)
    assert model.catalogue.item_codes.unique(dim=0).shape[0] == 42
    assert torch.equal(model.catalogue.item_codes[40:, :-1], model.item_tokenizer.encode(torch.from_numpy(embeddings)))
    assert torch.equal(model.catalogue.semantic_embedding[41:], torch.from_numpy(embeddings))
    assert tokenizer.item_titles == {"i3": "Third", "n1": "Title of n1", "n2": "Title of n2"}
    listed, _ = model.recommend(**tokenizer([["i1", "n2"]], return_tensors="pt"), top_k=42, num_beams=42)
    assert sorted(listed[0].tolist()) == list(range(1, 43)), "new items are recommended"


def test_known_items_of_a_file_are_compared_and_stay(trained, tmp_path, capsys, caplog):
    model, _ = load_recommender(trained)
    ids, own = ["i3", "n1", "i4"], model.catalogue.semantic_embedding[[3, 3, 4]]
    pq.write_table(pa.table({"item_id": ids, "embedding": list(own.numpy())}), tmp_path / "all.parquet")
    call("add-items", "--model", trained, "--items", tmp_path / "all.parquet", "--output-dir", tmp_path / "next",
         "--json")  # fmt: skip
    assert json.loads(capsys.readouterr().out) == {
        "items_before": 40, "items_known": 2, "items_added": 1, "items": 41,
    }  # fmt: skip
    assert "it can't be checked" not in caplog.text
    larger, tokenizer = load_recommender(str(tmp_path / "next"))
    assert tokenizer.item_ids[40:] == ["n1"]
    assert torch.equal(larger.catalogue.semantic_embedding[:41], model.catalogue.semantic_embedding)


def test_the_record_tells_what_was_added(trained, tmp_path):
    write_items(tmp_path / "new.parquet", ["n1", "n2"])
    call("add-items", "--model", trained, "--items", tmp_path / "new.parquet", "--output-dir", tmp_path / "next")
    record = TrainingRecord.read(tmp_path / "next")
    assert [stage["stage"] for stage in record.stages] == ["finetuning", "items added"]
    assert record.stages[-1]["data"] == "2 items of new.parquet"
    assert record.data == {"source": "a log"}
    assert record.evaluations == [], "they ranked another catalogue"
    assert record.codes["prefixes_1"] > 0
    card = (tmp_path / "next/README.md").read_text()
    assert "42 items" in card
    assert "items added" in card


def test_of_a_dataset_the_items_that_are_new(prepared, prepared_folder, trained, tmp_path, capsys):
    arguments = ["add-items", "--model", trained, "--items", prepared_folder]
    call(*arguments, "--output-dir", tmp_path / "next")
    _, tokenizer = load_recommender(str(tmp_path / "next"))
    assert tokenizer.item_ids[40:] == prepared.item_ids
    assert tokenizer.item_titles == {"i3": "Third"} | prepared.title_of
    again = ["add-items", "--model", tmp_path / "next", "--items", prepared_folder, "--output-dir", tmp_path / "more"]
    assert f"the model knows all of the {prepared.n_items} items of {prepared_folder}" in failure(capsys, *again)


def test_a_dataset_of_other_embeddings_is_refused(model, tokenizer, trained, tmp_path, capsys):
    ids = [*tokenizer.item_ids[:20], "n1", "n2"]
    lines = [f"u{user},{ids[(user + step) % 22]}" for user in range(22) for step in range(6)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id", *lines]))
    write_items(tmp_path / "others.parquet", ids)
    call("prepare", tmp_path / "log.csv", "--format", "csv", "--output-dir", tmp_path / "data", "--min-count", 1,
         "--embedding", tmp_path / "others.parquet")  # fmt: skip
    capsys.readouterr()
    message = failure(capsys, "add-items", "--model", trained, "--items", tmp_path / "data", "--output-dir",
                      tmp_path / "next")  # fmt: skip
    assert "the embeddings were made in another way than the model's: of 20 items that both have, the mean" in message
    assert not (tmp_path / "next").exists()


def test_what_cannot_be_added_leaves_nothing(trained, folder, prepared, tmp_path, capsys):
    def refused(items, output_dir=tmp_path / "next") -> str:
        arguments = ["add-items", "--model", trained, "--items", items, "--output-dir", output_dir]
        message = failure(capsys, *arguments)
        assert not (tmp_path / "next").exists()
        return message

    write_items(tmp_path / "known.parquet", ["i7", "i8", "n1"])
    assert "of 2 items that both have, the mean cosine" in refused(tmp_path / "known.parquet")
    write_items(tmp_path / "wide.parquet", ["n1"], width=5)
    assert "have width 5, but the model reads width 12; make them in the same way" in refused(
        tmp_path / "wide.parquet"
    )
    write_items(tmp_path / "new.parquet", ["n1"])
    assert "new.parquet' is a file; name a new folder" in refused(tmp_path / "new.parquet", tmp_path / "new.parquet")
    before = {path: path.read_bytes() for path in Path(folder).iterdir()}
    assert "already holds another run; choose another folder" in refused(tmp_path / "new.parquet", folder)
    assert {path: path.read_bytes() for path in Path(folder).iterdir()} == before
    lines = [f"u{user},n{(user + step) % 9}" for user in range(12) for step in range(6)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id", *lines]))
    call("prepare", tmp_path / "log.csv", "--format", "csv", "--output-dir", tmp_path / "data", "--min-count", 1)
    assert PreparedDataset.load(tmp_path / "data").embeddings is None
    message = refused(tmp_path / "data")
    assert "holds no `embedding`, which new items need; make one with `etegrec embed`" in message
