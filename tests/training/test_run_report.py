"""Reports of runs: their content, and that they load no other files."""

import base64
import re
import shutil
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from grpo_runs import make_trainer as make_grpo_trainer
from html_reader import Page, columns
from tiny_models import make_model, random_codes

from etegrec_hf import (
    ETEGRecTrainer,
    ETEGRecTrainingArguments,
    RQVAEConfig,
    RQVAEModel,
    RQVAETrainer,
    RQVAETrainingArguments,
    SequenceDataset,
    write_run_report,
)
from etegrec_hf.evaluation.baselines import popularity, transitions
from etegrec_hf.evaluation.code_diagnostics import code_diagnostics
from etegrec_hf.evaluation.comparison import paired_bootstrap
from etegrec_hf.evaluation.curves import panels_of
from etegrec_hf.evaluation.evaluate import EvaluateOptions, evaluate
from etegrec_hf.evaluation.metrics import ranking_metrics
from etegrec_hf.hub.html_page import text
from etegrec_hf.hub.report import MOST_ROWS, Report, RunLog, render, write_report
from etegrec_hf.hub.training_record import TrainingRecord
from etegrec_hf.training.recommender.arguments import FinetuningArguments

EVIL = "<script>alert('&amp;')</script><img src=https://example.org/x.png onerror=\"x\">"
SAMPLED = 30  # users that are evaluated on


def evaluated_of(prepared) -> SequenceDataset:
    return SequenceDataset.for_evaluation(prepared.validation, 20, limit=SAMPLED)


def make_trainer(prepared, folder, titles=True, arguments=ETEGRecTrainingArguments, **options) -> ETEGRecTrainer:
    """A trainer of a tiny recommender, one of whose items has an evil title."""
    model = make_model(random_codes(prepared.n_items, 3, 8), 8)
    model.catalogue.set_semantic_embedding(torch.from_numpy(prepared.embeddings))
    settings = {"num_train_epochs": 4, "warm_epochs": 2, "num_beams": 10, "use_cpu": True, "disable_tqdm": True}
    return ETEGRecTrainer(
        model,
        arguments(str(folder), **(settings | {"learning_rate": 1e-2} | options)),
        prepared.item_ids,
        SequenceDataset.for_training(prepared.train, 20),
        eval_dataset=evaluated_of(prepared),
        item_titles={item_id: f"{item_id} {EVIL}" for item_id in prepared.item_ids[::2]} if titles else None,
    )


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def pictures(page: Page) -> list[str]:
    """The pictures' SVG."""
    sources = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    prefix = "data:image/svg+xml;base64,"
    assert all(source.startswith(prefix) for source in sources)
    return [base64.b64decode(source.removeprefix(prefix)).decode() for source in sources]


def with_user_ids(prepared):
    """The dataset with users that are called like markup."""
    users = [f"<i>{user_id}</i>" for user_id in prepared.validation.user_ids]
    return replace(prepared, validation=replace(prepared.validation, user_ids=users))


@pytest.fixture(scope="module")
def run(prepared, tmp_path_factory):
    """A trainer after four epochs, and the page of its report."""
    folder = tmp_path_factory.mktemp("report") / "run"
    trainer = make_trainer(prepared, folder)
    trainer.train()
    path = write_run_report(trainer, with_user_ids(prepared), evaluated_of(prepared))
    assert path == folder / "report.html"
    return trainer, read(path)


def test_the_page_loads_nothing_and_runs_nothing(run):
    trainer, page = run
    source = Path(trainer.args.output_dir, "report.html").read_text(encoding="utf-8")
    assert len(source) < 2_000_000
    assert not {"script", "link", "iframe", "object", "a", "form"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("href", "srcset", "action"), (tag, name)
        if name == "src":
            assert value.startswith("data:")
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in page.attributes
    assert not re.search(r"url\(|@import", source)
    for svg in pictures(page):
        outside = re.findall(r'(?:href|src)="(?!#|data:)[^"]*"', svg)
        assert not outside


def test_titles_and_ids_are_text(run, prepared):
    _, page = run
    cells = [cell for table in page.sections["samples"] for row in table for cell in row]
    titled = {cell for cell in cells if "script" in cell}
    assert titled
    assert titled <= {f"{item_id} {EVIL}" for item_id in prepared.item_ids}
    assert "User <i>" in page.words["samples"]


def test_its_sections_are_those_of_a_recommender(run):
    _, page = run
    assert list(page.sections) == ["run", "results", "curves-1", "codes", "prefix-tree", "samples", "settings"]
    assert dict(page.sections["run"][0])["epochs"] == "4"
    assert dict(page.sections["settings"][0])["num_train_epochs"] == "4"
    assert ["torch", version("torch")] in page.sections["settings"][-1]


def test_the_log_is_all_there(run):
    trainer, page = run
    rows = columns(page.sections["curves-1"][-1])
    entries: dict = {}
    for entry in trainer.state.log_history:
        entries.setdefault(str(entry["step"]), {}).update(entry)
    assert [row["step"] for row in rows] == list(entries)
    for row, entry in zip(rows, entries.values()):
        assert all(cell == text(entry.get(name)) for name, cell in row.items())
    assert {"loss", "loss_code", "loss_vq", "usage_0", "changed_codes_2", "eval_ndcg@10"} <= rows[0].keys()
    assert rows[0]["loss_code"] == "-", "a tokenizer epoch"
    assert not any("nan" in row.values() for row in rows)


def test_metrics_stand_beside_baselines_of_the_same_users(run, prepared):
    trainer, page = run
    systems = {row["system"]: row for row in columns(page.sections["results"][0])}
    evaluations = [entry for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
    best = max(evaluations, key=lambda entry: entry["eval_ndcg@10"])
    users = sorted(evaluated_of(prepared).rows)
    assert len(users) == SAMPLED < len(prepared.validation)
    assert f"{SAMPLED} validation users" in page.words["results"]
    split = prepared.validation
    expected = {
        name: ranking_metrics(rank(prepared, split)[users], split.targets[users])
        for name, rank in (("popularity", popularity), ("transitions", transitions))
    } | {"this model": {name.removeprefix("eval_"): value for name, value in best.items() if "@" in name}}
    assert systems.keys() == expected.keys()
    for system, metrics in expected.items():
        for name in ("recall@1", "recall@10", "ndcg@5", "ndcg@10"):
            head = name.replace("recall", "Recall").replace("ndcg", "NDCG")
            assert float(systems[system][head]) == pytest.approx(metrics[name], abs=1e-4), (system, name)


def report_of(systems: dict[str, float], **fields) -> Report:
    """A report of NDCG@10 by system, this model first."""
    record = TrainingRecord(stages=[{"stage": "finetuning", "arguments": {}, "versions": {}}])
    metrics = {name: {"ndcg@10": value} for name, value in systems.items()}
    report = Report("A run", record, [], torch.tensor([[0, 1], [1, 1]]), 4, systems=metrics, users=7)
    return replace(report, **fields)


def differences(**intervals: tuple[float, float, float]) -> dict:
    return {
        name: {"ndcg@10": {"difference": difference, "low": low, "high": high}}
        for name, (difference, low, high) in intervals.items()
    }


@pytest.mark.parametrize(
    ("ours", "outcome", "sentence"),
    [
        (0.3, "won", "Won against transitions: NDCG@10 is 0.3000, 50% above its 0.2000, for 7 validation users;"),
        (0.1, "lost", "Lost to transitions: NDCG@10 is 0.1000, 50% below its 0.2000, for 7 validation users;"),
        (0.2, "even", "Level with transitions: NDCG@10 is 0.2000, as much as its 0.2000, for 7"),
    ],
)
@pytest.mark.usefixtures("undrawn_pictures")
def test_a_page_begins_with_who_won(ours, outcome, sentence):
    html = render(report_of({"this model": ours, "popularity": 0.15, "transitions": 0.2}))
    page = Page(html)
    words = html.split("</h1>")[1].lstrip()
    assert words.startswith(f'<p class="verdict {outcome}">{sentence}')
    assert "no interval was measured" in words.splitlines()[0]
    assert [row[0] for row in page.marked] == ["this model"]
    assert html.count(f'<tr class="marked {outcome}">') == 1
    assert html.count('<tr class="marked') == 1


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [((0.02, 0.01, 0.03), "won"), ((0.02, -0.01, 0.05), "even"), ((-0.1, -0.2, -0.05), "lost")],
)
@pytest.mark.usefixtures("undrawn_pictures")
def test_an_interval_on_the_test_split_decides(interval, outcome):
    """Against the best baseline that was ranked: an optimum isn't one, and validation doesn't count."""
    ours = 0.2 + interval[0]
    test = {name: {"ndcg@10": value} for name, value in
            (("this model", ours), ("popularity", 0.1), ("transitions", 0.2), ("known optimum", 0.5))}  # fmt: skip
    known = differences(popularity=(0.1, 0.05, 0.2), transitions=interval)
    html = render(report_of({"this model": 0.9, "transitions": 0.1}, test=test, test_differences=known))
    first = html.split("</h1>")[1].lstrip().splitlines()[0]
    assert first.startswith(f'<p class="verdict {outcome}">')
    assert " transitions: NDCG@10 is" in first
    assert f"95% interval of the difference is {interval[1]:+.4f} to {interval[2]:+.4f}" in first
    assert ("which holds 0" in first) == (outcome == "even")
    assert re.findall(r'<tr class="marked (\w+)">', html) == ["won", outcome]  # validation, test
    assert '<td class="best">0.5000</td>' in html


@pytest.mark.usefixtures("undrawn_pictures")
def test_without_baselines_there_is_no_winner():
    assert "verdict" not in render(report_of({})).split("</style>")[1]
    told = render(report_of({"this model": 0.5}, unmeasured="Training sequences were streamed."))
    assert '<p class="verdict even">No verdict. Training sequences were streamed.</p>' in told


@pytest.mark.usefixtures("undrawn_pictures")
def test_an_evaluation_is_shown_for_all_users_and_by_part(run, prepared, tmp_path):
    trainer, _ = run
    evaluation = evaluate(trainer.model, trainer.processing_class, prepared, EvaluateOptions(num_beams=10))
    page = read(write_run_report(trainer, folder=tmp_path, test=evaluation))
    best = max(evaluation.baselines, key=lambda name: evaluation.baselines[name]["ndcg@10"])
    found = paired_bootstrap([evaluation.ranks], [evaluation.baseline_ranks[best]])["ndcg@10"]
    assert f" {best}: NDCG@10 is {evaluation.metrics['ndcg@10']:.4f}, " in page.words[""]
    assert f"is {found['low']:+.4f} to {found['high']:+.4f}" in page.words[""]
    whole, *parts = page.sections["results"]
    assert [row[0] for row in whole] == ["system", "this model", "popularity", "transitions"]
    assert len(parts) == len(evaluation.parts) == 2
    for shown, (name, part) in zip(parts, evaluation.parts.items()):
        place = shown[0].index("Recall@10")
        for row, metrics in zip(shown[1:], (part["metrics"], *part["baselines"].values()), strict=True):
            assert float(row[place]) == pytest.approx(metrics["recall@10"], abs=1e-4), (name, row)
        assert f"Test, {name}: the {part['users']} of {len(prepared.test)} users" in page.words["results"]


def test_codes_and_prefixes_are_counted(run):
    trainer, page = run
    prefixes = trainer.model.catalogue.item_codes[:, :-1]
    figures = code_diagnostics(prefixes, 8)
    usage = columns(page.sections["codes"][0])
    assert [row["level"] for row in usage] == ["0", "1"]
    for level, row in enumerate(usage):
        assert row["codes in use"] == text(figures[f"usage_{level}"])
        assert row["perplexity"] == text(figures[f"perplexity_{level}"])
    for depth, row in enumerate(columns(page.sections["prefix-tree"][0]), start=1):
        items = np.unique(prefixes[:, :depth].numpy(), axis=0, return_counts=True)[1]
        assert int(row["prefixes"]) == len(items)
        assert int(row["1 item"]) == (items == 1).sum()
        assert int(row["2-3 items"]) == ((items == 2) | (items == 3)).sum()


@pytest.mark.usefixtures("undrawn_pictures")
def test_samples_are_what_the_model_recommends(run, prepared, tmp_path):
    """Five users with their histories; one of them gets what is recommended to him in the fourth place."""
    trainer, page = run
    ids, model, split = prepared.item_ids, trainer.model, prepared.validation

    def recommended(row: int) -> list[int]:
        history = split.sequences[split.offsets[row] : split.offsets[row + 1] - 1]
        inputs = model.catalogue.inputs_from_items(torch.from_numpy(history[None, -20:]))
        return model.recommend(**inputs, top_k=10, num_beams=10)[0][0].tolist()

    lucky = split.user_ids.index(re.findall(r"User <i>(.*?)</i>", page.words["samples"])[2])
    sequences = split.sequences.copy()
    sequences[split.offsets[lucky + 1] - 1] = recommended(lucky)[3]
    data = replace(prepared, validation=replace(split, sequences=sequences))
    page = read(write_run_report(trainer, data, evaluated_of(data), folder=tmp_path))
    histories, lists = page.sections["samples"][::2], page.sections["samples"][1::2]
    users = re.findall(r"User (\S*): (at place \d|not among the first 10)", page.words["samples"])
    assert len(users) == len(histories) == len(lists) == 5
    for (user_id, found), history_table, listed in zip(users, histories, lists):
        row = split.user_ids.index(user_id)
        assert row in evaluated_of(data).rows
        *history, target = sequences[split.offsets[row] : split.offsets[row + 1]].tolist()
        items = recommended(row)
        assert [cells["item"] for cells in columns(listed)] == [ids[item - 1] for item in items]
        assert [cells["title"] for cells in columns(listed)] == [
            f"{ids[i - 1]} {EVIL}" if i % 2 else "-" for i in items
        ]
        *shown, last = columns(history_table)
        assert [cells["item"] for cells in shown] == [ids[item - 1] for item in history[-10:]]
        assert [int(cells["history"]) for cells in shown] == list(range(max(1, len(history) - 9), len(history) + 1))
        assert (last["history"], last["item"]) == ("next", ids[target - 1])
        place = items.index(target) + 1 if target in items else None
        assert found == (f"at place {place}" if place else "not among the first 10")
        marked = [cells[0] for cells in listed if any(cells is other for other in page.marked)]
        assert marked == ([f"{place} hit"] if place else [])
        assert place == 4 or row != lucky


def test_phases_are_shaded_where_they_are(run):
    trainer, page = run
    assert trainer.tokenizer_spans() == [(0.0, 1.0), (2.0, 3.0)]
    assert "Shaded: 0 to 1, 2 to 3." in page.words["curves-1"]
    options = {"output_dir": "x", "use_cpu": True}
    every_third = ETEGRecTrainingArguments(**options, num_train_epochs=6, cycle=3)
    assert every_third.tokenizer_spans(6.0) == [(0.0, 1.0), (3.0, 4.0)]
    assert every_third.tokenizer_spans(3.25) == [(0.0, 1.0), (3.0, 3.25)], "an epoch that was not finished"
    assert every_third.tokenizer_spans(0.0) == []
    assert FinetuningArguments(**options).tokenizer_spans(5.0) == []


def test_pictures_are_drawn_of_losses_metrics_and_codes(run):
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    trainer, page = run
    described = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    panels = panels_of(trainer.state.log_history)
    assert sorted(described[:-2]) == sorted(f"{name} over 4 epochs" for name in panels)
    firsts = [words.split("_")[0].split(",")[0] for words in described]
    assert list(dict.fromkeys(firsts))[:2] == ["loss", "eval"]
    assert described[-2:] == ["Items on each code, by level", "Prefixes by their items"]
    for svg in pictures(page):
        assert svg.rstrip().endswith("</svg>")
        assert "@media (prefers-color-scheme: dark)" in svg
        assert not re.search(r"#000000|fill: #ffffff", svg), "black or white that a dark page would hide or glare with"


@pytest.mark.usefixtures("undrawn_pictures")
def test_a_resumed_run_tells_all_of_it(prepared, tmp_path):
    whole = make_trainer(prepared, tmp_path / "whole", save_total_limit=None)
    whole.train()
    first = min((tmp_path / "whole").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.copytree(first, tmp_path / "parts" / first.name)
    resumed = make_trainer(prepared, tmp_path / "parts")
    resumed.train(resume_from_checkpoint=True)
    logs = [
        page.sections["curves-1"][-1]
        for page in (read(write_run_report(trainer, prepared, evaluated_of(prepared))) for trainer in (whole, resumed))
    ]
    assert len(logs[0]) == 1 + 4
    assert logs[0] == logs[1]


@pytest.mark.usefixtures("undrawn_pictures")
def test_what_there_is_not_is_told(prepared, tmp_path):
    """No titles, no evaluation, one epoch."""
    trainer = make_trainer(
        prepared,
        tmp_path,
        titles=False,
        arguments=FinetuningArguments,
        num_train_epochs=1,
        eval_strategy="no",
        load_best_model_at_end=False,
        early_stopping_patience=None,
    )
    trainer.train()
    page = read(write_run_report(trainer, prepared, evaluated_of(prepared)))
    assert page.sections["results"] == []
    assert "weren't evaluated during training (see eval_strategy)" in page.words["results"]
    header, *rows = page.sections["samples"][1]
    assert header == ["place", "item"]
    assert {row[1] for row in rows} <= set(prepared.item_ids)
    assert "Shaded" not in page.words["curves-1"]
    assert len(page.sections["curves-1"][-1]) == 2
    alone = read(write_run_report(trainer))
    assert "samples" not in alone.sections
    assert "results" not in alone.sections
    streamed = replace(prepared, train=prepared.train.take(np.zeros(0, int)))
    trainer.state.log_history.append({"eval_ndcg@10": 0.5, "step": trainer.state.global_step, "epoch": 1.0})
    page = read(write_run_report(trainer, streamed, evaluated_of(prepared)))
    assert page.sections["results"] == [[["system", "NDCG@10"], ["this model", "0.5000"]]]
    assert "baselines are missing" in page.words["results"]


@pytest.mark.usefixtures("undrawn_pictures")
def test_an_item_tokenizer_has_a_report_too(prepared, tmp_path):
    model = RQVAEModel(RQVAEConfig(input_size=12, hidden_sizes=[16], latent_size=8, num_levels=2, codebook_size=8))
    arguments = RQVAETrainingArguments(str(tmp_path), num_train_epochs=3, use_cpu=True, disable_tqdm=True)
    trainer = RQVAETrainer(model, arguments, torch.from_numpy(prepared.embeddings))
    trainer.train()
    page = read(write_run_report(trainer))
    assert list(page.sections) == ["run", "curves-1", "codes", "prefix-tree", "settings"]
    rows = columns(page.sections["curves-1"][-1])
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(float(row["loss"]) > 0 and float(row["perplexity_1"]) >= 1 for row in rows)
    assert columns(page.sections["codes"][0])[1]["perplexity"] == rows[-1]["perplexity_1"]
    silent = RQVAETrainer(model, replace(arguments, logging_strategy="no"), torch.from_numpy(prepared.embeddings))
    silent.train()
    silent.state.log_history.clear()
    assert "logged nothing" in read(write_run_report(silent)).words["curves-1"]


@pytest.mark.usefixtures("undrawn_pictures")
def test_reinforcement_learning_stands_beside_where_it_started(prepared, tmp_path):
    trainer = make_grpo_trainer(prepared, tmp_path, max_steps=2, eval_strategy="steps", eval_steps=2)
    trainer.train()
    evaluated = SequenceDataset.for_evaluation(prepared.validation, 20)
    page = read(write_run_report(trainer, prepared, evaluated))
    systems = [row["system"] for row in columns(page.sections["results"][0])]
    assert systems == ["this model", "before this run", "popularity", "transitions"]
    assert "reward" in columns(page.sections["curves-1"][-1])[-1]
    assert dict(page.sections["run"][0])["rewards"]


@pytest.mark.usefixtures("undrawn_pictures")
def test_a_long_log_is_cut_to_rows_that_can_be_read(run, tmp_path, monkeypatch):
    trainer, _ = run
    logs = [{"loss": 1.0, "epoch": step / 100, "step": step} for step in range(1, 20_001)]
    monkeypatch.setattr(trainer.state, "log_history", logs)
    path = write_run_report(trainer, folder=tmp_path)
    rows = columns(read(path).sections["curves-1"][-1])
    assert MOST_ROWS / 2 < len(rows) <= MOST_ROWS
    assert rows[-1]["step"] == "20000"
    assert path.stat().st_size < 2_000_000


def test_without_matplotlib_tables_remain(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it weren't installed
    record = TrainingRecord(stages=[{"stage": "finetuning", "arguments": {}, "versions": {}}])
    logs = [{"loss": 0.125, "epoch": 1.0, "step": 7}]
    codes = torch.tensor([[0, 1], [1, 1], [1, 1]])
    write_report(tmp_path, Report("A run", record, [RunLog("finetuning", logs, 1.0)], codes, 4))
    assert not any(name.startswith("matplotlib.") for name in sys.modules)
    page = read(tmp_path / "report.html")
    assert "img" not in page.tags
    for section in ("curves-1", "codes", "prefix-tree"):
        assert "plots need matplotlib, which is not installed: pip install etegrec_hf[plots]" in page.words[section]
    assert columns(page.sections["curves-1"][-1]) == [{"epoch": "1", "step": "7", "loss": "0.125"}]
    assert [row["codes in use"] for row in columns(page.sections["codes"][0])] == ["0.5", "0.25"]
    assert page.sections["prefix-tree"][0][1:] == [["1", "2", "1", "1"], ["2", "2", "1", "1"]]


@pytest.mark.slow
def test_one_run_has_one_report(run, prepared):
    """Nothing in it is random, so that two reports differ by what their runs did."""
    trainer, _ = run
    before = Path(trainer.args.output_dir, "report.html").read_bytes()
    assert write_run_report(trainer, with_user_ids(prepared), evaluated_of(prepared)).read_bytes() == before
