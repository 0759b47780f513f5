"""Weights that the caller froze don't change, and other weights aren't frozen after training."""

import grpo_runs
import item_tokenizer_runs
import pytest
import recommender_runs
import torch
from transformers import TrainerCallback

from etegrec_hf import ETEGRecTrainingArguments
from etegrec_hf.training.collaborative.arguments import CollaborativeSizes, CollaborativeTrainingArguments
from etegrec_hf.training.collaborative.model import build_collaborative_model
from etegrec_hf.training.collaborative.trainer import CollaborativeTrainer
from etegrec_hf.training.recommender.arguments import FinetuningArguments

UNEVALUATED = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}


class BreakOff(TrainerCallback):
    """Ends training by an error, as a key press would."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def freeze(model, *prefixes: str) -> dict[str, torch.Tensor]:
    """Freezes weights by the starts of their names, and returns copies of all weights."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(not name.startswith(prefixes))
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def moved(model, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}


def trained(model) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_alternation_leaves_frozen_weights_of_both_sides_alone(prepared, tmp_path):
    trainer = recommender_runs.make_trainer(prepared, tmp_path, num_train_epochs=2, warm_epochs=0, **UNEVALUATED)
    before = freeze(trainer.model, "encoder.", "shared.", "item_tokenizer.encoder.")
    allowed = trained(trainer.model)
    trainer.train()
    changed = moved(trainer.model, before)
    assert changed <= allowed
    assert {name.split(".")[0] for name in changed} >= {"decoder", "item_tokenizer"}, "both sides are trained"
    assert trained(trainer.model) == allowed


def test_finetuning_leaves_frozen_weights_alone_and_follows_its_schedule(prepared, tmp_path):
    run = {"num_train_epochs": 1, "lr_scheduler_type": "linear", "early_stopping_patience": None}
    trainer = recommender_runs.make_trainer(prepared, tmp_path, FinetuningArguments, **run, **UNEVALUATED)
    before = freeze(trainer.model, "shared.", "encoder.", "item_tokenizer.")
    first = next(trainer.model.parameters())
    assert not first.requires_grad, "the schedule must not ask the first weight of a group"
    allowed = trained(trainer.model)
    trainer.train()
    assert moved(trainer.model, before) <= allowed
    assert any(name.startswith("decoder.") for name in moved(trainer.model, before))
    assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(0.0)
    assert trained(trainer.model) == allowed


@pytest.mark.parametrize("step", [3, 16])  # of the tokenizer's epoch, and of the recommender's
def test_a_training_that_breaks_off_leaves_nothing_frozen(prepared, tmp_path, step):
    trainer = recommender_runs.make_trainer(
        prepared, tmp_path, num_train_epochs=2, callbacks=[lambda _: BreakOff(step)], **UNEVALUATED
    )
    freeze(trainer.model, "shared.")
    allowed = trained(trainer.model)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trained(trainer.model) == allowed


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (("",), "every weight of the recommender is frozen"),
        (("item_tokenizer.",), "every weight of the item tokenizer is frozen .*`freeze_tokenizer`"),
    ],
)
def test_a_side_without_a_weight_to_train_is_an_error(prepared, tmp_path, frozen, message):
    trainer = recommender_runs.make_trainer(prepared, tmp_path, ETEGRecTrainingArguments, **UNEVALUATED)
    freeze(trainer.model, *frozen)
    with pytest.raises(ValueError, match=message):
        trainer.train()


def test_a_model_without_a_weight_to_train_is_an_error(prepared, tmp_path):
    run = grpo_runs.make_trainer(prepared, tmp_path, **grpo_runs.WITHOUT_EVALUATION)
    freeze(run.model, "")
    with pytest.raises(ValueError, match="every weight of the model is frozen"):
        run.train()


def test_reinforcement_learning_leaves_frozen_weights_alone_and_gives_its_own_back(prepared, tmp_path):
    run = grpo_runs.make_trainer(prepared, tmp_path, **grpo_runs.WITHOUT_EVALUATION | {"max_steps": 2})
    before = freeze(run.model, "encoder.", "shared.")
    allowed = trained(run.model)
    assert any(name.startswith("item_tokenizer.") for name in allowed), "to be trained by another trainer"
    run.train()
    changed = moved(run.model, before)
    assert changed <= {name for name in allowed if name.startswith("decoder.")}
    assert changed
    assert trained(run.model) == allowed
    assert not trained(run.ref_model)


def test_frozen_codebooks_are_neither_started_nor_revived(tmp_path):
    embeddings = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    trainer = item_tokenizer_runs.make_trainer(embeddings, tmp_path, num_train_epochs=2)
    before = freeze(trainer.model, "quantizer.")
    trainer.train()
    changed = moved(trainer.model, before)
    assert "quantizer.codebooks" not in changed
    assert "encoder.0.weight" in changed


def test_a_collaborative_model_leaves_frozen_weights_alone(prepared, tmp_path):
    model = build_collaborative_model(prepared.n_items, CollaborativeSizes(8, 1, 1, 0.0, 6))
    args = {"num_train_epochs": 1, "early_stopping_patience": 0, "use_cpu": True, "disable_tqdm": True} | UNEVALUATED
    trainer = CollaborativeTrainer(model, CollaborativeTrainingArguments(str(tmp_path), **args), prepared)
    before = freeze(model, "transformer.wte.")
    trainer.train()
    changed = moved(model, before)
    assert "transformer.wte.weight" not in changed
    assert "transformer.h.0.mlp.c_fc.weight" in changed
