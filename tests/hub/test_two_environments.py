"""A model is published by one process and used by another one, which share nothing but a Hub."""

import json
from pathlib import Path

import pytest
import torch
from tiny_models import make_model
from transformers import pipeline
from two_sides import etegrec, run

from etegrec_hf.hub.model_folder import save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord

STRANGER = Path(__file__).with_name("stranger.py")


def expected(model, tokenizer, **options) -> dict:
    """Returns the results of the publisher's own process."""
    batch = tokenizer([["i1", "i2"], ["i3"]], padding=True, return_tensors="pt")
    items = model.recommend(**batch, top_k=5, **options)[0]
    recommend = pipeline("sequential-recommendation", model=model, tokenizer=tokenizer)
    return {
        "absent": ["etegrec_hf", "datasets", "trl"],
        "input_ids": batch["input_ids"].tolist(),
        "decoded": ["i1", "i2"],
        "items": items.tolist(),
        "again": items.tolist(),
        "generated": tokenizer.decode(model.generate(**batch, num_beams=5)),
        "modules": ["transformers_modules"] * 4,
        "new": [["new"], ["new"]],
        "pipeline": recommend([["i1", "i2"], ["i3"]], top_k=5, **options),
    }


def check(result, wanted: dict) -> dict:
    """Compares what a stranger's process printed; scores may differ in the last bits."""
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout.splitlines()[-1])
    pushed, lists = seen.pop("pushed", None), (seen.pop("pipeline"), wanted["pipeline"])
    assert seen == {name: value for name, value in wanted.items() if name != "pipeline"}
    for mine, theirs in zip(*lists, strict=True):
        assert [{**entry, "score": 0} for entry in mine] == [{**entry, "score": 0} for entry in theirs]
        assert all(abs(a["score"] - b["score"]) < 1e-5 for a, b in zip(mine, theirs, strict=True))
    return pushed


@pytest.mark.slow
def test_published_here_and_used_there(model, tokenizer, folder, hub, stranger, tmp_path):
    here, there = hub.environment(tmp_path / "here"), hub.environment(tmp_path / "there")
    pushed = etegrec("push", "--model", folder, "--repo-id", "tester/mine", **here)
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.strip() == f"{hub.endpoint}/tester/mine/commit/{hub.repositories['tester/mine'].find('main')}"
    assert hub.repositories["tester/mine"].messages == ["initial commit", "Upload etegrec model"]

    wanted = expected(model, tokenizer)
    titles = [entry.get("title") for entry in wanted["pipeline"][0]]
    assert "[red]<b>A & B</b>[/red]" in titles, "the test's histories should bring up an item with a title"
    again = check(run(stranger, STRANGER, "tester/mine", tmp_path / "copy", "tester/theirs", **there), wanted)
    assert [entry["item_id"] for entry in again] == ["new"]
    assert hub.requests["GET large"] >= 1, "weights travel as large files"

    # from the cache alone, with no Hub to ask
    offline = there | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    check(run(stranger, STRANGER, "tester/mine", tmp_path / "copy2", "", **offline), wanted)
    assert not [name for name in hub.requests if name.startswith("unknown")], hub.requests


def test_a_local_folder_used_there(model, tokenizer, folder, stranger, tmp_path):
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    check(run(stranger, STRANGER, folder, tmp_path / "copy", "", **offline), expected(model, tokenizer))


@pytest.mark.slow
def test_a_model_with_all_options_used_there(codes, tokenizer, stranger, tmp_path):
    options = {"transition_weight": 0.5, "rerank_weight": 4.0}
    kind = {"reads_items": True, "constrained_softmax": True, "has_repeat_bias": True, "num_transitions": 3}
    model = make_model(codes, 8, encoder_attention="causal", **kind)
    model.catalogue.set_transitions(torch.randint(1, 41, (40, 3)), torch.rand(40, 3))
    wanted = expected(model, tokenizer, **options)
    assert wanted["items"] != expected(model, tokenizer)["items"]
    model.config.search_settings = options  # which a stranger's calls follow, as they give no weights
    save_model_folder(tmp_path / "mine", model, tokenizer, TrainingRecord())
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    check(run(stranger, STRANGER, tmp_path / "mine", tmp_path / "copy", "", **offline), wanted)
