"""Evaluation, checkpoints, resuming and the saved folder of GRPO."""

import numpy as np
import pytest
from grpo_runs import WITHOUT_EVALUATION, logged, make_trainer, same, weights_of
from transformers import AutoModel, AutoTokenizer, TrainerCallback, pipeline

from etegrec_hf import (
    SequenceDataset,
    TrainingRecord,
)
from etegrec_hf.evaluation.metrics import ranking_metrics
from etegrec_hf.evaluation.recommend_split import recommend_split
from etegrec_hf.models.search_options import SearchOptions
from etegrec_hf.training.base.checkpoints import last_checkpoint


def test_the_starting_model_is_measured_and_may_be_the_best(prepared, tmp_path):
    def wrong_way(completions, target, **columns):
        return [-float(item == wanted) - 0.1 * (item % 3) for item, wanted in zip(completions, target)]

    run = make_trainer(prepared, tmp_path, wrong_way, learning_rate=0.1, max_steps=6, early_stopping_patience=2)
    before = weights_of(run)
    run.compute_metrics = lambda prediction: {"ndcg@10": 1 - run.state.global_step / 10}
    run.train()
    assert run.state.global_step == 4, "no better twice"
    assert [row["step"] for row in run.validation_rows()] == [0, 2, 4]
    assert same(before, weights_of(run))
    stage = run.record_now().stages[-1]
    assert stage["validation"] == stage["validation_before"] == {"ndcg@10": 1}


def test_evaluation_ranks_and_tells_how_lists_spread(prepared, tmp_path):
    run = make_trainer(prepared, tmp_path, max_steps=2)
    model = run.model.eval()
    ranked = recommend_split(model, prepared.validation, SearchOptions(20, 20))
    expected = ranking_metrics(ranked, prepared.validation.targets)
    frequency = np.bincount(prepared.train.sequences, minlength=prepared.n_items + 1)
    expected["coverage@10"] = len(np.unique(ranked[:, :10])) / prepared.n_items
    expected["popularity@10"] = frequency[ranked[:, :10]].mean()
    run.train()
    row = run.validation_rows()[0]
    assert row.pop("step") == 0
    assert row == pytest.approx(expected)
    assert set(row) == {f"{name}@{k}" for name in ("recall", "ndcg") for k in (1, 5, 10)} | expected.keys()


def test_the_best_checkpoint_is_what_remains(prepared, tmp_path):
    run = make_trainer(prepared, tmp_path, learning_rate=0.01, max_steps=8)
    run.train()
    scores = {row["step"]: row["ndcg@10"] for row in run.validation_rows()}
    assert run.state.best_metric == max(scores.values()) == scores[run.state.best_global_step]
    assert run.evaluate()["eval_ndcg@10"] == pytest.approx(max(scores.values()))


def test_resuming_from_the_start_measures_it_once(prepared, tmp_path):
    options = {"max_steps": 6, "save_steps": 3, "eval_steps": 3, "save_total_limit": None}
    whole = make_trainer(prepared, tmp_path / "whole", **options)
    whole.train()
    again = make_trainer(prepared, tmp_path / "again", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-0"))
    assert again.validation_rows() == whole.validation_rows()
    assert [row["step"] for row in again.validation_rows()] == [0, 3, 6]
    assert same(weights_of(whole), weights_of(again))


@pytest.mark.parametrize(
    ("kind", "evaluated"),
    [
        ("sample", True),
        ("without_replacement", False),
        pytest.param("sample", False, marks=pytest.mark.slow),
        pytest.param("without_replacement", True, marks=pytest.mark.slow),
    ],
)
def test_resuming_equals_no_interruption(prepared, tmp_path, kind, evaluated):
    """The interruption is due in the middle of a round of completions, and comes at its end."""
    options = {"rollout": kind, "num_iterations": 2, "steps_per_generation": 2, "gradient_accumulation_steps": 1}
    options |= {"max_steps": 12, "save_steps": 5, "eval_steps": 5, "save_total_limit": None}
    options |= {} if evaluated else {**WITHOUT_EVALUATION, "save_strategy": "steps"}
    whole = make_trainer(prepared, tmp_path / "whole", **options)
    whole.train()

    class Stop(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step > 0

    parts = make_trainer(prepared, tmp_path / "parts", **options)
    parts.add_callback(Stop())
    parts.train()
    assert parts.state.global_step == 8, "4 batches a round, one a step"
    again = make_trainer(prepared, tmp_path / "parts", **options)
    again.train(resume_from_checkpoint=last_checkpoint(tmp_path / "parts"))
    assert same(weights_of(whole), weights_of(again))
    assert whole.validation_rows() == again.validation_rows()
    for name in ("loss", "reward", "kl", "skipped_groups"):
        assert logged(whole, name) == logged(again, name), name


def test_resuming_in_a_later_epoch_equals_no_interruption(prepared, tmp_path):
    train = SequenceDataset.for_training(prepared.train.take(np.arange(5)), 20)  # 40 samples
    options = {"train": train, "max_steps": 13, "save_steps": 8, "save_total_limit": None}
    options |= {**WITHOUT_EVALUATION, "save_strategy": "steps"}
    whole = make_trainer(prepared, tmp_path / "whole", **options)
    whole.train()
    assert whole.state.epoch > 2, "5 steps an epoch"
    again = make_trainer(prepared, tmp_path / "again", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-8"))
    assert same(weights_of(whole), weights_of(again))


def test_the_same_seed_gives_the_same_numbers(prepared, tmp_path):
    ends = []
    for number in range(2):
        run = make_trainer(prepared, tmp_path / str(number), **WITHOUT_EVALUATION)
        run.train()
        ends.append(weights_of(run))
    assert same(*ends)


def test_a_model_may_be_trained_by_two_trainers(prepared, tmp_path):
    """The reference of a second trainer must not use what the first trainer did to the model."""
    first = make_trainer(prepared, tmp_path / "1", **WITHOUT_EVALUATION)
    first.train()
    second = make_trainer(prepared, tmp_path / "2", model=first.model, **WITHOUT_EVALUATION)
    second.train()
    assert logged(second, "kl")[0] == pytest.approx(0, abs=1e-8)
    assert logged(second, "kl")[-1] > 1e-6, "the reference stands still"


def test_the_folder_loads_anywhere_and_tells_of_its_training(prepared, tmp_path):
    run = make_trainer(prepared, tmp_path)
    run.record = TrainingRecord(prepared.statistics, [{"stage": "finetuning"}])
    run.train()
    run.save_model()
    model, tokenizer = (auto.from_pretrained(tmp_path) for auto in (AutoModel, AutoTokenizer))
    model.catalogue.check_tokenizer(tokenizer)
    assert same(weights_of(run), model.state_dict())
    recommend = pipeline("sequential-recommendation", model=str(tmp_path), trust_remote_code=True)
    assert len(recommend(prepared.item_ids[:2], top_k=3)) == 3
    record = TrainingRecord.read(tmp_path)
    assert [stage["stage"] for stage in record.stages] == ["finetuning", "reinforcement learning"]
    stage = record.stages[-1]
    assert stage["arguments"]["num_generations"] == 4
    assert stage["rewards"] == "1 hit + 1 semantic"
    assert set(stage["validation"]) == set(stage["validation_before"])
    assert stage["versions"]["trl"]
    card = (tmp_path / "README.md").read_text()
    assert "### 2. reinforcement learning" in card
    assert "(before: " in card
    assert "text-generation" not in card
    for folder in (tmp_path, last_checkpoint(tmp_path)):
        assert AutoModel.from_pretrained(folder).config.n_items == prepared.n_items
    assert not list(tmp_path.rglob("*.bin"))
