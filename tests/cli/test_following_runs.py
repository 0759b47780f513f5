"""Following a run: TensorBoard, and the report at the end."""

from pathlib import Path

import pytest
from calling import call
from html_reader import Page
from pictures import undrawn

pytest.importorskip("tensorboard", reason="tensorboard is not installed")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

COMMON = ["--use-cpu", "true", "--disable-tqdm", "true", "--report-to", "tensorboard", "--per-device-train-batch-size"]
SIZES = ["--d-model", 16, "--d-ff", 16, "--d-kv", 8, "--num-layers", 1, "--num-decoder-layers", 1, "--num-heads", 2]
OF_LEVELS = {f"{name}_{level}" for name in ("usage", "perplexity") for level in range(2)}


@pytest.fixture(scope="module")
def runs(prepared_folder, tmp_path_factory) -> dict[str, Path]:
    """train-tokenizer, train, finetune and grpo on the tiny data, all with `--report-to tensorboard`."""
    folder = tmp_path_factory.mktemp("followed")
    tokenizer, model, finetuned, rewarded = (folder / name for name in ("tokenizer", "model", "finetuned", "rewarded"))
    data = ["--data", prepared_folder]
    call("train-tokenizer", *data, "--output-dir", tokenizer, "--hidden-sizes", 16, "--latent-size", 8,
         "--num-levels", 2, "--codebook-size", 8, "--num-train-epochs", 2, *COMMON, 32)  # fmt: skip
    with undrawn():  # pictures of a recommender are drawn in test_run_report.py
        call("train", *data, "--tokenizer", tokenizer, "--output-dir", model, "--num-train-epochs", 2,
             "--num-beams", 10, *SIZES, *COMMON, 64)  # fmt: skip
        call("finetune", *data, "--model", model, "--output-dir", finetuned, "--num-train-epochs", 1,
             "--num-beams", 10, *COMMON, 64)  # fmt: skip
    call("grpo", *data, "--model", finetuned, "--output-dir", rewarded, "--num-generations", 4, "--max-steps", 2,
         "--eval-steps", 2, "--save-steps", 2, "--logging-steps", 1, "--num-beams", 10, *COMMON, 32)  # fmt: skip
    return {"train-tokenizer": tokenizer, "train": model, "finetune": finetuned, "grpo": rewarded}


def scalars_of(folder: Path) -> dict[str, list[float]]:
    """The scalars of the event files in a run's folder, by tag."""
    (logs,) = (folder / "runs").iterdir()
    events = EventAccumulator(str(logs)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize(
    ("command", "trained", "evaluated"),
    [
        ("train-tokenizer", {"loss", "grad_norm", "collision_rate"} | OF_LEVELS, False),
        (
            "train",
            {"loss", "loss_vq", "loss_code", "tokenizer_phase", "grad_norm_item_tokenizer", "grad_norm_recommender"}
            | {"changed_codes", "changed_codes_0", "changed_codes_1", "changed_codes_2"}
            | OF_LEVELS,
            True,
        ),
        ("finetune", {"loss", "loss_code", "tokenizer_phase", "grad_norm_recommender"}, True),
        ("grpo", {"loss", "grad_norm", "reward", "skipped_groups"}, True),
    ],
)
def test_tensorboard_gets_what_is_logged(runs, command, trained, evaluated):
    scalars = scalars_of(runs[command])
    assert {f"train/{name}" for name in trained} <= scalars.keys()
    assert ("eval/ndcg@10" in scalars) == evaluated
    if command == "train":
        assert scalars["train/tokenizer_phase"] == [1, 0], "phases are a metric"
        assert len(scalars["train/usage_0"]) == 1, "one refresh"
        assert 0 < scalars["train/usage_0"][0] <= 1 <= scalars["train/perplexity_0"][0] <= 8


@pytest.mark.parametrize("command", ["train-tokenizer", "train", "finetune", "grpo"])
def test_each_run_ends_in_a_report(runs, prepared, command):
    page = Page((runs[command] / "report.html").read_text(encoding="utf-8"))
    assert {"run", "curves-1", "codes", "prefix-tree", "settings"} <= page.sections.keys()
    ranks = command != "train-tokenizer"
    assert ("samples" in page.sections) == ("results" in page.sections) == ranks
    if ranks:
        titles = {row[-1] for table in page.sections["samples"] for row in table[1:]}
        assert titles <= set(prepared.titles)
        systems = [row[0] for row in page.sections["results"][0][1:]]
        assert systems[0] == "this model"
        assert systems[-2:] == ["popularity", "transitions"]
    assert ("Shaded: 0 to 1." in page.words["curves-1"]) == (command == "train")


@pytest.mark.usefixtures("undrawn_pictures")
def test_the_command_says_where_the_report_is(runs, prepared_folder, tmp_path, capsys):
    call("finetune", "--data", prepared_folder, "--model", runs["train"], "--output-dir", tmp_path / "more",
         "--num-train-epochs", 1, "--num-beams", 10, *COMMON, 64)  # fmt: skip
    assert f"report: {tmp_path / 'more' / 'report.html'}" in capsys.readouterr().out
