"""`max_seconds`: a training ends in time, with a model that was evaluated and saved."""

import item_tokenizer_runs
import pytest
import recommender_runs
import torch

from etegrec_hf import ETEGRecForConditionalGeneration, FinetuningArguments
from etegrec_hf.training.base import callbacks
from etegrec_hf.training.collaborative.arguments import CollaborativeTrainingArguments
from etegrec_hf.training.item_tokenizer.arguments import RQVAETrainingArguments


@pytest.fixture
def clock(monkeypatch):
    """A clock that is a second later whenever it is read."""
    seconds = iter(range(10**6))
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(seconds))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    "often", [{}, {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 13, "save_steps": 13}]
)
def test_finetuning_ends_evaluated_and_saved(prepared, tmp_path, often):
    trainer = recommender_runs.make_trainer(prepared, tmp_path, arguments=FinetuningArguments, max_seconds=20, **often)
    trainer.train()
    assert trainer.state.global_step == 20  # of 13 per epoch
    assert trainer.updates_left_out == 4 * 13 - 20
    evaluations = [entry for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
    assert [entry["step"] for entry in evaluations] == [13, 20]
    best = max(entry["eval_ndcg@10"] for entry in evaluations)
    assert trainer.state.best_metric == best
    assert trainer.evaluate()["eval_ndcg@10"] == pytest.approx(best)
    saved = ETEGRecForConditionalGeneration.from_pretrained(trainer.state.best_model_checkpoint)
    assert torch.equal(saved.shared.weight, trainer.model.shared.weight)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("seconds", "steps"), [(3, 14), (13, 14), (20, 20), (30, 40), (1000, 52)])
def test_turns_end_in_a_recommender_phase(prepared, tmp_path, seconds, steps):
    """13 steps of the tokenizer, as many of the recommender, and so on, four times in all."""
    trainer = recommender_runs.make_trainer(
        prepared, tmp_path, max_seconds=seconds, eval_strategy="no", save_strategy="no", load_best_model_at_end=False
    )
    trainer.train()
    assert trainer.state.global_step == steps


@pytest.mark.usefixtures("clock")
def test_the_item_tokenizer_ends_and_can_be_resumed(prepared, tmp_path):
    embeddings = torch.from_numpy(prepared.embeddings)[:, :8]
    trainer = item_tokenizer_runs.make_trainer(embeddings, tmp_path, max_seconds=5, save_strategy="steps")
    trainer.train()
    assert trainer.state.global_step == 5
    rest = item_tokenizer_runs.make_trainer(embeddings, tmp_path)
    rest.train(resume_from_checkpoint=True)
    assert rest.state.global_step == 12


@pytest.mark.parametrize(
    "arguments",
    [FinetuningArguments, CollaborativeTrainingArguments, RQVAETrainingArguments],
    ids=lambda cls: cls.__name__,
)
@pytest.mark.parametrize("seconds", [0, -1.5])
def test_no_time_is_refused(tmp_path, arguments, seconds):
    with pytest.raises(ValueError, match=rf"`max_seconds` is {seconds}; give a number above 0, or leave it out"):
        arguments(str(tmp_path), max_seconds=seconds, use_cpu=True)
