"""`etegrec evaluate`: memorised targets and the others, short lists, and weights that are chosen."""

import json
from dataclasses import fields

import pyarrow.parquet as pq
import pytest
import torch
from calling import call, failure
from tiny_models import make_model, random_codes
from transformers import AutoModel, AutoTokenizer

from etegrec_hf import ETEGRecTokenizer, SearchSettings, strongest_transitions
from etegrec_hf.evaluation.memorisation import memorised_targets
from etegrec_hf.evaluation.metrics import metrics_of_ranks, target_ranks
from etegrec_hf.hub.model_folder import save_model_folder, save_search_settings
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
    """The files and the output of `etegrec evaluate`."""
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
        assert f"{name}: the {rows.sum()} of {len(rows)} users ({rows.mean():.1%})" in printed
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
        assert f"{name}: the {part['users']} of" in printed


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


@pytest.fixture
def voting_folder(prepared, tmp_path):
    """An untrained recommender that keeps what came next in training, whose votes are better than its codes."""
    codes = random_codes(prepared.n_items, 3, 8)
    tokenizer = ETEGRecTokenizer.from_item_codes(prepared.item_ids, codes, 8)
    model = make_model(codes, 8, num_transitions=10)
    model.catalogue.set_transitions(*strongest_transitions(prepared, 10))
    save_model_folder(tmp_path / "voting", model, tokenizer, TrainingRecord())
    return tmp_path / "voting"


def test_three_lines_give_what_was_measured_after_weights_were_chosen(
    voting_folder, prepared, prepared_folder, tmp_path, capsys
):
    before = json.loads((voting_folder / "config.json").read_text())
    results, ranks = tmp_path / "r.json", tmp_path / "r.parquet"
    call("evaluate", "--model", voting_folder, "--data", prepared_folder, "--split", "validation", "--num-beams", 12,
         "--choose-weights", "true", "--output", results, "--ranks", ranks)  # fmt: skip
    after = json.loads((voting_folder / "config.json").read_text())
    settings, after["search_settings"] = after["search_settings"], {}
    assert after == before | {"search_settings": {}}
    assert settings["transition_weight"] > 0
    measured = json.loads(results.read_text())
    assert measured["search_settings"] == settings
    best = max(measured["tried"], key=lambda one: one["ndcg@10"])
    assert measured["validation"]["ndcg@10"] == pytest.approx(best["ndcg@10"])
    assert f"transition_weight={settings['transition_weight']}" in capsys.readouterr().out

    model = AutoModel.from_pretrained(voting_folder, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(voting_folder, trust_remote_code=True)
    split = prepared.validation
    found = [
        model.recommend(**tokenizer([tokenizer.ids_of(split.row(row)[:-1])], return_tensors="pt"))[0][0]
        for row in range(len(split))
    ]
    mine = target_ranks(torch.stack(found).numpy(), split.targets)
    theirs = pq.read_table(ranks)["rank"].to_numpy()
    assert mine.tolist() == (theirs * (theirs <= 10)).tolist()

    written = ", ".join(f"{setting.name}={settings[setting.name]}" for setting in fields(SearchSettings))
    card = (voting_folder / "README.md").read_text()
    assert f"Measured with the model's own search settings ({written})" in card
    call("evaluate", "--model", voting_folder, "--data", prepared_folder, "--split", "validation",
         "--transition-weight", 0, "--update-card", "true")  # fmt: skip
    card = (voting_folder / "README.md").read_text()
    own = f"are transition_weight={settings['transition_weight']}."
    assert "Measured with `recommend(transition_weight=0.0)`. The model's own search settings" in card
    assert own in card


def test_weights_are_not_chosen_on_test_users_nor_saved_where_they_are_refused(voting_folder, capsys):
    before = {path.name: path.read_bytes() for path in voting_folder.iterdir()}
    error = failure(capsys, "evaluate", "--model", voting_folder, "--data", "none", "--choose-weights", "true")
    assert "`split` is 'test', but weights must be chosen on 'validation'" in error
    error = failure(capsys, "evaluate", "--model", "me/it", "--data", "none", "--choose-weights", "true")
    assert "`choose_weights` needs a folder, and 'me/it' isn't one; name a local copy" in error
    with pytest.raises(ValueError, match=r"`transition_weight` is 1\.5"):
        save_search_settings(voting_folder, {"transition_weight": 1.5})
    assert {path.name: path.read_bytes() for path in voting_folder.iterdir()} == before
