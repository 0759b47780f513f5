import pytest
import torch
from file_modes import umask, unusual_modes
from item_tokenizer_runs import make_trainer
from pictures import undrawn

from etegrec_hf import ItemEmbeddingDataset, RQVAEModel, RQVAETrainingArguments
from etegrec_hf.evaluation.code_diagnostics import code_diagnostics
from etegrec_hf.hub.training_record import TrainingRecord
from etegrec_hf.training.base.checkpoints import last_checkpoint
from etegrec_hf.training.item_tokenizer.fit import train_item_tokenizer, write_diagnostics
from etegrec_hf.training.item_tokenizer.options import ItemTokenizerOptions


@pytest.fixture(scope="module")
def embeddings() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(12, 8).repeat_interleave(10, 0) + 0.3 * torch.randn(120, 8)


def test_training_lowers_the_loss_and_uses_the_codes(embeddings, tmp_path):
    trainer = make_trainer(embeddings, tmp_path, num_train_epochs=40, learning_rate=1e-2)
    before = trainer.model(embeddings).reconstruction_loss.item()
    trainer.train()
    assert trainer.model(embeddings).reconstruction_loss.item() < 0.5 * before
    figures = [entry for entry in trainer.state.log_history if "usage_0" in entry]
    assert len(figures) == 40
    expected = code_diagnostics(trainer.model.encode(embeddings), 8)
    assert {name: figures[-1][name] for name in expected} == pytest.approx(expected)
    assert figures[-1]["usage_0"] == 1.0
    assert "revived_codes" in figures[0]
    assert "revived_codes" not in figures[-1], "what is revived last would never be trained"


def test_codes_are_not_moved_when_time_is_over(embeddings, tmp_path):
    options = {"kmeans_init": False, "save_strategy": "steps", "save_steps": 1, "num_train_epochs": 40}
    trainer = make_trainer(embeddings, tmp_path, max_seconds=1e-6, **options)
    trainer.train()
    assert trainer.state.global_step == 1
    assert trainer.updates_left_out > 0
    assert not any("revived_codes" in entry for entry in trainer.state.log_history)
    saved = RQVAEModel.from_pretrained(last_checkpoint(tmp_path)).state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in trainer.model.state_dict().items())


def test_resuming_equals_no_interruption(embeddings, tmp_path):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.epoch >= 3

    whole = make_trainer(embeddings, tmp_path / "whole")
    whole.train()
    make_trainer(embeddings, tmp_path / "parts", [Stop()]).train()
    again = make_trainer(embeddings, tmp_path / "parts")
    again.train(resume_from_checkpoint=last_checkpoint(tmp_path / "parts"))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_resuming_from_a_step_that_ends_an_epoch_equals_no_interruption(embeddings, tmp_path):
    """The checkpoint of an epoch's last step must hold the codes that were revived."""
    whole = make_trainer(embeddings, tmp_path / "whole", kmeans_init=False)
    whole.train()
    assert any(entry.get("revived_codes") for entry in whole.state.log_history), "codes die in this run"
    saving = {"save_strategy": "steps", "save_steps": 4, "save_total_limit": None, "kmeans_init": False}
    make_trainer(embeddings, tmp_path / "parts", **saving).train()
    for step in (4, 12):  # 4 steps an epoch
        again = make_trainer(embeddings, tmp_path / "again", kmeans_init=False)
        again.train(resume_from_checkpoint=str(tmp_path / f"parts/checkpoint-{step}"))
        for name, tensor in whole.model.state_dict().items():
            assert torch.equal(tensor, again.model.state_dict()[name]), (step, name)


def test_each_epoch_logs_its_loss_beside_the_figures(embeddings, tmp_path):
    trainer = make_trainer(embeddings, tmp_path, num_train_epochs=3)
    trainer.train()
    losses = [entry["epoch"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses == [entry["epoch"] for entry in trainer.state.log_history if "usage_0" in entry] == [1, 2, 3]


def test_each_epoch_logs_its_figures_when_steps_are_logged(embeddings, tmp_path):
    trainer = make_trainer(embeddings, tmp_path, num_train_epochs=3, logging_strategy="steps", logging_steps=1)
    trainer.train()
    assert [entry["epoch"] for entry in trainer.state.log_history if "usage_0" in entry] == [1, 2, 3]


def test_a_run_of_so_many_steps_revives_no_code_at_its_end(embeddings, tmp_path):
    trainer = make_trainer(embeddings, tmp_path, max_steps=8)
    trainer.train()
    figures = [entry for entry in trainer.state.log_history if "usage_0" in entry]
    assert ["revived_codes" in entry for entry in figures] == [True, False]


def test_all_files_of_a_run_have_the_modes_that_the_umask_gives(embeddings, tmp_path):
    options = ItemTokenizerOptions(hidden_sizes=[4], latent_size=2, num_levels=2, codebook_size=8)
    arguments = RQVAETrainingArguments(str(tmp_path), num_train_epochs=1, use_cpu=True, disable_tqdm=True)
    with undrawn(), umask(0o027):
        write_diagnostics(train_item_tokenizer(embeddings, options, arguments, TrainingRecord()))
    assert (tmp_path / "checkpoint-1/optimizer.pt").exists()
    assert unusual_modes(tmp_path, 0o027) == {}


@pytest.mark.parametrize("kmeans", [True, False])
def test_codebooks_start_from_latents_only_if_asked(embeddings, tmp_path, kmeans, monkeypatch):
    started = []
    monkeypatch.setattr(
        "etegrec_hf.training.item_tokenizer.trainer.initialize_codebooks", lambda *arguments: started.append(arguments)
    )
    make_trainer(embeddings, tmp_path, num_train_epochs=1, kmeans_init=kmeans).train()
    assert bool(started) is kmeans


def test_embeddings_of_another_width_are_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"`embeddings` are 9 wide, but the model's `input_size` is 8"):
        make_trainer(torch.zeros(4, 9), tmp_path)


def test_embeddings_with_nan_are_an_error(tmp_path):
    broken = torch.zeros(4, 8)
    broken[2, 3] = torch.nan
    with pytest.raises(ValueError, match="`embeddings` holds NaN or infinity, first in row 2; repair"):
        make_trainer(broken, tmp_path)


def test_evaluation_measures_the_losses_of_held_out_items(embeddings, tmp_path):
    """13 items by batches of 5: each item counts alike."""
    held_out, options = embeddings[:13] + 1, {"per_device_eval_batch_size": 5, "eval_strategy": "epoch"}
    evaluated = ItemEmbeddingDataset(held_out)
    trainer = make_trainer(embeddings[13:], tmp_path, evaluated=evaluated, num_train_epochs=2, **options)
    trainer.train()
    model = trainer.model.eval()
    with torch.no_grad():
        outputs = model(held_out)
    metrics = trainer.evaluate()
    for name in ("loss", "reconstruction_loss", "quantization_loss"):
        assert metrics[f"eval_{name}"] == pytest.approx(outputs[name].item(), rel=1e-5)
    assert len([entry for entry in trainer.state.log_history if "eval_loss" in entry]) == 3
    trainer.args.bf16_full_eval = True
    assert trainer.evaluate()["eval_loss"] == pytest.approx(outputs.loss.item(), rel=0.05)


def test_the_best_item_tokenizer_by_held_out_items_is_what_remains(embeddings, tmp_path):
    options = {"eval_strategy": "epoch", "load_best_model_at_end": True, "metric_for_best_model": "loss"}
    evaluated = ItemEmbeddingDataset(embeddings[:13])
    trainer = make_trainer(embeddings[13:], tmp_path, evaluated=evaluated, num_train_epochs=4, **options)
    losses = iter([3.0, 1.0, 2.0, 4.0])
    trainer.compute_metrics = lambda prediction: {"loss": next(losses)}
    trainer.train()
    steps = trainer.state.max_steps // 4
    assert trainer.state.best_global_step == 2 * steps
    kept = RQVAEModel.from_pretrained(tmp_path / f"checkpoint-{2 * steps}")
    assert all(torch.equal(weight, trainer.model.state_dict()[name]) for name, weight in kept.state_dict().items())


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (
            torch.ones(6, 8),
            "all 6 items have the same embedding; give embeddings that tell items",
        ),
        (torch.zeros(6, 8), "all 6 items have the same embedding"),
        (torch.eye(6, 8) * (torch.arange(6) == 4).unsqueeze(1), "1 of 6 items has an embedding that is not all zero"),
        (torch.ones(1, 8), "there are embeddings of 1 item, but an item tokenizer needs at least 2; give more"),
    ],
)
def test_embeddings_that_tell_nothing_are_refused_before_training(tmp_path, embeddings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(embeddings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_items_that_differ_are_enough(tmp_path):
    make_trainer(torch.eye(6, 8)[[0, 1, 1, 1]] * torch.tensor([[1], [1], [0], [0]]), tmp_path, num_train_epochs=1)


def test_more_items_than_codes_are_refused_before_training(tmp_path):
    arguments = RQVAETrainingArguments(str(tmp_path / "run"), use_cpu=True)
    options = ItemTokenizerOptions(hidden_sizes=[4], latent_size=2, num_levels=1, codebook_size=2)
    with pytest.raises(ValueError, match=r"5 items don't fit into 2\^2 = 4 codes; raise `codebook_size` or"):
        train_item_tokenizer(torch.eye(5), options, arguments, TrainingRecord())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("epochs", [0, -1])
def test_a_training_of_no_epoch_is_refused(epochs):
    with pytest.raises(ValueError, match=f"`num_train_epochs` is {epochs}; nothing would be trained: give more than"):
        RQVAETrainingArguments("run", num_train_epochs=epochs)
    assert RQVAETrainingArguments("run", num_train_epochs=epochs, max_steps=3).max_steps == 3
