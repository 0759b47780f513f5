"""Files that `etegrec push --endpoint true` adds, used as the toolkit of Inference Endpoints does."""

import json
import re
import sys
from pathlib import Path

import pytest
from endpoint_requests import main as ask
from transformers import pipeline
from two_sides import etegrec, run

from etegrec_hf import RQVAEConfig, RQVAEModel
from etegrec_hf.hub.publish import publish, write_endpoint

TOOLKIT = Path(__file__).with_name("endpoint_requests.py")
HISTORIES = [["i1", "i2"], ["i3"]]
REQUESTS = [
    {"inputs": HISTORIES[0]},
    {"inputs": HISTORIES, "parameters": {"top_k": 3, "exclude_history": True}},
    {"inputs": {"history": ["i1"], "exclude": ["i5"]}, "parameters": None},
    {"inputs": ["nobody"], "parameters": {"unknown": "skip", "on_empty": "empty"}},
    {"inputs": ["nobody"]},
]
WRONG = [
    ({}, "the request has no `inputs`"),
    ({"inputs": ["i1"], "parameters": [3]}, "`parameters` is [3]"),
    ({"inputs": ["i1"], "parameters": {"num_workers": 4}}, "`parameters` names 'num_workers'; choose among top_k"),
    ({"inputs": ["i1"], "parameters": {"top_k": 0}}, "`top_k` is 0"),
    ({"inputs": ["i1"], "parameters": {"exclude": "i2"}}, "`exclude` is 'i2'"),
    ({"inputs": "i1"}, "'i1' isn't a history"),
    ({"inputs": [["i1"], []]}, "history 1: the history holds no item"),
]


def check(answers: list, model, tokenizer) -> None:
    recommend = pipeline("sequential-recommendation", model=model, tokenizer=tokenizer)
    wanted = [
        recommend(HISTORIES[0]),
        recommend(HISTORIES, top_k=3, exclude_history=True),
        recommend({"history": ["i1"], "exclude": ["i5"]}),
        [],
    ]
    for answer, expected in zip(answers, wanted):
        rows, others = (given if given and isinstance(given[0], list) else [given] for given in (answer, expected))
        for row, other in zip(rows, others, strict=True):
            assert [{**entry, "score": 0} for entry in row] == [{**entry, "score": 0} for entry in other]
            assert all(abs(a["score"] - b["score"]) < 1e-5 for a, b in zip(row, other))
    assert answers[-1]["error"].startswith("item 'nobody' is not in the catalogue")


@pytest.mark.slow
def test_a_pushed_endpoint_answers_without_this_package(model, tokenizer, folder, hub, stranger, tmp_path):
    pushed = etegrec(
        "push", folder, "--repo-id", "tester/mine", "--endpoint", "true", **hub.environment(tmp_path / "home")
    )
    assert pushed.returncode == 0, pushed.stderr
    sent = hub.files("tester/mine")
    lines = sent["requirements.txt"].decode().splitlines()
    assert [re.split("[<>=]", line)[0] for line in lines] == ["torch", "transformers"]
    there = tmp_path / "there"
    there.mkdir()
    for name, content in sent.items():
        (there / name).write_bytes(content)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "away")}
    seen = run(stranger, TOOLKIT, there, json.dumps(REQUESTS), **offline)
    assert seen.returncode == 0, seen.stderr
    seen = json.loads(seen.stdout.splitlines()[-1])
    assert seen["absent"] == ["etegrec_hf", "datasets", "trl", "accelerate"]
    check(seen["answers"], model, tokenizer)


def test_answers_and_errors(model, tokenizer, folder, monkeypatch):
    write_endpoint(Path(folder))
    monkeypatch.setattr(sys, "path", [*sys.path])  # to which the toolkit adds the folder
    answers = ask(folder, json.dumps([*REQUESTS, *(request for request, _ in WRONG)]))["answers"]
    check(answers[: len(REQUESTS)], model, tokenizer)
    for answer, (_, message) in zip(answers[len(REQUESTS) :], WRONG, strict=True):
        assert message in answer["error"]


def test_an_item_tokenizer_has_no_endpoint(tmp_path):
    RQVAEModel(
        RQVAEConfig(input_size=12, hidden_sizes=[8], latent_size=4, num_levels=2, codebook_size=8)
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`endpoint` is True and the folder holds an item tokenizer"):
        publish(tmp_path, "tester/mine", endpoint=True)
