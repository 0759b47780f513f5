"""Progress of training: lines in a file, and shown by only one of several processes."""

import re
import signal
from types import SimpleNamespace

import pytest
import torch
from tiny_models import make_model, random_codes
from transformers import TrainerState, TrainingArguments
from transformers.utils import logging

from etegrec_hf import ETEGRecTrainer, ETEGRecTrainingArguments, RQVAEConfig, RQVAEModel
from etegrec_hf.data.sequences import SequenceDataset, WholeSequenceDataset
from etegrec_hf.training.base.progress import TrainingProgressCallback
from etegrec_hf.training.collaborative.arguments import CollaborativeSizes, CollaborativeTrainingArguments
from etegrec_hf.training.collaborative.model import build_collaborative_model
from etegrec_hf.training.collaborative.trainer import CollaborativeTrainer
from etegrec_hf.training.item_tokenizer.arguments import RQVAETrainingArguments
from etegrec_hf.training.item_tokenizer.trainer import RQVAETrainer


def trainer_of(prepared, output_dir, train_dataset=None, **arguments) -> ETEGRecTrainer:
    codes = random_codes(prepared.n_items, 3, 8)
    causal = isinstance(train_dataset, WholeSequenceDataset)
    model = make_model(codes, 8, encoder_attention="causal" if causal else "bidirectional", max_history=10)
    model.catalogue.set_semantic_embedding(torch.from_numpy(prepared.embeddings))
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 128, "num_beams": 10, "use_cpu": True}
    return ETEGRecTrainer(
        model,
        ETEGRecTrainingArguments(str(output_dir), **(settings | arguments)),
        prepared.item_ids,
        train_dataset or SequenceDataset.for_training(prepared.train, 10),
        eval_dataset=SequenceDataset.for_evaluation(prepared.validation, 10),
    )


def lines_of(capsys) -> list[str]:
    """Returns the lines about the training, without the bars of loading and saving."""
    return [line for line in capsys.readouterr().err.splitlines() if re.match(r"[a-z ]+ \d+/\d+", line)]


def test_lines_tell_phase_step_speed_and_loss(prepared, tmp_path, capsys):
    trainer = trainer_of(prepared, tmp_path, logging_strategy="steps", logging_steps=2)
    steps = trainer.batches_per_epoch()
    trainer.train()
    lines = lines_of(capsys)
    assert re.match(rf"tokenizer phase 2/{2 * steps}, .*loss \d", lines[0])
    trained = [line for line in lines if " loss " in line]
    assert len(trained) == 2 * steps // 2
    assert all(f" {2 * step}/" in line for step, line in enumerate(trained, start=1))
    assert trained[-1].startswith(f"recommender phase {2 * steps // 2 * 2}/{2 * steps}, ")
    assert re.search(r", [\d,]+ targets/s, \d:\d\d:\d\d left, loss [\d.]+, loss_code [\d.]+", trained[-2])
    assert any(re.search(r"recall@10 [\d.]+, ndcg@10 [\d.]+", line) for line in lines)
    assert len(lines) == len({line.split(",")[0] for line in lines}), "a step has one line"
    assert not any(word in line for word in ("runtime", "flos", "eval_") for line in lines)


def test_the_speed_counts_targets(prepared, tmp_path):
    """Not the windows or sequences that hold them; what is resumed counts from there."""
    whole = WholeSequenceDataset(prepared.train, 10, context=5)
    trainer = trainer_of(prepared, tmp_path, whole)
    targets = sum(int((whole[index]["labels"] > 0).sum()) for index in range(len(whole)))
    assert trainer.samples_per_epoch() == whole.n_targets == targets > len(whole)
    dataset = SequenceDataset.for_training(prepared.train, 10)
    assert trainer_of(prepared, tmp_path, dataset).samples_per_epoch() == len(dataset) == targets


def test_no_bar_is_no_line(prepared, tmp_path, capsys):
    trainer_of(prepared, tmp_path, disable_tqdm=True).train()
    assert lines_of(capsys) == []


def test_other_processes_tell_nothing(prepared, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ETEGRecTrainer, "is_world_process_zero", lambda self: False)
    trainer_of(prepared, tmp_path).train()
    assert lines_of(capsys) == []


def test_a_training_that_breaks_off_leaves_the_terminal_as_it_was(prepared, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    before = signal.getsignal(signal.SIGTERM)
    trainer = trainer_of(prepared, tmp_path)
    monkeypatch.setattr(trainer, "compute_loss", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    err = capsys.readouterr().err
    hidden, shown = "\x1b[?25l", "\x1b[?25h"  # the cursor
    assert hidden in err
    assert err.rindex(shown) > err.rindex(hidden)
    assert signal.getsignal(signal.SIGTERM) == before


def test_evaluation_alone_has_its_own_progress(prepared, tmp_path, capsys):
    trainer = trainer_of(prepared, tmp_path, per_device_eval_batch_size=32)
    trainer.evaluate()
    (line,) = lines_of(capsys)
    assert re.match(r"evaluation 4/4, [\d,]+ users/s", line)


def test_a_long_training_prints_some_twelve_of_its_logs_and_evaluations(capsys):
    """The first and the last of them too; what is logged at one step is one line."""
    trainer = SimpleNamespace(
        is_world_process_zero=lambda: True,
        samples_per_epoch=lambda: 8,
        progress_title="training",
        unit="items",
        early_stop="",
    )
    callback = TrainingProgressCallback(trainer)
    arguments = TrainingArguments("run", use_cpu=True, gradient_accumulation_steps=1)
    state = TrainerState(max_steps=1000, global_step=0)
    callback.on_train_begin(arguments, state, None, train_dataloader=range(4))
    for step in range(1, 1001):
        callback.on_step_begin(arguments, state, None)
        state.global_step = step
        callback.on_step_end(arguments, state, None)
        callback.on_log(arguments, state, None, logs={"usage_0": 0.5, "gini_0": 0.25})
        callback.on_log(arguments, state, None, logs={"loss": 0.5})
        if step % 20 == 0:
            callback.on_log(arguments, state, None, logs={"eval_recall@1": 0.5, "eval_recall@10": 0.75})
    callback.on_train_end(arguments, state, None)
    lines = lines_of(capsys)
    losses, usages, evaluations = (
        [int(re.match(r"training (\d+)/", line)[1]) for line in lines if word in line]
        for word in (", loss 0.5", ", usage_0 0.5", ", recall@10 0.75")
    )
    assert losses == usages == [*range(1, 926, 84), 1000]
    assert evaluations == [*range(20, 1000, 100), 1000]
    assert len(lines) == len({*losses, *evaluations}), "the last step's are together"
    assert not any("recall@1 " in line for line in lines)


def test_saving_prints_no_bar(prepared, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    trainer = trainer_of(prepared, tmp_path)
    trainer.save_model()
    assert "Writing" not in capsys.readouterr().err
    assert logging.is_progress_bar_enabled(), "it is as it was"


def test_other_trainings_tell_their_own(prepared, tmp_path, capsys):
    model = RQVAEModel(RQVAEConfig(input_size=12, hidden_sizes=[8], latent_size=4, num_levels=2, codebook_size=8))
    arguments = RQVAETrainingArguments(
        str(tmp_path / "a"), num_train_epochs=3, per_device_train_batch_size=16, use_cpu=True
    )
    RQVAETrainer(model, arguments, torch.from_numpy(prepared.embeddings)).train()
    assert any(re.match(r"item tokenizer 12/12, [\d,]+ items/s, .*loss", line) for line in lines_of(capsys))
    sizes = CollaborativeSizes(width=8, num_layers=1, num_heads=1)
    arguments = CollaborativeTrainingArguments(
        str(tmp_path / "b"), num_train_epochs=2, per_device_train_batch_size=32, use_cpu=True
    )
    CollaborativeTrainer(build_collaborative_model(prepared.n_items, sizes), arguments, prepared).train()
    assert any(re.match(r"collaborative model 8/8, [\d,]+ targets/s, ", line) for line in lines_of(capsys))
