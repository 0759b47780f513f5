"""Evaluation on several datasets by name, such as of cold and of warm users."""

import grpo_runs
import item_tokenizer_runs
import numpy as np
import pytest
import recommender_runs
import torch
from torch.utils.data import Subset
from transformers.utils import logging

from etegrec_hf import ItemEmbeddingDataset, SequenceDataset, prompt_dataset
from etegrec_hf.hub.training_record import TrainingRecord
from etegrec_hf.training.recommender.arguments import FinetuningArguments

ONCE = {"num_train_epochs": 1, "early_stopping_patience": 0}


@pytest.fixture
def users(prepared) -> dict[str, SequenceDataset]:
    """Validation users with histories that are short, and those whose are long."""
    lengths = np.diff(prepared.validation.offsets)
    short = lengths <= np.median(lengths)
    return {
        name: SequenceDataset.for_evaluation(prepared.validation.take(np.flatnonzero(rows)), 20)
        for name, rows in {"cold": short, "warm": ~short}.items()
    }


def last_metrics(trainer) -> dict[str, float]:
    return {name: value for entry in trainer.state.log_history for name, value in entry.items() if "@" in name}


def test_each_dataset_has_its_metrics_and_one_chooses_the_best(prepared, users, tmp_path, caplog):
    logging.enable_propagation()
    options = {"num_train_epochs": 3, "early_stopping_patience": 3, "metric_for_best_model": "cold_ndcg@10"}
    trainer = recommender_runs.make_trainer(prepared, tmp_path, FinetuningArguments, evaluated=users, **options)
    trainer.train()
    logging.disable_propagation()
    rows = [entry for entry in trainer.state.log_history if "eval_cold_ndcg@10" in entry]
    assert len(rows) == 3
    best = max(rows, key=lambda entry: entry["eval_cold_ndcg@10"])
    assert trainer.state.best_global_step == best["step"]
    assert trainer.state.best_metric == best["eval_cold_ndcg@10"]
    for name, dataset in users.items():
        alone = trainer.evaluate(dataset)
        own = {entry["step"]: entry for entry in trainer.state.log_history if f"eval_{name}_ndcg@10" in entry}
        assert own[best["step"]][f"eval_{name}_ndcg@10"] == alone["eval_ndcg@10"], "by the weights that were kept"
    assert not [record for record in caplog.records if "early stopping is disabled" in record.message]
    trainer.save_model()
    (stage,) = TrainingRecord.read(tmp_path).stages
    assert stage["validation"]["cold_ndcg@10"] == best["eval_cold_ndcg@10"]
    assert "validation warm_ndcg@10" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_early_stopping_counts_the_named_dataset_once_per_evaluation_and_says_so(prepared, users, tmp_path, capsys):
    options = {
        "num_train_epochs": 4,
        "early_stopping_patience": 2,
        "metric_for_best_model": "warm_ndcg@10",
        "disable_tqdm": False,
    }
    trainer = recommender_runs.make_trainer(prepared, tmp_path, FinetuningArguments, evaluated=users, **options)
    trainer.compute_metrics = lambda prediction: {"ndcg@10": 0.5 - trainer.state.epoch / 100}
    trainer.train()
    assert trainer.state.epoch == 3, "the first is the best, and two are worse"
    steps = trainer.state.max_steps
    wanted = (
        f"stopped early at step {steps * 3 // 4} of {steps} (epoch 3): warm_ndcg@10 hasn't improved for 2 evaluations"
    )
    assert f"{wanted}, its best is 0.49" in capsys.readouterr().err.splitlines()


def test_the_usual_metric_is_no_hindrance_where_no_checkpoint_is_chosen(prepared, users, tmp_path):
    options = ONCE | {"load_best_model_at_end": False, "save_strategy": "no"}
    trainer = recommender_runs.make_trainer(prepared, tmp_path, FinetuningArguments, evaluated=users, **options)
    trainer.train()
    assert {"eval_cold_ndcg@10", "eval_warm_recall@1"} <= last_metrics(trainer).keys()
    assert trainer.state.best_metric is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"load_best_model_at_end": False, "early_stopping_patience": 2},
        {"load_best_model_at_end": False, "save_strategy": "best"},
        {"metric_for_best_model": "other_recall@5"},
        {"metric_for_best_model": "cold_users_recall@5"},
    ],
)
def test_a_choice_by_no_dataset_is_an_error(prepared, users, tmp_path, options):
    metric = options.get("metric_for_best_model", "ndcg@10")
    own = metric.rpartition("_")[2]
    message = f"`metric_for_best_model` is '{metric}', which .* choose one of cold_{own}, warm_{own}"
    with pytest.raises(ValueError, match=message):
        recommender_runs.make_trainer(prepared, tmp_path, FinetuningArguments, evaluated=users, **ONCE | options)


def test_names_of_datasets_are_strings(prepared, users, tmp_path):
    options = ONCE | {"metric_for_best_model": "1_ndcg@10"}
    with pytest.raises(ValueError, match="`eval_dataset` has the key 1; name each dataset by a string"):
        recommender_runs.make_trainer(prepared, tmp_path, FinetuningArguments, evaluated={1: users["cold"]}, **options)


def test_a_named_metric_without_names_is_an_error(prepared, tmp_path):
    with pytest.raises(ValueError, match=r"is 'cold_ndcg@10', but `eval_dataset` isn't a dict .*; choose 'ndcg@10'"):
        recommender_runs.make_trainer(prepared, tmp_path, metric_for_best_model="cold_ndcg@10")
    with pytest.raises(ValueError, match="is 'cold_ndcg@7'; choose recall@k or ndcg@k"):
        FinetuningArguments(str(tmp_path), use_cpu=True, metric_for_best_model="cold_ndcg@7")


def test_a_part_of_a_dataset_is_evaluated(prepared, users, tmp_path):
    part = Subset(users["cold"], [0, 2])
    trainer = recommender_runs.make_trainer(prepared, tmp_path, FinetuningArguments, evaluated=part, **ONCE)
    model, dataset = trainer.model.eval(), users["cold"]
    ranked = model.recommend(**model.catalogue.inputs_from_items(dataset.__getitems__([0, 2])["history"]), top_k=1,
                             num_beams=10)[0][:, 0]  # fmt: skip
    hits = (ranked == dataset.__getitems__([0, 2])["target"]).float().mean().item()
    assert trainer.evaluate()["eval_recall@1"] == hits


def test_reinforcement_learning_evaluates_several_datasets(prepared, users, tmp_path):
    evaluated = {"cold": users["cold"], "warm": prompt_dataset(users["warm"])}
    run = grpo_runs.make_trainer(
        prepared, tmp_path, evaluated=evaluated, max_steps=2, metric_for_best_model="warm_ndcg@10"
    )
    run.train()
    rows = {
        (entry["step"]): entry["eval_warm_ndcg@10"] for entry in run.state.log_history if "eval_warm_ndcg@10" in entry
    }
    assert set(rows) == {0, 2}
    assert run.state.best_metric == max(rows.values())
    assert {"eval_cold_coverage@10", "eval_warm_coverage@10"} <= last_metrics(run).keys()
    assert run.evaluate(users["warm"])["eval_ndcg@10"] == pytest.approx(max(rows.values())), "given to `evaluate`"
    of_prompts, of_samples = (
        run.evaluate(Subset(make(users["cold"]), [0, 2])) for make in (prompt_dataset, lambda samples: samples)
    )
    assert of_prompts["eval_ndcg@10"] == of_samples["eval_ndcg@10"], "parts of both kinds"


def test_an_item_tokenizer_evaluates_several_datasets(tmp_path):
    embeddings = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    old, new = ItemEmbeddingDataset(embeddings[:20]), ItemEmbeddingDataset(embeddings[20:30])
    options = {"num_train_epochs": 2, "eval_strategy": "epoch", "metric_for_best_model": "new_loss"}
    trainer = item_tokenizer_runs.make_trainer(
        embeddings[30:], tmp_path, evaluated={"old": old, "new": new}, load_best_model_at_end=True, **options
    )
    trainer.train()
    losses = [entry["eval_new_loss"] for entry in trainer.state.log_history if "eval_new_loss" in entry]
    assert trainer.state.best_metric == min(losses)
    options |= {"evaluated": {"old": old, "new": new}, "load_best_model_at_end": True}
    misspelt = item_tokenizer_runs.make_trainer(
        embeddings[30:], tmp_path / "misspelt", **options | {"metric_for_best_model": "new_reconstruction"}
    )
    with pytest.raises(KeyError, match="'eval_new_reconstruction', which is not found in the evaluation metrics"):
        misspelt.train()
    options["metric_for_best_model"] = "loss"
    with pytest.raises(ValueError, match="choose one of old_loss, new_loss"):
        item_tokenizer_runs.make_trainer(embeddings[30:], tmp_path, **options)
