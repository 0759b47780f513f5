"""What a resumed run takes from its checkpoint, and what from its own arguments."""

import os
import signal

import item_tokenizer_runs
import pytest
import recommender_runs
import torch
from transformers import TrainerCallback

from etegrec_hf import FinetuningArguments
from etegrec_hf.training.base.checkpoints import last_checkpoint

SAVED = {"save_strategy": "steps", "save_steps": 5, "save_total_limit": None}


class Rates(TrainerCallback):
    """Notes the options of each group of weights before each step."""

    def __init__(self):
        self.by_step: dict[int, list[tuple[float, float]]] = {}

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        groups = optimizer.param_groups
        self.by_step[state.global_step] = [(group["lr"], group["weight_decay"]) for group in groups]


class Terminate(TrainerCallback):
    """Sends SIGTERM to this process when it first evaluates after a step."""

    def __init__(self, step: int):
        self.step = step

    def on_prediction_step(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.step = -1
            os.kill(os.getpid(), signal.SIGTERM)


def recommender(prepared, folder, callbacks=(), **options):
    given = [lambda _, callback=callback: callback for callback in callbacks]
    without = {"eval_strategy": "no", "load_best_model_at_end": False, "warmup_steps": 4}
    return recommender_runs.make_trainer(prepared, folder, callbacks=given, **(without | SAVED | options))


def item_tokenizer(prepared, folder, callbacks=(), **options):
    torch.manual_seed(0)
    return item_tokenizer_runs.make_trainer(
        torch.randn(60, 8), folder, callbacks, **({"warmup_steps": 4} | SAVED | options)
    )


@pytest.mark.parametrize(
    ("make", "names"),
    [(recommender, ("learning_rate", "tokenizer_learning_rate")), (item_tokenizer, ("learning_rate",))],
)
def test_a_resumed_run_has_its_own_learning_rates(prepared, tmp_path, make, names):
    """At each step they are those of a run that had them from the start: a loss that is NaN is mended like that."""
    own = dict.fromkeys(names, 3e-4) | {"weight_decay": 0.25}
    make(prepared, tmp_path / "run").train()
    whole, resumed = Rates(), Rates()
    make(prepared, tmp_path / "whole", [whole], **own).train()
    again = make(prepared, tmp_path / "run", [resumed], **own)
    again.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-5"))
    assert resumed.by_step == {step: rates for step, rates in whole.by_step.items() if step >= 5}
    assert len({rates[0] for rates in resumed.by_step.values()}) > 1, "they follow the schedule"
    arguments = again.stage_entry()["arguments"]
    assert all(arguments[name] == value for name, value in own.items())


def test_early_stopping_may_begin_when_a_run_is_resumed(prepared, tmp_path):
    evaluated = {"eval_strategy": "steps", "eval_steps": 5, "load_best_model_at_end": True, "max_steps": 10}
    options = {"arguments": FinetuningArguments, **evaluated}
    recommender(prepared, tmp_path, early_stopping_patience=0, **options).train()
    again = recommender(prepared, tmp_path, early_stopping_patience=1, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert again.state.global_step == 10


@pytest.mark.parametrize("make", [recommender, item_tokenizer])
def test_a_run_that_has_made_its_last_update_makes_no_further_one(prepared, tmp_path, make):
    options = {"max_steps": 5} if make is item_tokenizer else {"max_steps": 5, "arguments": FinetuningArguments}
    options |= {"early_stopping_patience": 0} if make is recommender else {}
    first = make(prepared, tmp_path, **options)
    first.train()
    again = make(prepared, tmp_path, **options)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 5
    assert last_checkpoint(tmp_path).endswith("checkpoint-5")
    weights = first.model.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in again.model.state_dict().items())


def test_sigterm_during_the_last_evaluation_ends_the_process(prepared, tmp_path):
    evaluated = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 1}
    options = {"arguments": FinetuningArguments, **evaluated}
    with pytest.raises(SystemExit) as ending:
        recommender(prepared, tmp_path, [Terminate(step=13)], **options).train()
    assert ending.value.code == 128 + signal.SIGTERM
    again = recommender(prepared, tmp_path, **options)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 13, "the checkpoint is that of the end"


def test_a_trainer_that_trains_again_forgets_how_it_ended(prepared, tmp_path):
    trainer = item_tokenizer(prepared, tmp_path, num_train_epochs=6, max_seconds=1e-6, kmeans_init=False)
    trainer.train()
    assert trainer.updates_left_out > 0
    trainer.args.max_seconds = 1000
    trainer.train(resume_from_checkpoint=True)
    assert trainer.updates_left_out == 0
    assert any("revived_codes" in entry for entry in trainer.state.log_history)


def test_only_folders_of_checkpoints_are_resumed(prepared, tmp_path):
    trainer = item_tokenizer(prepared, tmp_path)
    trainer.train()
    newest = last_checkpoint(tmp_path)
    (tmp_path / "checkpoint-best").mkdir()
    assert last_checkpoint(tmp_path) == newest


def test_weights_of_a_search_that_were_chosen_meanwhile_are_no_obstacle(prepared, tmp_path):
    """As by `evaluate --choose-weights true` on the model that an interrupted finetuning began with."""
    recommender(prepared, tmp_path).train()
    again = recommender(prepared, tmp_path)
    again.model.config.search_settings = {"rerank_weight": 0.5}
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert again.state.global_step == again.state.max_steps
