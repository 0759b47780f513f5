"""Gradient norms of recommender and item tokenizer."""

import pytest
import torch
from recommender_runs import make_trainer


@pytest.mark.parametrize(
    "options", [{"max_grad_norm": 1e-3}, {"max_grad_norm": 0.0}, {"gradient_accumulation_steps": 2}]
)
def test_norms_are_those_before_clipping_of_the_side_in_training(prepared, tmp_path, monkeypatch, options):
    """Means over an epoch's updates, compared with norms of every weight, computed as the update is about to come."""
    trainer = make_trainer(prepared, tmp_path, warm_epochs=0, **options)
    seen: list[tuple[int, str, float]] = []
    own = {id(weight) for weight in trainer.model.item_tokenizer.parameters()}
    clip = trainer.accelerator.clip_grad_norm_

    def noted(weights, max_norm):
        squares = {"item_tokenizer": 0.0, "recommender": 0.0}
        for weight in trainer.model.parameters():
            if weight.grad is not None:
                squares["item_tokenizer" if id(weight) in own else "recommender"] += weight.grad.square().sum().item()
        epoch = int(trainer.state.global_step // steps_an_epoch)
        seen.extend((epoch, side, square**0.5) for side, square in squares.items() if square)
        return clip(weights, max_norm)

    monkeypatch.setattr(trainer.accelerator, "clip_grad_norm_", noted)
    steps_an_epoch = -(-trainer.batches_per_epoch() // trainer.args.gradient_accumulation_steps)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 4
    for epoch, entry in enumerate(logs):
        norms = torch.tensor([norm for when, _, norm in seen if when == epoch])
        (side,) = {side for when, side, _ in seen if when == epoch}
        assert side == ("item_tokenizer" if epoch % 2 == 0 else "recommender")
        assert {name for name in entry if name.startswith("grad_norm_")} == {f"grad_norm_{side}"}
        assert len(norms) == steps_an_epoch
        assert entry[f"grad_norm_{side}"] == pytest.approx(norms.mean().item(), rel=1e-4)
        assert entry["grad_norm"] == pytest.approx(norms[-1].item(), rel=1e-4)
        assert norms.min() > 1e-3, "clipped, if at all, to less than what is told"


def test_refreshed_codes_are_told_of(prepared, tmp_path):
    """At each refresh: what changed, by level too, and the figures that pre-training logs."""
    from etegrec_hf.evaluation.code_diagnostics import code_diagnostics

    codes: list = []
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_epoch_begin(self, args, state, control, model=None, **kwargs):
            codes.append(model.catalogue.item_codes.clone())

    trainer = make_trainer(prepared, tmp_path, tokenizer_learning_rate=0.05)
    trainer.add_callback(Watch())
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["tokenizer_phase"] for entry in logs] == [1, 0, 1, 0]
    changed = 0
    for epoch in (0, 2):
        before, after = codes[epoch], codes[epoch + 1]
        entry = logs[epoch]
        figures = code_diagnostics(after[:, :-1], 8)
        assert {name: entry[name] for name in figures} == pytest.approx(figures)
        for level in range(3):
            assert entry[f"changed_codes_{level}"] == pytest.approx((before != after)[:, level].float().mean().item())
        changed += entry["changed_codes_0"]
    assert changed > 0
    assert not any(name.startswith(("usage", "changed")) for entry in logs[1::2] for name in entry)
