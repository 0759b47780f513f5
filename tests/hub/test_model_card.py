import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from etegrec_hf import RQVAEConfig
from etegrec_hf.hub.model_card import write_model_card
from etegrec_hf.hub.training_record import TrainingRecord
from etegrec_hf.models.model_card import card_text

METRICS = {"recall@1": 0.125, "recall@10": 0.5, "ndcg@10": 0.25, "recall@50": 0.75}


@pytest.fixture
def record() -> TrainingRecord:
    return TrainingRecord(
        data={"source": "My log | <script>.csv", "users": 12, "items": 40, "sparsity": 0.98765},
        stages=[
            {
                "stage": "finetuning",
                "data": "My log",
                "epochs": 3.0,
                "seconds": 17,
                "device": "x86_64 CPU, 2 threads",
                "losses": {"loss_code": 3.14159},
                "validation": {"ndcg@10": 0.26},
                "arguments": {"learning_rate": 0.003},
                "versions": {"torch": "2.13.0"},
            }
        ],
        codes={"usage_0": 0.75, "collision_rate": 0.1},
        evaluations=[
            {
                "split": "test",
                "metrics": METRICS,
                "intervals": {name: [value - 0.01, value + 0.01] for name, value in METRICS.items()},
                "baselines": {"popularity": dict.fromkeys(METRICS, 0.01)},
                "protocol": {"candidates": "all items", "num_beams": 50},
                "rerank_weight": 4.0,
                "transition_weight": 0.35,
            }
        ],
    )


def test_the_hub_reads_every_metric_from_the_metadata(model, record, tmp_path):
    record.data["hub_id"] = "tester/log"
    record.fingerprint = {"items": "1", "test": "2"}
    record.evaluations[0]["protocol"]["data"] = {"items": "1", "train": "3", "test": "2"}
    write_model_card(tmp_path, model.config, record, "tester/mine", license="mit")
    card = ModelCard.load(tmp_path / "README.md")
    data = card.data.to_dict()
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "other"
    assert data["license"] == "mit"
    assert data["datasets"] == ["tester/log"]
    assert {"etegrec", "sequential-recommendation"} <= set(data["tags"])
    results = card.data.eval_results
    assert {result.metric_type: result.metric_value for result in results} == METRICS
    assert {(result.dataset_type, result.dataset_split) for result in results} == {("tester/log", "test")}
    name, again = model_index_to_eval_results(data["model-index"])
    assert name == "mine"
    assert [result.unique_identifier for result in again] == [result.unique_identifier for result in results]


def test_everything_that_is_known_is_told(model, record, tmp_path):
    write_model_card(tmp_path, model.config, record, "runs/mine")
    text = (tmp_path / "README.md").read_text()
    for line in (
        "| this model | 0.1250 | 0.5000 | 0.7500 | 0.2500 |",
        "| its 95% interval | 0.1150 to 0.1350 | 0.4900 to 0.5100 | 0.7400 to 0.7600 | 0.2400 to 0.2600 |",
        "| popularity | 0.0100 | 0.0100 | 0.0100 | 0.0100 |",
        "Protocol: candidates: all items, num beams: 50.",
        "Measured with `recommend(num_beams=50, rerank_weight=4.0, transition_weight=0.35)`. The model's own "
        "search settings, which `recommend` follows without these arguments, are num_beams=20, rerank_weight=0.0, "
        "transition_weight=0.0.",
        "| search settings | the defaults of `recommend` |",
        "| users | 12 |",
        "| usage 0 | 0.75 |",
        "### 1. finetuning",
        "| loss_code | 3.142 |",
        "| validation ndcg@10 | 0.26 |",
        "| `learning_rate` | 0.003 |",
        "| versions | torch 2.13.0 |",
        "10.1145/3726302.3729989",
        "| items | 40 |",
    ):
        assert line in text, line


def test_text_from_data_stays_text(model, record, tmp_path):
    record.data["source"] = 'x\n---\n# a | "b" <script>alert(1)</script> `c`'
    (tmp_path / "item_index.json").write_text('{"a\\"); import os; (\\"\\n": ["<a_0>", "<b_0>", "<c_0>"]}')
    write_model_card(tmp_path, model.config, record, "runs/mine")
    card = ModelCard.load(tmp_path / "README.md")
    assert {result.dataset_name for result in card.data.eval_results} == {record.data["source"]}
    assert "<script>" not in card.text
    (row,) = [line for line in card.text.splitlines() if line.startswith("| source")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    tree = compile(code, "card", "exec")
    assert 'a"); import os; ("\n' in tree.co_consts, "the item id is a string of the example, whatever it holds"


def test_short_lists_and_standing_licenses(model, record, tmp_path):
    record.evaluations[0]["baselines"]["popularity"] = {"recall@1": 0.01}  # of a catalogue with fewer than 50 items
    write_model_card(tmp_path, model.config, record, "runs/mine", license="mit")
    assert "| popularity | 0.0100 | - | - | - |" in (tmp_path / "README.md").read_text()
    write_model_card(tmp_path, model.config, record, "runs/mine")
    assert ModelCard.load(tmp_path / "README.md").data.license == "mit"


@pytest.mark.parametrize("written", ["license: [mit", "- mit", "license: mit\nmodel-index:\n- name: mine"])
def test_a_card_that_is_damaged_is_named(model, record, tmp_path, written):
    (tmp_path / "README.md").write_text(f"---\n{written}\n---\n# Mine\n")
    message = f"the metadata of {re.escape(str(tmp_path))}/README.md is damaged .*; mend the lines between"
    with pytest.raises(ValueError, match=message):
        write_model_card(tmp_path, model.config, record, "runs/mine")


def test_the_example_runs(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "mine" / "README.md").read_text(), re.DOTALL)
    exec(compile(code, "card", "exec"), {})
    assert capsys.readouterr().out.count("'item_id'") == 10


def test_a_model_that_nothing_is_known_of_has_a_card(model):
    text = card_text(model.config, "me/it")
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert "# it\n" in text
    assert "## Results" not in text
    assert "8 codes" not in text
    item_tokenizer = card_text(RQVAEConfig(num_levels=5, hidden_sizes=[7]), "me/rqvae")
    assert "| codes | 5 levels of 256 |" in item_tokenizer
    assert "[7]" in item_tokenizer


def test_damaged_records_are_errors_and_absent_ones_are_empty(record, tmp_path):
    assert TrainingRecord.read(tmp_path) == TrainingRecord()
    record.write(tmp_path)
    assert TrainingRecord.read(tmp_path) == record
    record.add_evaluation({"split": "test", "metrics": {}})
    record.add_evaluation({"split": "validation", "metrics": {}})
    assert [known["split"] for known in record.evaluations] == ["test", "validation"]
    malformed = ('{"stages": [{}]}', '{"stages": null}', '{"data": []}', '{"evaluations": [{"split": "test"}]}')
    for content in ("{", '{"other": 1}', "[]", *malformed):
        (tmp_path / "training_record.json").write_text(content)
        with pytest.raises(ValueError, match="is damaged"):
            TrainingRecord.read(tmp_path)


def test_the_repositorys_card_is_what_the_readme_shows():
    """`MODEL_CARD.md` is the card of `make quickstart`'s model, whose metrics are in the README."""
    root = Path(__file__).parents[2]
    card = ModelCard.load(root / "MODEL_CARD.md")
    metrics = {result.metric_type: result.metric_value for result in card.data.eval_results}
    figures = [metrics[name] for name in ("recall@1", "recall@5", "recall@10", "ndcg@10")]
    row = "| etegrec_hf | " + " | ".join(f"{value:.4f}"[1:] for value in figures) + " |"
    assert row in (root / "README.md").read_text(encoding="utf-8")
    assert card.data.pipeline_tag == "other"
    assert card.data.library_name == "transformers"
    names = [line[3:] for line in card.text.splitlines() if line.startswith("## ")]
    assert names == ["Use it", "What it is", "Results", "Data", "Item codes", "Training", "Limits", "Citation"]
