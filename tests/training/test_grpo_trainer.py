"""Ratios, rollouts and losses of GRPO, and every rollout with every reward."""

import itertools
import math

import pytest
import torch
from datasets import Dataset
from grpo_runs import WITHOUT_EVALUATION, Spy, by_place, logged, make_trainer, tiny_model, weights_of
from tiny_models import RECIPE, make_model, random_codes

from etegrec_hf import (
    ETEGRecGRPOConfig,
    ETEGRecGRPOTrainer,
    ETEGRecTokenizer,
    PrefixReward,
)
from etegrec_hf.training.collaborative.arguments import CollaborativeSizes
from etegrec_hf.training.collaborative.model import build_collaborative_model
from etegrec_hf.training.grpo import policy as code_policy
from etegrec_hf.training.grpo.policy import ROLLOUTS
from etegrec_hf.training.grpo.rewards import REWARDS, make_reward

# The ratio


BIASED = {"constrained_softmax": True, "has_repeat_bias": True, "reads_items": True}


@pytest.mark.parametrize(("constrained", "sizes"), [(True, {}), (False, {}), (True, BIASED), (True, RECIPE)])
@pytest.mark.parametrize("kind", ROLLOUTS)
def test_the_ratio_is_1_before_the_first_update(prepared, tmp_path, kind, constrained, sizes):
    """In training mode, on a model with dropout, with top-k, by a pass of its own over shuffled groups."""
    options = {"rollout": kind, "constrained": constrained, "num_iterations": 2, "top_k": 3, "temperature": 0.8}
    model = tiny_model(prepared, **sizes)
    run = make_trainer(prepared, tmp_path, by_place, model, trainer=Spy, **options, **WITHOUT_EVALUATION)
    run.train()
    old, reference, first = run.scores[:3]  # two without gradients, of all groups in order
    ratio = (first - run.losses[0]["old_per_token_logps"].flatten(0, 1)).exp()
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=3e-6, rtol=0)
    assert torch.equal(old, reference), "the reference is the starting model"
    if kind != "beam":
        torch.testing.assert_close(old.sum(1), run.rolled_out[0], atol=1e-5, rtol=0)
    assert logged(run, "kl")[0] == pytest.approx(0, abs=1e-8)
    assert logged(run, "clip_ratio/region_mean")[0] == 0
    second = run.scores[3] - run.losses[1]["old_per_token_logps"].flatten(0, 1)
    assert second.abs().max() > 1e-4, "after an update it is not"


def test_without_old_log_probabilities_the_ratio_is_exactly_1(prepared, tmp_path):
    run = make_trainer(prepared, tmp_path, trainer=Spy, beta=0.0, **WITHOUT_EVALUATION)
    run.train()
    assert all("old_per_token_logps" not in inputs for inputs in run.losses)
    assert logged(run, "clip_ratio/region_mean") == [0] * 4


def test_each_distinct_history_is_encoded_once_a_pass(prepared, tmp_path, monkeypatch):
    rows, encode = [], code_policy.encode

    def counting(encoder, input_ids, attention_mask, item_vectors):
        rows.append([tuple(row[row > 0].tolist()) for row in input_ids])
        return encode(encoder, input_ids, attention_mask, item_vectors)

    monkeypatch.setattr(code_policy, "encode", counting)
    train = Dataset.from_dict({"prompt": [[1], [1, 2], [3], [4, 4, 4]] * 8, "target": list(range(1, 33))})
    run = make_trainer(prepared, tmp_path, by_place, trainer=Spy, train=train, max_steps=3, **WITHOUT_EVALUATION)
    run.train()
    assert len(rows) == 3 * 3, "a step: rolling out, the reference, and the loss"
    for step, inputs in enumerate(run.losses):
        histories = {tuple(row[row > 0].tolist()) for row in inputs["prompt_ids"].flatten(0, 1)}
        assert [sorted(encoded) for encoded in rows[3 * step : 3 * step + 3]] == [sorted(histories)] * 3
    assert max(map(len, rows)) <= 4, "of 8 groups"


# Everything with everything


def learn_from(rewards, prepared, folder, **options) -> None:
    """Two steps with groups of half the catalogue, so that each has a hit now and then, and 60 of 64 codes items."""
    collaborative = build_collaborative_model(prepared.n_items, CollaborativeSizes(8, 1, 2))
    model = tiny_model(prepared, codebook_size=4, num_layers=1, num_decoder_layers=1)
    run = make_trainer(
        prepared,
        folder,
        [make_reward(name, model, prepared, 32, collaborative) for name in rewards],
        model,
        max_steps=2,
        logging_steps=2,
        per_device_train_batch_size=128,
        num_generations=32,
        **options,
        **WITHOUT_EVALUATION,
    )
    before = weights_of(run)
    run.train()
    (log,) = (entry for entry in run.state.log_history if "loss" in entry)
    assert all(math.isfinite(value) for value in log.values()), log
    assert all(log[f"rewards/{name}/std"] > 0 for name in rewards), log
    moved = {key.split(".")[0] for key, tensor in weights_of(run).items() if not torch.equal(tensor, before[key])}
    assert moved == {"shared", "encoder", "decoder"}, "codes, item tokenizer and adapters stand still"


@pytest.mark.parametrize(
    ("kind", "constrained", "beta", "iterations"),  # each value with each value of another
    [
        ("sample", True, 0.0, 1),
        ("sample", False, 0.05, 2),
        ("without_replacement", True, 0.05, 1),
        ("without_replacement", False, 0.0, 2),
        ("beam", True, 0.0, 2),
        ("beam", False, 0.05, 1),
    ],
)
def test_every_rollout_with_all_rewards(prepared, tmp_path, kind, constrained, beta, iterations):
    options = {"rollout": kind, "constrained": constrained, "beta": beta, "num_iterations": iterations}
    learn_from(REWARDS, prepared, tmp_path, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("constrained", "beta", "iterations"), [(True, 0.05, 2), (False, 0.0, 1)])
@pytest.mark.parametrize(("name", "kind"), zip(REWARDS, itertools.cycle(ROLLOUTS)))
def test_each_reward_alone(prepared, tmp_path, name, kind, constrained, beta, iterations):
    options = {"rollout": kind, "constrained": constrained, "beta": beta, "num_iterations": iterations}
    learn_from([name], prepared, tmp_path, **options)


@pytest.mark.parametrize("loss", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "vespo"])
def test_losses_of_trl(prepared, tmp_path, loss):
    run = make_trainer(prepared, tmp_path, loss_type=loss, max_steps=2, entropy_coef=0.01, **WITHOUT_EVALUATION)
    run.train()
    assert all(math.isfinite(value) and value for value in logged(run, "grad_norm"))


def test_several_steps_share_a_round_of_completions(prepared, tmp_path):
    options = {"steps_per_generation": 4, "gradient_accumulation_steps": 2, "num_iterations": 2, "max_steps": 5}
    run = make_trainer(prepared, tmp_path, trainer=Spy, **options, **WITHOUT_EVALUATION)
    run.train()
    assert len(run.rolled_out) == 2, "8 batches a round, 2 a step"
    assert len(run.losses) == 10
    for inputs in run.losses:
        assert inputs["prompt_ids"].shape[:2] == (8, 4)
        assert (inputs["prompt_ids"] == inputs["prompt_ids"][:, :1]).all(), "groups stay whole"
    assert run.losses[0] is run.losses[4] is not run.losses[1]


# Learning


@pytest.mark.slow
def test_a_reward_in_nats_and_the_divergence_meet_where_theory_says(prepared, tmp_path):
    """Level by level: at a code's starting probability times exp(mean reward of what follows / beta), normed."""
    codes = random_codes(12, 2, 4)
    generator = torch.Generator().manual_seed(0)
    # below one first code items differ much, which is no reason for that code: their mean is the others' reward
    reward = torch.full((12,), 3.0)
    reward[codes[:, 0] == 0] = 3 + torch.tensor([6.0, -6.0, 3.0, -3.0])[: (codes[:, 0] == 0).sum()]
    reward = reward + 0.5 * torch.rand(12, generator=generator)

    def nats(completions, **columns):
        return reward[torch.tensor(completions) - 1].tolist()

    def distribution(model) -> torch.Tensor:
        policy = code_policy.CodePolicy(model, 1.0, 0, True)
        with torch.no_grad():
            logits = model(
                **model.catalogue.inputs_from_items(history), candidates=model.catalogue.item_tokens[1:].unsqueeze(0)
            ).logits
        return policy.log_probs(logits, model.catalogue.item_codes.unsqueeze(0))[0].sum(2)[0]

    history = torch.tensor([[3, 1]])
    model = make_model(codes, 4, num_layers=1, num_decoder_layers=1)
    start = distribution(model)
    expected, mean = torch.zeros(12), torch.zeros(4)
    first = torch.stack([start[codes[:, 0] == code].logsumexp(0) for code in range(4)])
    for code in range(4):
        below = codes[:, 0] == code
        expected[below] = (start[below] + reward[below] / 2).log_softmax(0)
        mean[code] = (expected[below].exp() * reward[below]).sum()
    expected = expected + (first + mean / 2).log_softmax(0)[codes[:, 0]]
    run = ETEGRecGRPOTrainer(
        model,
        nats,
        ETEGRecGRPOConfig(
            str(tmp_path),
            num_generations=256,
            per_device_train_batch_size=256,
            beta=2.0,
            scale_rewards="none",
            learning_rate=0.01,
            max_steps=80,
            logging_steps=80,
            use_cpu=True,
            disable_tqdm=True,
            report_to=[],
            **WITHOUT_EVALUATION,
        ),
        Dataset.from_dict({"prompt": history.tolist(), "target": [1]}),
        processing_class=ETEGRecTokenizer.from_item_codes(
            [f"i{row}" for row in range(12)], model.catalogue.item_codes, 4
        ),
    )
    run.train()
    divergence_before, divergence = (
        (expected.exp() * (expected - found)).sum().item() for found in (start, distribution(model))
    )
    assert divergence_before > 0.1
    assert divergence < 0.05 * divergence_before


@pytest.mark.parametrize("kind", ROLLOUTS)
def test_the_codes_of_the_target_are_learned(prepared, tmp_path, kind):
    model = tiny_model(prepared, dropout_rate=0.0)
    options = {"rollout": kind, "max_steps": 30, "learning_rate": 0.01, "beta": 0.0, "num_generations": 8}
    run = make_trainer(
        prepared,
        tmp_path,
        PrefixReward(model),
        model,
        per_device_train_batch_size=128,
        **options,
        **WITHOUT_EVALUATION,
    )
    run.train()
    rewards = logged(run, "reward")
    assert sum(rewards[-5:]) > 1.3 * sum(rewards[:5])
