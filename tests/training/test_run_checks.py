"""Losses that end a training, and checkpoints that can't be resumed."""

import json
import math
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from recommender_runs import SAVED_OFTEN, Stop, make_trainer, record_of, sides, unchanged
from transformers import TrainerCallback

from etegrec_hf import RQVAEConfig, RQVAEModel, RQVAETrainer, RQVAETrainingArguments
from etegrec_hf.hub.training_record import TrainingRecord
from etegrec_hf.training.base.recording import check_same_run

STEP = 32  # of the first recommender epoch, whose first step is 27


class Break(TrainerCallback):
    """Spoils a weight before a step."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step + 1 == self.step:
            with torch.no_grad():
                model.shared.weight[1] = math.nan


class FillDisk(TrainerCallback):
    """Lets no file grow beyond some bytes from a step on, as a full disk would."""

    def __init__(self, step: int, size: int):
        self.step, self.size = step, size

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))


@pytest.fixture
def unlimited():
    """Lifts the limit of file sizes when a test is over."""
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_loss_that_is_nan_stops_with_its_batch_kept(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path, callbacks=[lambda _: Break(step=STEP)], **SAVED_OFTEN)
    with pytest.raises(FloatingPointError, match=f"the loss is nan at step {STEP}; its batch is saved in") as error:
        trainer.train()
    (kept,) = tmp_path.glob("*.json")
    assert repr(str(kept)) in str(error.value)
    told = json.loads(kept.read_text())
    assert (told["step"], math.isnan(told["loss"])) == (STEP, True)
    history, target = (np.array(told["batch"][name]) for name in ("history", "target"))
    assert history.shape[0] == target.shape[0] == 32
    pairs = {(*row[row > 0].tolist(), goal) for row, goal in zip(history, target)}
    dataset = trainer.train_dataset
    samples = (dataset[index] for index in range(len(dataset)))
    known = {(*sample["history"][sample["history"] > 0].tolist(), sample["target"].item()) for sample in samples}
    assert pairs <= known, "samples of the data"
    assert sorted(folder.name for folder in tmp_path.glob("checkpoint-*")) == ["checkpoint-27", "checkpoint-30"]


def test_the_item_tokenizer_stops_at_an_infinite_loss_too(tmp_path):
    model = RQVAEModel(RQVAEConfig(input_size=4, hidden_sizes=[], latent_size=2, num_levels=1, codebook_size=2))
    arguments = RQVAETrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True, kmeans_init=False)
    with pytest.raises(FloatingPointError, match="the loss is inf at step 1"):
        RQVAETrainer(model, arguments, 1e30 * (1 + torch.arange(12.0).view(3, 4))).train()


@pytest.mark.slow
@pytest.mark.usefixtures("unlimited")
def test_a_full_disk_leaves_the_checkpoint_before(prepared, tmp_path):
    options = SAVED_OFTEN | {"num_train_epochs": 2}
    undisturbed = make_trainer(prepared, tmp_path / "undisturbed", **options)
    undisturbed.train()
    size = next((tmp_path / "undisturbed").glob("checkpoint-*/model.safetensors")).stat().st_size
    folder = tmp_path / "full"
    trainer = make_trainer(prepared, folder, callbacks=[lambda _: FillDisk(step=9, size=size // 2)], **options)
    with pytest.raises(OSError, match=r"the checkpoint of step 9 can't be written .*File too large.*--resume true"):
        trainer.train()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-3", "checkpoint-6"]
    again = make_trainer(prepared, folder, **options)
    again.train(resume_from_checkpoint=True)
    for side, weights in sides(undisturbed.model).items():
        assert unchanged(weights, sides(again.model)[side]), side


def stopped_run(prepared, folder) -> None:
    """Leaves a checkpoint of step 3."""
    trainer = make_trainer(prepared, folder, callbacks=[lambda _: Stop()], **SAVED_OFTEN | {"save_steps": 1})
    trainer.record = record_of(prepared)
    trainer.train()


def test_a_checkpoint_of_another_dataset_is_not_resumed(prepared, tmp_path):
    stopped_run(prepared, tmp_path)
    sequences = prepared.train.sequences.copy()
    sequences[[0, 1]] = sequences[[1, 0]]
    others = {
        "items": replace(prepared, item_ids=["other", *prepared.item_ids[1:]]),
        "embedding": replace(prepared, embeddings=prepared.embeddings + 1),
        "train": replace(prepared, train=replace(prepared.train, sequences=sequences)),
    }
    for name, other in others.items():
        trainer = make_trainer(prepared, tmp_path, **SAVED_OFTEN)
        trainer.record = record_of(other)
        with pytest.raises(ValueError, match=f"another dataset: the fingerprint of its `{name}` is"):
            trainer.train(resume_from_checkpoint=True)
    trainer = make_trainer(prepared, tmp_path, callbacks=[lambda _: Stop()], **SAVED_OFTEN)
    trainer.record = record_of(prepared)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 2),
        ("per_device_train_batch_size", 16),
        ("max_tokens_per_batch", 400),
        ("gradient_accumulation_steps", 2),
        ("dataloader_drop_last", True),
        ("cycle", 3),
        ("warm_epochs", 3),
    ],
)
def test_a_checkpoint_whose_steps_read_other_samples_is_not_resumed(prepared, tmp_path, name, value):
    stopped_run(prepared, tmp_path)
    trainer = make_trainer(prepared, tmp_path, **SAVED_OFTEN | {name: value})
    with pytest.raises(ValueError, match=f"`{name}` is {value}, but .* in the checkpoint .* other samples"):
        trainer.train(resume_from_checkpoint=True)


def test_a_checkpoint_whose_items_came_in_another_order_is_not_resumed(tmp_path):
    saved = TrainingRecord(stages=[{"arguments": {"train_sampling_strategy": "sequential"}}])
    alike = RQVAETrainingArguments(str(tmp_path), train_sampling_strategy="sequential", use_cpu=True)
    check_same_run(saved, "c", TrainingRecord(), alike)
    with pytest.raises(ValueError, match="`train_sampling_strategy` is random, but sequential in the checkpoint 'c'"):
        check_same_run(saved, "c", TrainingRecord(), RQVAETrainingArguments(str(tmp_path), use_cpu=True))
