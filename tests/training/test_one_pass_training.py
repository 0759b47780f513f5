"""Training by one pass per sequence: equal to training prefix by prefix, in every phase."""

import pytest
import torch
from recommender_runs import sides, unchanged
from tiny_models import RECIPE, make_model, random_codes
from transformers import TrainerCallback

from etegrec_hf import ETEGRecTrainer, ETEGRecTrainingArguments
from etegrec_hf.data.sequences import SequenceDataset, WholeSequenceDataset
from etegrec_hf.training.base.checkpoints import last_checkpoint


def make_trainer(prepared, folder, whole: bool = True, kind: dict | None = None, **options) -> ETEGRecTrainer:
    """A trainer of a tiny causal recommender, by whole sequences or by their prefixes, all of which it can read."""
    kind = {"encoder_attention": "causal", "dropout_rate": 0.0} | (kind or {})
    model = make_model(random_codes(prepared.n_items, 3, 8), 8, **kind)
    model.catalogue.set_semantic_embedding(torch.from_numpy(prepared.embeddings))
    defaults = {
        "num_train_epochs": 4,
        "warm_epochs": 0,
        "learning_rate": 1e-3,
        "tokenizer_learning_rate": 1e-3,
        "num_beams": 10,
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 1,
    }
    longest = int(max(prepared.train.offsets[1:] - prepared.train.offsets[:-1]))
    train = (
        WholeSequenceDataset(prepared.train, longest)
        if whole
        else SequenceDataset.for_training(prepared.train, longest)
    )
    return ETEGRecTrainer(
        model,
        ETEGRecTrainingArguments(str(folder), **(defaults | options)),
        prepared.item_ids,
        train,
        eval_dataset=SequenceDataset.for_evaluation(prepared.validation, 20),
    )


@pytest.mark.parametrize("kind", [{}, RECIPE])
@pytest.mark.parametrize("phase", ["tokenizer", "recommender", "finetune"])
def test_losses_and_gradients_are_those_of_prefix_by_prefix(prepared, tmp_path, phase, kind):
    weights = {"sia_weight": 0.5, "psa_weight": 0.25}
    found = []
    for whole in (True, False):
        trainer = make_trainer(prepared, tmp_path / str(whole), whole, kind, **weights)
        trainer.current_gradient_accumulation_steps = 1
        trainer.enter_phase(phase, aligned=True)
        dataset = trainer.train_dataset
        rows = range(6) if whole else [row for row, user in enumerate(dataset.rows) if user < 6]
        trainer.training_step(trainer.model, dataset.__getitems__(list(rows)))
        parts = {name: float(total) for name, (total, _) in trainer._parts.items()}
        gradients = {name: weight.grad for name, weight in trainer.model.named_parameters()}
        found.append((parts, {name: gradient for name, gradient in gradients.items() if gradient is not None}))
    (parts, gradients), (expected_parts, expected) = found
    of_recommender = {"loss_code", "loss_item"} if kind else {"loss_code"}
    assert parts.keys() == {"loss_sia", "loss_psa"} | ({"loss_vq"} if phase == "tokenizer" else of_recommender)
    assert parts == pytest.approx(expected_parts, rel=1e-5)
    assert gradients.keys() == expected.keys()
    assert any(gradient.abs().max() > 1e-4 for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("phase", ["tokenizer", "recommender"])
def test_losses_in_bfloat16_are_near_those_in_float32(prepared, tmp_path, phase):
    """Whole sequences have positions that no target reads before, and padding that sees nothing."""
    losses = []
    for bf16 in (True, False):
        trainer = make_trainer(prepared, tmp_path / str(bf16), bf16=bf16, sia_weight=0.5, psa_weight=0.25)
        trainer.current_gradient_accumulation_steps = 1
        trainer.accelerator.prepare_model(trainer.model, evaluation_mode=True)
        trainer.enter_phase(phase, aligned=True)
        losses.append(float(trainer.training_step(trainer.model, trainer.train_dataset.__getitems__(list(range(8))))))
        gradients = [weight.grad for weight in trainer.model.parameters() if weight.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_accumulated_batches_of_unlike_sizes_equal_one_batch(prepared, tmp_path):
    weights = []
    options = {"num_train_epochs": 1, "save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False,
               "optim": "sgd", "max_grad_norm": 0.0, "learning_rate": 0.1, "freeze_tokenizer": True, "sia_weight": 0,
               "psa_weight": 0}  # fmt: skip
    for size, accumulated in ((32, 1), (8, 4)):
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}
        trainer = make_trainer(prepared, tmp_path / str(size), **options, **sizes)
        order = torch.arange(len(trainer.train_dataset)).tolist()[: 32 * 3 - 4]
        trainer._get_train_sampler = lambda *args, order=order: order
        trainer.train()
        assert trainer.state.global_step == 3
        weights.append((trainer.model.shared.weight.detach(), trainer.state.log_history[-2]["loss"]))
    (one, one_loss), (four, four_loss) = weights
    torch.testing.assert_close(one, four, atol=1e-5, rtol=1e-5)
    assert one_loss == pytest.approx(four_loss, rel=1e-4)


def test_resuming_within_an_epoch_of_token_budgets_equals_no_interruption(prepared, tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_save = control.should_training_stop = state.global_step == stop

    options = {"max_tokens_per_batch": 240, "num_train_epochs": 2, "save_strategy": "no", "eval_strategy": "no",
               "load_best_model_at_end": False}  # fmt: skip
    whole = make_trainer(prepared, tmp_path / "whole", **options)
    steps = len(whole.get_train_dataloader())
    stop = steps + steps // 2
    whole.train()
    assert whole.state.global_step == 2 * steps
    parts = make_trainer(prepared, tmp_path / "parts", **options)
    parts.add_callback(Stop())
    parts.train()
    assert parts.state.global_step == stop
    again = make_trainer(prepared, tmp_path / "parts", **options)
    again.train(resume_from_checkpoint=last_checkpoint(tmp_path / "parts"))
    for side, weights in sides(whole.model).items():
        assert unchanged(weights, sides(again.model)[side]), side


def test_a_budget_counts_for_prefixes_too(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path, whole=False, max_tokens_per_batch=300)
    shapes = [tuple(batch["history"].shape) for batch in trainer.get_train_dataloader()]
    assert all(rows * items * 3 <= 300 for rows, items in shapes)
    assert sum(rows for rows, _ in shapes) == len(trainer.train_dataset)
    assert len({rows for rows, _ in shapes}) > 3
