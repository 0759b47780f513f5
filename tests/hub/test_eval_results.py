"""Results in the Hub's own format."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import EvalResultEntry, ModelCard, parse_eval_result_entries
from tiny_models import make_model, random_codes

from etegrec_hf import ETEGRecTokenizer, RQVAEConfig
from etegrec_hf.cli.main import main
from etegrec_hf.data.fingerprint import fingerprint
from etegrec_hf.evaluation.protocol import protocol_of
from etegrec_hf.hub import dataset_folder
from etegrec_hf.hub.eval_results import EVAL_RESULTS, is_of_training_data, write_eval_results
from etegrec_hf.hub.model_card import metadata
from etegrec_hf.hub.model_folder import save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord

COMMIT = "0123456789abcdef0123456789abcdef01234567"
EVALUATION = {
    "split": "test",
    "metrics": {"recall@10": 0.5, "ndcg@10": 0.25},
    "protocol": {"candidates": "all items"},
    "date": "2026-01-02T03:04:05+00:00",
}


def results(folder: Path) -> list[EvalResultEntry]:
    """Returns the results as the Hub reads them."""
    return parse_eval_result_entries(yaml.safe_load((folder / EVAL_RESULTS).read_text()))


def test_every_metric_is_a_task_of_the_dataset(tmp_path):
    write_eval_results(tmp_path, TrainingRecord(evaluations=[EVALUATION | {"dataset": f"me/log@{COMMIT}"}]))
    shared = {"dataset_id": "me/log", "dataset_revision": COMMIT, "date": EVALUATION["date"]}
    assert results(tmp_path) == [
        EvalResultEntry(task_id="test_recall_at_10", value=0.5, notes="candidates: all items", **shared),
        EvalResultEntry(task_id="test_ndcg_at_10", value=0.25, notes="candidates: all items", **shared),
    ]


def trained(**evaluated: str) -> TrainingRecord:
    """Returns the record of a model that was trained on me/trained, and evaluated on the data of these hashes."""
    protocol = EVALUATION["protocol"] | ({"data": evaluated} if evaluated else {})
    hashes = {"items": "1", "train": "2", "validation": "3", "test": "4"}
    return TrainingRecord(
        data={"hub_id": "me/trained"}, evaluations=[EVALUATION | {"protocol": protocol}], fingerprint=hashes
    )


@pytest.mark.parametrize(
    ("evaluated", "dataset", "expected"),
    [
        ({"items": "1", "train": "2", "test": "4"}, {}, "me/trained"),
        ({"items": "1", "train": "of a stream", "test": "4"}, {}, "me/trained"),
        ({"items": "1", "train": "2", "test": "of a sample"}, {}, "me/trained"),
        ({"items": "1", "train": "2", "test": "5"}, {"dataset": "me/log@main"}, "me/log"),
    ],
)
def test_the_training_data_s_id_stands_for_an_evaluation_s(evaluated, dataset, expected, tmp_path):
    record = trained(**evaluated)
    record.evaluations[0] |= dataset
    write_eval_results(tmp_path, record)
    assert {(entry.dataset_id, entry.dataset_revision) for entry in results(tmp_path)} == {(expected, None)}


@pytest.mark.parametrize(
    "evaluated", [{}, {"items": "1", "train": "5", "test": "5"}, {"items": "5", "train": "2", "test": "4"}], ids=str
)
def test_the_training_data_s_id_does_not_stand_for_other_data(evaluated, tmp_path):
    write_eval_results(tmp_path, trained(**evaluated))
    assert not (tmp_path / EVAL_RESULTS).exists()
    data = yaml.safe_load(metadata(RQVAEConfig(), trained(**evaluated), "mine"))
    assert "me/trained" not in {result["dataset"]["type"] for result in data["model-index"][0]["results"]}


def test_protocols_and_records_hold_the_same_hashes(prepared):
    record = TrainingRecord(fingerprint=fingerprint(prepared))
    evaluation = EVALUATION | {"protocol": protocol_of(prepared, "test", exclude_seen=False)}
    assert is_of_training_data(record, evaluation)
    other = replace(prepared, test=prepared.test.take(np.arange(3)), train=prepared.train.take(np.arange(3)))
    assert not is_of_training_data(record, EVALUATION | {"protocol": protocol_of(other, "test", exclude_seen=False)})


def test_without_hashes_of_the_training_data_its_id_stands_for_nothing(tmp_path):
    record = trained(items="1", train="2", test="4")
    record.fingerprint = {}
    write_eval_results(tmp_path, record)
    assert not (tmp_path / EVAL_RESULTS).exists()


def test_results_on_other_data_are_no_entries(tmp_path):
    write_eval_results(tmp_path, TrainingRecord(evaluations=[EVALUATION | {"dataset": "me/log"}]))
    write_eval_results(tmp_path, TrainingRecord(evaluations=[EVALUATION]))
    assert not (tmp_path / EVAL_RESULTS).exists()


def test_an_evaluation_on_a_dataset_of_the_hub_is_told(prepared, prepared_folder, tmp_path, monkeypatch):
    codes = random_codes(prepared.n_items, 3, 8)
    tokenizer = ETEGRecTokenizer.from_item_codes(prepared.item_ids, codes, 8)
    save_model_folder(tmp_path / "model", make_model(codes, 8), tokenizer, TrainingRecord())

    def evaluate(data: str) -> None:
        arguments = ["evaluate", str(tmp_path / "model"), "--num-beams", "10", "--update-card", "true"]
        assert main([*arguments, "--data", data]) == 0

    evaluate(prepared_folder)
    assert not (tmp_path / "model" / EVAL_RESULTS).exists()
    monkeypatch.setattr(dataset_folder, "local_dataset", lambda name, splits: prepared_folder)
    evaluate("me/log@v2")
    found = results(tmp_path / "model")
    assert {entry.dataset_id for entry in found} == {"me/log"}
    assert all(entry.date for entry in found)
    card = ModelCard.load(tmp_path / "model/README.md")
    assert {entry.dataset_type for entry in card.data.eval_results} == {"me/log"}
    assert {entry.value for entry in found} == {entry.metric_value for entry in card.data.eval_results}
