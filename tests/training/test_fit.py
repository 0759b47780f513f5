"""`etegrec_hf.fit`: from a log to a recommender in one call."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from transformers import AutoModel, AutoTokenizer

from etegrec_hf import FinetuningArguments, FitOptions, FitResult, SourceOptions, fit
from etegrec_hf.cli.options import check_call, read_options
from etegrec_hf.evaluation import rounds
from etegrec_hf.training.from_log import plan, presets, stages
from etegrec_hf.training.from_log.fit import prepare_log
from etegrec_hf.training.from_log.measure import share_of_repeats
from etegrec_hf.training.from_log.plan import Plan, Stage, plan_for
from etegrec_hf.training.from_log.presets import LogSize, fitted_preset, read_preset
from etegrec_hf.training.from_log.run_state import RunState

TINY = {
    "embed": {"width": 8, "num_layers": 1, "num_heads": 1, "num_train_epochs": 2},
    "train-tokenizer": {"hidden_sizes": [8], "latent_size": 4, "num_train_epochs": 3},
    "train": {
        "num_train_epochs": 2,
        "d_model": 8,
        "d_ff": 8,
        "d_kv": 4,
        "num_heads": 1,
        "num_layers": 1,
        "num_decoder_layers": 1,
    },
    "finetune": {"num_train_epochs": 2},
}


@pytest.fixture
def log(prepared, tmp_path) -> Path:
    """The tiny data as a CSV file of rows in order."""
    path = tmp_path / "log.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "timestamp"])
        for row, user in enumerate(prepared.test.user_ids):
            for moment, item in enumerate(prepared.test.row(row)):
                writer.writerow([user, prepared.item_ids[item - 1], moment])
    return path


@pytest.fixture
def tiny(monkeypatch):
    """Presets of models and trainings that take a second."""

    def fitted(name: str, size: LogSize) -> dict[str, dict]:
        return {command: values | TINY.get(command, {}) for command, values in fitted_preset(name, size).items()}

    monkeypatch.setattr(plan, "fitted_preset", fitted)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny", "undrawn_pictures")
def test_a_log_becomes_a_recommender_and_an_interrupted_run_goes_on(log, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    arguments = (log, tmp_path / "mine", FitOptions(preset="best"))
    told: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(stages, "finetune_recommender", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(*arguments, tell=told.append)
    assert [sentence[:3] for sentence in told if sentence[1:2] == "/"] == ["2/6", "3/6", "4/6", "5/6"]
    weights = tmp_path / "mine" / "alternating" / "model.safetensors"
    before = weights.read_bytes()

    def unexpected(*arguments):
        raise AssertionError("a stage that had ended")

    for name in ("embed_collaborative", "train_item_tokenizer", "train_recommender"):
        monkeypatch.setattr(stages, name, unexpected)
    told.clear()
    result = fit(*arguments, tell=told.append)
    assert told[0] == "going on after prepare, embed, train-tokenizer, train"
    assert weights.read_bytes() == before
    assert fit(*arguments, tell=lambda sentence: None) == result  # it has ended

    assert set(result.baselines) == {"popularity", "transitions", "SASRec"}
    assert f"NDCG@10 is {result.metrics['ndcg@10']:.4f}".replace(" 0.", " .") in result.verdict
    assert Path(result.report).is_file()
    check_model(result)

    moved = (tmp_path / "mine").rename(tmp_path / "moved")
    again = fit(log, moved, FitOptions(preset="best"), tell=lambda sentence: None)
    assert Path(again.report) == moved / "report.html"
    (moved / "metrics.json").unlink()
    assert fit(log, moved, FitOptions(preset="best"), tell=lambda sentence: None).metrics == result.metrics


def check_model(result: FitResult) -> None:
    """The model recommends in three lines, with the settings that were chosen on validation and measured on test."""
    model = AutoModel.from_pretrained(result.model, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(result.model, trust_remote_code=True)
    items, _ = model.recommend(**tokenizer([["item00003", "item00009"]], return_tensors="pt"))
    (listed,) = result.recommend([["item00003", "item00009"]])
    assert [entry["item_id"] for entry in listed] == tokenizer.ids_of(items[0])
    results = json.loads(Path(result.folder, "metrics.json").read_text())
    settings = results["settings"]
    assert model.config.search_settings == settings
    assert {0, 0.5} <= {tried["transition_weight"] for tried in results["tried"]}
    best = max(results["tried"], key=lambda tried: tried["ndcg@10"])
    assert best["transition_weight"] == settings["transition_weight"] == results["transition_weight"]
    assert settings["exclude_history"] == (results["protocol"]["seen_items"] == "left out")
    assert settings["num_beams"] == results["protocol"]["num_beams"] == 50


@pytest.mark.usefixtures("tiny")
def test_a_folder_of_another_run_is_left_alone(log, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "embed_collaborative", interrupted)
    folder = tmp_path / "mine"
    with pytest.raises(KeyboardInterrupt):
        fit(log, folder, FitOptions(seed=1, time_limit="1h"), tell=lambda sentence: None)
    with pytest.raises(KeyboardInterrupt):  # another time limit is the same run
        fit(log, folder, FitOptions(seed=1, time_limit="2h"), tell=lambda sentence: None)
    with pytest.raises(FileExistsError, match=r"holds a run whose `seed` is 1, but here it is 2; name another folder"):
        fit(log, folder, FitOptions(seed=2))
    log.write_text(log.read_text().replace("item00001", "item00002"))  # of the same size
    with pytest.raises(FileExistsError, match=r"holds a run whose `log` is .*, contents .*', but here it is .*"):
        fit(log, folder, FitOptions(seed=1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"already holds another run"):
        fit(log, tmp_path / "other")
    (folder / "fit.json").write_text("{")
    with pytest.raises(ValueError, match=r"fit.json is damaged; remove the folder, or name another"):
        fit(log, folder, FitOptions(seed=1))


@pytest.mark.slow
@pytest.mark.usefixtures("tiny", "undrawn_pictures")
def test_too_little_time_leaves_out_and_says_what(log, tmp_path, monkeypatch):
    monkeypatch.setattr(rounds, "FIRST", 40)
    monkeypatch.setattr(rounds, "CAUTION", 0.0)  # one round, however fast the machine is
    told: list[str] = []
    result = fit(log, tmp_path / "mine", FitOptions(time_limit="3s"), tell=told.append)
    assert "training in turns and finetuning (--preset best has both), for lack of time" in result.left_out
    assert any("epochs of `train-tokenizer`, for lack of time" in sentence for sentence in result.left_out)
    assert all(f"left out: {sentence}" in told for sentence in result.left_out)
    assert any(re.match(r"all of preset best needs a time limit of about \d+ \w+", text) for text in told)
    assert any(text.startswith("even the shortest training may take longer than the time limit") for text in told)
    assert any(text.startswith("the time limit is too short for this machine: the rest takes about") for text in told)
    assert not (tmp_path / "mine" / "alternating").exists()
    assert "80 of 120 validation users on whom settings are chosen, for lack of time" in result.left_out
    assert "80 of 120 test users on whom figures are measured, for lack of time" in result.left_out
    assert "80 of 120 test users on whom figures are measured" in " ".join(result.tries)
    assert json.loads((tmp_path / "mine" / "metrics.json").read_text())["protocol"]["users"] == 40
    check_model(result)
    (tmp_path / "mine" / "metrics.json").unlink()  # measured again, with enough time
    again = fit(log, tmp_path / "mine", tell=told.append)
    assert not [sentence for sentence in again.left_out if "users on whom" in sentence]
    assert set(again.left_out) < set(result.left_out)


@pytest.mark.usefixtures("tiny")
def test_a_call_that_ended_before_it_had_a_plan_binds_nobody(log, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    folder = tmp_path / "mine"
    for sentence in ("120 users", "columns", "preset"):  # within the preparation, and before files are written

        def tell(told: str, last: str = sentence) -> None:
            if told.startswith(last):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(log, folder, FitOptions(min_count=2), tell=tell)
    with pytest.raises(ValueError, match=r"the items have no column of texts 'title'"):
        fit(log, folder, FitOptions(text_model="missing/model"), tell=lambda sentence: None)
    with pytest.raises(ValueError, match=r"the items have no column of texts 'brand'"):
        fit(log, folder, FitOptions(text="{brand}"), tell=lambda sentence: None)
    with pytest.raises(ValueError, match=r"`text` is '\{brand\}', but has no effect with `text_model` 'none'"):
        fit(log, folder, FitOptions(text="{brand}", text_model="none"), tell=lambda sentence: None)
    with pytest.raises(ValueError, match=r"has no column 'who'"):
        fit(log, folder, reading=SourceOptions(user_column="who"), tell=lambda sentence: None)
    monkeypatch.setattr(stages, "embed_collaborative", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(log, folder, FitOptions(min_count=4), tell=lambda sentence: None)
    assert json.loads((folder / "data" / "statistics.json").read_text())["min_count"] == 4
    with pytest.raises(FileExistsError, match=r"`min_count` is 4, but here it is 5"):
        fit(log, folder, FitOptions(min_count=5))


@pytest.mark.usefixtures("tiny")
def test_a_folder_serves_one_call_at_a_time(log, tmp_path):
    def tell(sentence: str) -> None:
        with pytest.raises(FileExistsError, match=r"is in use by another call; wait until that call has ended"):
            fit(log, tmp_path / "mine", tell=tell)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(log, tmp_path / "mine", tell=tell)


def test_the_summary_names_item_columns(log, tmp_path):
    header, *rows = log.read_text().splitlines()
    priced = [f"{row},{int(row.split(',')[1][-2:]) + 0.5}" for row in rows]  # a price that follows from the item
    log.write_text("\n".join([f"{header},price", *priced]) + "\n")
    told: list[str] = []
    (tmp_path / "mine").mkdir()
    prepare_log(RunState(tmp_path / "mine", {}, told.append), log, "auto", FitOptions(), SourceOptions())
    assert "item columns: price" in told


def test_what_a_call_leaves_out_is_kept_once(tmp_path):
    run = RunState(tmp_path, {}, lambda sentence: None)
    for _ in range(2):
        run.leave_out("texts")
    assert RunState(tmp_path, {}, print).known["left_out"] == ["texts"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("num_train_epoch: 3", r"config key 'num_train_epoch' .* did you mean 'num_train_epochs'"),
        ("- 3", r"holds a list; it needs `name: value` lines"),
        ("a: [", r"embed.yaml isn't YAML"),
        (None, r"embed.yaml' isn't a file"),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_a_file_that_was_edited_is_read_with_care(log, tmp_path, monkeypatch, text, error):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "embed_collaborative", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(log, tmp_path / "mine", tell=lambda sentence: None)
    path = tmp_path / "mine" / "embed.yaml"
    path.write_text(text) if text else path.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        fit(log, tmp_path / "mine", tell=lambda sentence: None)


def test_files_of_a_run_are_those_of_the_commands(log, tmp_path, monkeypatch):
    """Each stage's YAML file has names that its command knows, and begins with a call that the command takes."""

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "embed_collaborative", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(log, tmp_path / "it's mine", FitOptions(seed=5), tell=lambda sentence: None)
    for command in ("embed", "train-tokenizer", "train", "finetune", "evaluate"):
        path = tmp_path / "it's mine" / f"{command}.yaml"
        program, named, *argv = shlex.split(path.read_text().splitlines()[0].removeprefix("# "))
        assert (program, named) == ("etegrec", command)
        _, values = check_call(read_options(command), argv)
        assert values == yaml.safe_load(path.read_text())
        assert values.get("seed") == (None if command == "evaluate" else 5)


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_a_preset_has_all_commands(preset):
    assert [*read_preset(preset)] == ["embed", "train-tokenizer", "train", "finetune", "evaluate"]


@pytest.mark.parametrize(
    ("size", "codes", "tokens", "epochs", "dropout"),
    [
        (LogSize(19_412, 11_924, 109_361), (3, 256), 4 * 1024, 6, 0.5),  # Toys
        (LogSize(13_210, 5_312, 38_625), (3, 256), 4 * 512, 10, 0.5),  # MicroLens
        (LogSize(80, 47, 575), (2, 16), 3 * 128, 19, 0.3),
        (LogSize(10**5, 30_000, 10**6), (3, 256), 4 * 512, 2, 0.5),
        (LogSize(10**6, 300_000, 10**7), (3, 256), 4 * 128, 2, 0.5),
    ],
)
def test_presets_follow_the_log(size, codes, tokens, epochs, dropout):
    values = fitted_preset("best", size)
    tokenizer = values["train-tokenizer"]
    assert (tokenizer["num_levels"], tokenizer["codebook_size"]) == codes
    assert values["train"]["max_tokens_per_batch"] == values["finetune"]["max_tokens_per_batch"] == tokens
    assert values["finetune"]["num_train_epochs"] == epochs
    assert values["train"]["dropout_rate"] == dropout
    assert values["train"]["learns_transitions"] == (size.n_targets / size.n_items > 30)
    assert codes[1] ** (codes[0] + 1) >= size.n_items
    assert fitted_preset("paper", size) == read_preset("paper")


def test_the_best_preset_that_the_time_allows_is_taken():
    size = LogSize(20_000, 10_000, 100_000)
    best = plan_for(size, "auto", None, 0)
    assert best.preset == "best"
    assert best.left_out == []
    assert plan_for(size, "auto", best.seconds / 0.9 + 1, 0).preset == "best"
    fast = plan_for(size, "auto", best.seconds / 0.9 - 1, 0)
    assert fast.preset == "fast"
    assert fast.seconds <= best.seconds
    assert [stage.name for stage in fast.stages] == ["embed", "train-tokenizer", "train", "evaluate"]


def test_trainings_are_shortened_alike():
    size = LogSize(20_000, 10_000, 100_000)
    whole = plan_for(size, "best", None, 0)
    *trainings, _ = whole.stages
    fixed = sum(stage.fixed for stage in whole.stages)
    work = sum(stage.work for stage in trainings)
    budget = fixed + work * 2 / 3
    half = plan_for(size, "best", budget / 0.9, 0)
    fixed = sum(stage.fixed for stage in half.stages)  # with fewer users per evaluation
    share = (budget - fixed - half.stages[-1].work) / work

    def epochs(planned: Plan, name: str) -> int:
        return planned.stage(name).values["num_train_epochs"]

    names = ("embed", "train-tokenizer", "train", "finetune")
    assert 0.3 < share < 0.6
    for name in ("embed", "train-tokenizer", "finetune"):
        assert epochs(half, name) == int(share * epochs(whole, name))
    assert epochs(half, "train") == 2
    left_out = epochs(whole, "train-tokenizer") - epochs(half, "train-tokenizer")
    assert f"{left_out} of 150 epochs of `train-tokenizer`" in half.left_out
    least = plan_for(size, "best", 1.0, 0)
    assert [epochs(least, name) for name in names] == [1, 1, 2, 1]


def test_fewer_users_are_searched_for_before_trainings_become_shorter():
    size = LogSize(4_000, 500, 30_000)
    whole = plan_for(size, "fast", None, 0)
    limit = (whole.seconds - 5) / 0.9
    planned = plan_for(size, "fast", limit, 0)
    assert planned.stages[-1].work == pytest.approx(0.25 * 0.9 * limit)
    assert planned.stages[-1].work < whole.stages[-1].work
    assert [stage.work for stage in planned.stages[:-1]] == [stage.work for stage in whole.stages[:-1]]
    assert planned.seconds < 0.9 * limit
    short = plan_for(size, "fast", 20.0, 0)
    assert short.stage("train").values["eval_samples"] == int(0.05 * 0.9 * 20 / sum(plan.per_user(size)))
    assert planned.stage("train").fixed - short.stage("train").fixed > 5
    assert short.stages[-1].work == pytest.approx(0.25 * 0.9 * 20)


def test_time_that_is_left_is_shared_by_the_work_that_is_left(tmp_path, monkeypatch):
    run = RunState(tmp_path, {}, lambda sentence: None)
    works = {"embed": (10, 1), "train-tokenizer": (20, 2), "train": (30, 3)}
    planned = [plan.Stage(name, name, "", {}, work, fixed) for name, (work, fixed) in works.items()]
    of_run = stages.Stages(run, Plan("fast", planned, []), FitOptions())
    assert of_run.seconds_for(planned[0]) is None
    monkeypatch.setattr(RunState, "seconds_left", 40)
    assert of_run.seconds_for(planned[0]) == pytest.approx((0.9 * 40 - 6) * 10 / 60)
    run.end("embed", 1.0)
    of_run.timed(planned[0], 33.0)  # three times as long as expected
    assert of_run.pace == 3
    assert of_run.seconds_for(planned[1]) == pytest.approx((0.9 * 40 - 3 * 5) * 20 / 50)
    of_run.done = 0.5
    of_run.timed(planned[1], 6.0)  # half as long as expected: 10 seconds of work, and 2 besides
    assert of_run.pace == 0.5
    assert of_run.seconds_for(planned[1]) == pytest.approx((0.9 * 40 - 5) * 20 / 50)
    monkeypatch.setattr(RunState, "seconds_left", -3)
    assert of_run.seconds_for(planned[2]) == 1.0


def test_epochs_that_were_left_out_stay_out(tmp_path, monkeypatch):
    """A resumed call trains by the schedule of the first one, and its speed counts what it did itself."""
    run = RunState(tmp_path, {}, lambda sentence: None)
    path = tmp_path / "finetune.yaml"
    path.write_text("# etegrec finetune\nnum_train_epochs: 9\nseed: 3\n")

    def begun() -> tuple[stages.Stages, Stage]:
        values = yaml.safe_load(path.read_text())
        stage = Stage("finetune", "model", "", values, work=10.0 * values["num_train_epochs"], fixed=2.0)
        of_run = stages.Stages(run, Plan("best", [stage], []), FitOptions())
        of_run.pace = 3.0
        return of_run, stage

    monkeypatch.setattr(RunState, "seconds_left", 100.0)
    of_run, stage = begun()
    args = of_run._arguments(FinetuningArguments, stage)
    assert args.num_train_epochs == 2, "(90 - 6) / 270 of 9"
    assert path.read_text().splitlines()[:2] == ["# etegrec finetune", "num_train_epochs: 2"]
    assert run.known["left_out"] == ["7 of 9 epochs of `finetune`, because earlier stages took longer"]
    of_run._note_updates(stage, 0, last=50, planned=50)
    of_run.timed(stage, 66.0)
    assert of_run.pace == pytest.approx(66 / 22)

    monkeypatch.setattr(RunState, "seconds_left", 20.0)
    (tmp_path / "model/checkpoint-30").mkdir(parents=True)
    monkeypatch.setattr(
        stages, "check_run_folder", lambda args, resume: setattr(args, "resume_from_checkpoint", "c-30")
    )
    of_run, stage = begun()
    assert of_run._arguments(FinetuningArguments, stage).num_train_epochs == 2
    of_run._note_updates(stage, 0, last=50, planned=50)
    of_run.timed(stage, 30.0)
    assert of_run.pace == pytest.approx(30 / (20 * 20 / 50 + 2))


def test_the_size_of_a_log_is_in_its_statistics(prepared):
    assert LogSize.of_statistics(prepared.statistics) == LogSize.of(prepared)


def test_repeats_are_counted_per_user(prepared):
    split = prepared.test
    expected = sum(row[-1] in row[:-1] for row in map(split.row, range(len(split)))) / len(split)
    assert share_of_repeats(split) == pytest.approx(expected)


@pytest.mark.parametrize("limit", ["soon", "0m", "-1h", "nan", "inf", "m", ""])
def test_no_time_is_refused(limit):
    with pytest.raises(ValueError, match=r"`time_limit` is .*; give a time above 0 like '90s', '30m' or '2h'"):
        FitOptions(time_limit=limit)


def test_an_unknown_preset_is_refused_before_anything_is_read():
    with pytest.raises(ValueError, match=r"`preset` is 'quick'; choose one of auto, best, fast, paper"):
        FitOptions(preset="quick")
