"""Trainings of one seed, one after the other, see other batches under other dropout."""

import pytest
import torch
from recommender_runs import make_trainer

from etegrec_hf import ETEGRecTrainingArguments
from etegrec_hf.hub.training_record import TrainingRecord
from etegrec_hf.training.base.arguments import seed_after
from etegrec_hf.training.recommender.arguments import FinetuningArguments

BATCHES = [{"per_device_train_batch_size": 16}, {"max_tokens_per_batch": 90}]
TURNS, TURNS_AND_FINETUNING = [
    TrainingRecord(stages=[{"stage": stage} for stage in ("item tokenizer", *stages)])
    for stages in (["alternating training"], ["alternating training", "finetuning"])
]


def numbers(prepared, folder, arguments, record=None, **options) -> tuple[torch.Tensor, list[int]]:
    """What a training draws: numbers as its dropout draws them, and the targets in the order of its batches."""
    trainer = make_trainer(prepared, folder, arguments, record=record, **options)
    drawn = torch.rand(8)
    return drawn, [target for batch in trainer.get_train_dataloader() for target in batch["target"].tolist()]


@pytest.mark.parametrize("options", BATCHES)
def test_a_training_of_the_same_seed_sees_what_it_saw(prepared, tmp_path, options):
    drawn, targets = numbers(prepared, tmp_path, ETEGRecTrainingArguments, **options)
    again, same_targets = numbers(prepared, tmp_path, ETEGRecTrainingArguments, **options)
    assert torch.equal(drawn, again)
    assert targets == same_targets


@pytest.mark.parametrize("options", [*BATCHES, {"data_seed": 5}])
def test_each_training_of_a_recommender_sees_something_else(prepared, tmp_path, options):
    seen = [
        numbers(prepared, tmp_path, ETEGRecTrainingArguments, **options),
        numbers(prepared, tmp_path, FinetuningArguments, TURNS, **options),
        numbers(prepared, tmp_path, FinetuningArguments, TURNS_AND_FINETUNING, **options),
    ]
    assert len({tuple(drawn.tolist()) for drawn, _ in seen}) == 3
    assert len({tuple(targets) for _, targets in seen}) == 3
    assert len({tuple(sorted(targets)) for _, targets in seen}) == 1, "in another order, all the same targets"


def test_finetuning_without_a_record_differs_from_the_training_before(prepared, tmp_path):
    before, _ = numbers(prepared, tmp_path, ETEGRecTrainingArguments)
    after, _ = numbers(prepared, tmp_path, FinetuningArguments)
    recorded, _ = numbers(prepared, tmp_path, FinetuningArguments, TURNS)
    assert not torch.equal(before, after)
    assert torch.equal(after, recorded), "finetuning has one training before it, recorded or not"


def test_finetuning_starts_with_other_dropout_than_training_on_frozen_codes(prepared, tmp_path):
    options = {"freeze_tokenizer": True, "warm_epochs": 0, "psa_weight": 0, "sia_weight": 0}
    losses = []
    for arguments in (ETEGRecTrainingArguments, ETEGRecTrainingArguments, FinetuningArguments):
        trainer = make_trainer(prepared, tmp_path, arguments, sizes={"dropout_rate": 0.5}, **options)
        batch = trainer.train_dataset.__getitems__(list(range(16)))
        losses.append(trainer.compute_loss(trainer.model.train(), batch).item())
    assert losses[0] == losses[1] != losses[2]


def test_the_first_training_has_the_seed_itself():
    assert seed_after(7, 0) == 7
    later = {seed_after(seed, trainings) for seed in range(50) for trainings in range(1, 5)}
    assert len(later) == 200
    assert max(later) < 2**32, "numpy takes no larger seed"
