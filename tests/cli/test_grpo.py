"""`etegrec grpo` and the example, on a tiny trained recommender."""

import runpy
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from calling import call, failure
from tiny_models import make_model, random_codes
from transformers import pipeline

from etegrec_hf import ETEGRecGRPOConfig, ETEGRecTokenizer, TrainingRecord
from etegrec_hf.cli.grpo import GrpoArguments
from etegrec_hf.cli.options import read_options
from etegrec_hf.cli.parsing import parse
from etegrec_hf.data.config_file import check_keys
from etegrec_hf.hub.model_folder import load_recommender, save_model_folder

pytestmark = pytest.mark.usefixtures("undrawn_pictures")
EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = ["--use-cpu", "true", "--disable-tqdm", "true", "--per-device-train-batch-size", 32, "--num-generations", 4,
        "--max-steps", 4, "--eval-steps", 2, "--save-steps", 2, "--logging-steps", 1, "--num-beams", 10,
        "--learning-rate", 1e-3]  # fmt: skip


@pytest.fixture(scope="module")
def model_folder(prepared, tmp_path_factory) -> Path:
    codes = random_codes(prepared.n_items, 3, 8)
    model = make_model(codes, 8, max_history=20)
    model.catalogue.set_semantic_embedding(torch.from_numpy(prepared.embeddings))
    tokenizer = ETEGRecTokenizer.from_item_codes(prepared.item_ids, codes, 8, max_history=20)
    folder = tmp_path_factory.mktemp("grpo") / "model"
    save_model_folder(folder, model, tokenizer, TrainingRecord(prepared.statistics, [{"stage": "finetuning"}]))
    return folder


def test_a_recommender_is_trained_by_rewards(model_folder, prepared_folder, prepared, tmp_path, capsys):
    run = ["grpo", "--model", model_folder, "--data", prepared_folder, "--output-dir", tmp_path / "run"]
    call(*run, *TINY, "--rewards", "hit", "prefix", "--reward-weights", 1, 0.2, "--rollout", "without_replacement",
         "--eval-samples", 50)  # fmt: skip
    printed = capsys.readouterr().out
    assert "before" in printed
    assert "step 4" in printed
    _, tokenizer = load_recommender(str(tmp_path / "run"))
    assert tokenizer.item_titles == prepared.title_of
    stages = TrainingRecord.read(tmp_path / "run").stages
    assert [stage["stage"] for stage in stages] == ["finetuning", "reinforcement learning"]
    assert stages[-1]["arguments"]["rollout"] == "without_replacement"
    recommend = pipeline("sequential-recommendation", model=str(tmp_path / "run"), trust_remote_code=True)
    assert recommend(prepared.item_ids[:3], top_k=2)[0]["title"]
    assert "already holds another run" in failure(capsys, *run, *TINY)
    call(*run, *TINY, "--max-steps", 6, "--resume", "true", "--eval-samples", 50)
    assert TrainingRecord.read(tmp_path / "run").stages[-1]["steps"] == 6


def test_by_default_the_rewards_are_the_seeds(model_folder, prepared_folder, tmp_path, monkeypatch):
    from etegrec_hf.training.grpo.trainer import ETEGRecGRPOTrainer

    kept = []
    monkeypatch.setattr(ETEGRecGRPOTrainer, "train", lambda self, **kwargs: kept.append(self))
    call("grpo", "--model", model_folder, "--data", prepared_folder, "--output-dir", tmp_path / "run", *TINY)
    (trainer,) = kept
    assert trainer.reward_func_names == ["hit", "semantic"]
    assert trainer.reward_weights.tolist() == [1.0, 0.5]


def test_collaborative_rewards_need_their_model(model_folder, prepared_folder, tmp_path, capsys):
    run = ["grpo", "--model", model_folder, "--data", prepared_folder, "--output-dir", tmp_path / "run", *TINY]
    run += ["--rewards", "collaborative", "popularity_penalty"]
    assert "the reward 'collaborative' needs a collaborative model" in failure(capsys, *run)
    call("embed", "--data", shutil.copytree(prepared_folder, tmp_path / "data"), "--collaborative", "--output-dir",
         tmp_path / "collaborative", "--width", 8, "--num-layers", 1, "--num-heads", 2, "--num-train-epochs", 1,
         "--use-cpu", "true", "--disable-tqdm", "true")  # fmt: skip
    call(*run, "--collaborative-model", tmp_path / "collaborative")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--rewards", "joy", "there is no reward 'joy'"),
        ("--num-generations", 1, "`num_generations` is 1"),
        ("--max-completion-length", 7, "`max_completion_length` is 7"),
    ],
)
def test_wrong_calls_name_the_field(model_folder, prepared_folder, tmp_path, capsys, option, value, message):
    run = ["grpo", "--model", model_folder, "--data", prepared_folder, "--output-dir", tmp_path / "run"]
    assert message in failure(capsys, *run, *TINY, option, value)


def test_semantic_rewards_need_embeddings(model_folder, prepared_folder, tmp_path, capsys):
    without = tmp_path / "without"
    model, tokenizer = load_recommender(str(model_folder))
    model.config.has_semantic_embedding, model.catalogue.semantic_embedding = False, None
    save_model_folder(without, model, tokenizer, TrainingRecord())
    run = ["grpo", "--model", without, "--data", prepared_folder, "--output-dir", tmp_path / "run", *TINY]
    assert "the reward 'semantic' needs `semantic_embedding`" in failure(capsys, *run)


def test_the_configuration_has_the_seeds_values(tmp_path):
    path = EXAMPLES / "configs/grpo.yaml"
    values = yaml.safe_load(path.read_text())
    check_keys(values, path, read_options("grpo").names)
    argv = ["--config", str(path), "--model", "m", "--data", "d", "--output-dir", str(tmp_path), "--use-cpu", "true"]
    arguments, training = parse("grpo", argv, GrpoArguments, ETEGRecGRPOConfig)
    plain = ETEGRecGRPOConfig(str(tmp_path), use_cpu=True)
    assert arguments.rewards == GrpoArguments(model="m", data="d").rewards == ["hit", "semantic"]
    assert training.reward_weights == [1.0, 0.5]
    for name, value in {"num_generations": 16, "beta": 0.05, "temperature": 1.0, "top_k": 50, "learning_rate": 1e-5,
                        "epsilon": 0.2, "rollout": "sample"}.items():  # fmt: skip
        assert values[name] == getattr(training, name) == getattr(plain, name) == value, name


@pytest.mark.slow
def test_the_example_runs(model_folder, prepared_folder, tmp_path, capsys):
    example = runpy.run_path(str(EXAMPLES / "train_grpo.py"))
    example["main"](str(model_folder), prepared_folder, str(tmp_path / "run"), "1")
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line and line[0].isdigit()]
    assert rows[0][0] == "0", "the model as it came"
    assert all(0 <= float(value) <= 1 for row in rows for value in row[1:])
    assert example["novelty"](prompts=[(1, 2), (1, 2)], completions=[2, 3]) == [0, 0.1]
    load_recommender(str(tmp_path / "run"))
