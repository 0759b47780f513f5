"""`etegrec evaluate` and `etegrec baselines` tell memorised targets from the others."""

import json

import pyarrow.parquet as pq
import pytest
from calling import call
from tiny_models import make_model, random_codes

from etegrec_hf import ETEGRecTokenizer
from etegrec_hf.evaluation.memorisation import memorised_targets
from etegrec_hf.evaluation.metrics import metrics_of_ranks
from etegrec_hf.hub.model_folder import save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord


@pytest.fixture(scope="module")
def model_folder(prepared, tmp_path_factory):
    """An untrained recommender of the prepared dataset's items."""
    codes = random_codes(prepared.n_items, 3, 8)
    folder = tmp_path_factory.mktemp("recommender") / "model"
    tokenizer = ETEGRecTokenizer.from_item_codes(prepared.item_ids, codes, 8)
    save_model_folder(folder, make_model(codes, 8), tokenizer, TrainingRecord())
    return folder


@pytest.fixture
def evaluated(model_folder, prepared_folder, tmp_path, capsys):
    """What `etegrec evaluate` wrote and printed."""
    call("evaluate", "--model", model_folder, "--data", prepared_folder, "--split", "validation", "--num-beams", 10,
         "--output", tmp_path / "r.json", "--ranks", tmp_path / "r.parquet", "--update-card", "true")  # fmt: skip
    return json.loads((tmp_path / "r.json").read_text()), " ".join(capsys.readouterr().out.split())


def test_results_of_both_parts(evaluated, prepared, model_folder, tmp_path):
    results, printed = evaluated
    memorised = memorised_targets(prepared, prepared.validation)
    ranks = pq.read_table(tmp_path / "r.parquet")["rank"].to_numpy()
    for name, rows in (("memorisation", memorised), ("generalisation", ~memorised)):
        part = results["parts"][name]
        assert part["users"] == rows.sum() > 0
        assert set(part["baselines"]) == {"popularity", "transitions"}
        by_hand = metrics_of_ranks(ranks[rows], (1, 5, 10))
        assert part["metrics"] == pytest.approx({metric: values.mean() for metric, values in by_hand.items()})
        assert f"{name}: {rows.sum()} of {len(rows)} users ({rows.mean():.1%})" in printed
        assert f"{part['baselines']['transitions']['recall@10']:.4f}" in printed
    (recorded,) = TrainingRecord.read(model_folder).evaluations
    assert recorded["parts"] == results["parts"]
    card = (model_folder / "README.md").read_text()
    recall = results["parts"]["generalisation"]["baselines"]["transitions"]["recall@10"]
    assert f" {recall:.4f} " in card.split("\nGeneralisation: ")[1].split("| transitions |")[1].splitlines()[0]


def test_results_without_parts_are_compared(evaluated, tmp_path):
    results, _ = evaluated
    earlier = {name: value for name, value in results.items() if name != "parts"}
    (tmp_path / "earlier.json").write_text(json.dumps(earlier))
    call("compare", "--results", f"a={tmp_path / 'earlier.json'}", f"b={tmp_path / 'r.json'}", "--output",
         tmp_path / "table.json")  # fmt: skip
    systems = json.loads((tmp_path / "table.json").read_text())["systems"]
    assert systems["a"]["mean"] == systems["b"]["mean"]


def test_baselines_of_both_parts(evaluated, prepared_folder, tmp_path, capsys):
    call("baselines", "--data", prepared_folder, "--split", "validation", "--output", tmp_path / "b.json")
    printed = " ".join(capsys.readouterr().out.split())
    parts = json.loads((tmp_path / "b.json").read_text())["parts"]
    for name, part in evaluated[0]["parts"].items():
        assert "metrics" not in parts[name]
        assert parts[name]["users"] == part["users"]
        for system, metrics in part["baselines"].items():
            assert parts[name]["baselines"][system] == metrics
        assert f"{name}: {part['users']} of" in printed


def test_lists_of_three_have_no_metrics_at_ten(model_folder, prepared, prepared_folder, tmp_path, capsys):
    """Of ranks and of the spread, in results, tables, cards and comparisons."""
    for seed in (0, 1):
        call("evaluate", "--model", model_folder, "--data", prepared_folder, "--num-beams", 3, "--update-card", "true",
             "--output", tmp_path / f"r{seed}.json", "--ranks", tmp_path / f"r{seed}.parquet")  # fmt: skip
    results = json.loads((tmp_path / "r0.json").read_text())
    assert set(results["test"]) == set(results["intervals"]) == {"recall@1", "ndcg@1"}
    assert set(results["parts"]["generalisation"]["metrics"]) == {"recall@1", "ndcg@1"}
    assert results["spread"] == {}
    assert "@10" in " ".join(results["baselines"]["popularity"]), "baselines list 50"
    printed = capsys.readouterr().out
    assert "cov@10" not in printed
    section = (model_folder / "README.md").read_text().split("### Test split")[1].split("\n###")[0]
    assert "Recall@1 |" in section
    assert "Recall@10" not in section
    call("compare", "--results", f"a={tmp_path / 'r0.json'}", f"b={tmp_path / 'r1.json'}", "--output",
         tmp_path / "table.json")  # fmt: skip
    table = json.loads((tmp_path / "table.json").read_text())
    assert set(table["systems"]["a"]["mean"]) == set(table["differences"]["systems"]["b"]) == {"recall@1", "ndcg@1"}
    ranks = pq.read_table(tmp_path / "r0.parquet")["rank"].to_numpy()
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{(ranks == 1).mean():.4f}" in printed
    assert "±" not in printed, "one run tells no deviation"
    assert "@10" not in printed
