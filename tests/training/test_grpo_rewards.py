"""Rewards in the trainer: equal ones, missing ones, useless ones and a caller's own."""

import math

import pytest
import torch
from datasets import Dataset
from grpo_runs import WITHOUT_EVALUATION, Spy, by_place, logged, make_trainer, same, weights_of

from etegrec_hf import HitReward, SequenceDataset, prompt_dataset


def test_groups_of_equal_rewards_are_left_out_and_counted(prepared, tmp_path):
    def of_even_targets(completions, target, **columns):
        return [float(wanted % 2 == 0) * place for place, wanted in enumerate(target)]

    run = make_trainer(prepared, tmp_path, of_even_targets, trainer=Spy, num_iterations=2, **WITHOUT_EVALUATION)
    targets = []
    rewards = run._calculate_rewards

    def spy(inputs, *args):
        targets.append([row["target"] for row in inputs[::4]])
        return rewards(inputs, *args)

    run._calculate_rewards = spy
    run.train()
    skipped = [sum(target % 2 for target in step) for step in targets]
    assert 0 < min(skipped) < 8
    assert logged(run, "skipped_groups") == skipped
    for inputs, step in zip(run.losses[::2], skipped):
        assert (inputs["completion_mask"].sum((1, 2)) == 0).sum() == step
        assert (inputs["old_per_token_logps"].sum((1, 2)) == 0).sum() == step
    assert all(math.isfinite(value) for entry in run.state.log_history for value in entry.values())


def test_nothing_is_learned_where_all_rewards_are_equal(prepared, tmp_path, caplog):
    run = make_trainer(prepared, tmp_path, lambda completions, **columns: [0.5] * len(completions))
    before = weights_of(run)
    run.train()
    assert same(before, weights_of(run)), "the KL divergence does not pull either"
    assert logged(run, "skipped_groups") == [8] * 4
    assert logged(run, "loss") == [0] * 4
    assert "step 4: nothing was learned since the last log" in caplog.text


def test_left_out_groups_do_not_change_what_others_learn(prepared, tmp_path):
    """The gradient is that of the same loss with zero advantages, which groups of equal rewards have."""
    gradients = []
    for tolerance in (1e-6, -1.0):  # the latter leaves nothing out
        run = make_trainer(prepared, tmp_path, HitReward(), beta=0.0, max_steps=1, **WITHOUT_EVALUATION)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("etegrec_hf.training.grpo.trainer.SAME_REWARD", tolerance)
            run.train()
        gradients.append((logged(run, "grad_norm")[0], logged(run, "skipped_groups")[0], run.model.shared.weight))
    assert gradients[0][1] > 0 == gradients[1][1]
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-4)
    torch.testing.assert_close(gradients[0][2], gradients[1][2])


def test_a_function_of_ones_own_gets_histories_items_and_columns(prepared, tmp_path):
    seen = {}

    def own(prompts, completions, completion_ids, target, price, trainer_state, log_metric, **columns):
        seen.update(prompts=prompts, completions=completions, ids=completion_ids, target=target, price=price)
        log_metric("dear", sum(price) / len(price))
        return [float(item == wanted) + (index % 4) for index, (item, wanted) in enumerate(zip(completions, target))]

    rows = prompt_dataset(SequenceDataset.for_training(prepared.train, 20))[:64]
    train = Dataset.from_dict(rows | {"price": [float(target) for target in rows["target"]]})
    run = make_trainer(prepared, tmp_path, own, train=train, max_steps=1, **WITHOUT_EVALUATION)
    model = run.model
    run.train()
    assert len(seen["completions"]) == 32
    assert seen["price"] == [float(target) for target in seen["target"]]
    assert all(1 <= item <= prepared.n_items for item in seen["completions"])
    assert model.catalogue.item_tokens[seen["completions"]].tolist() == seen["ids"]
    known = {(tuple(prompt), target) for prompt, target in zip(rows["prompt"], rows["target"])}
    assert {(tuple(prompt), target) for prompt, target in zip(seen["prompts"], seen["target"])} <= known
    assert logged(run, "dear") == [pytest.approx(sum(seen["price"]) / 32)]
    assert logged(run, "rewards/own/mean")


def test_coroutines_and_missing_rewards_count(prepared, tmp_path):
    async def later(completions, **columns):
        return [float(index % 3) for index in range(len(completions))]

    def sometimes(completions, **columns):
        return [None if index % 4 == 0 else math.nan if index % 4 == 1 else 1.0 for index in range(len(completions))]

    run = make_trainer(prepared, tmp_path, [later, sometimes], max_steps=2, **WITHOUT_EVALUATION)
    run.train()
    assert logged(run, "missing_rewards") == [16, 16]
    run = make_trainer(prepared, tmp_path, [sometimes], max_steps=2, **WITHOUT_EVALUATION)
    before = weights_of(run)
    run.train()
    assert logged(run, "skipped_groups") == [8, 8], "the completions that have a reward have the same"
    assert same(before, weights_of(run))
    assert logged(run, "loss") == [0, 0]


def test_rewards_are_called_by_their_names(prepared, tmp_path):
    class ByPlace:
        def __call__(self, completions, **columns):
            return by_place(completions)

    run = make_trainer(prepared, tmp_path, (ByPlace(), by_place), max_steps=1, **WITHOUT_EVALUATION)
    assert run.reward_func_names == ["ByPlace", "by_place"]
    run.train()
    assert logged(run, "rewards/ByPlace/mean") == logged(run, "rewards/by_place/mean") == [1.5]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0], "The reward function 'bad' returned 1 rewards, but 32 were expected"),
        (None, "the reward 'bad' returned None; return a list with a number .* for each of the 32 completions"),
        (0.5, "the reward 'bad' returned 0.5; return a list"),
        ([math.inf] * 32, "the reward 'bad' returned infinity; return numbers, or None for no reward"),
    ],
)
def test_rewards_of_no_use_are_errors(prepared, tmp_path, returned, message):
    def bad(completions, **columns):
        return returned

    run = make_trainer(prepared, tmp_path, bad, **WITHOUT_EVALUATION)
    with pytest.raises(ValueError, match=message):
        run.train()


def test_coroutines_of_no_use_are_errors_too(prepared, tmp_path):
    async def bad(completions, **columns):
        return 0.5

    run = make_trainer(prepared, tmp_path, bad, **WITHOUT_EVALUATION)
    with pytest.raises(ValueError, match=r"the reward 'bad' returned 0.5; return a list"):
        run.train()


def test_completions_can_be_logged(prepared, tmp_path, capsys):
    run = make_trainer(
        prepared, tmp_path, log_completions=True, num_completions_to_print=2, max_steps=1, **WITHOUT_EVALUATION
    )
    run.train()
    (table,) = tmp_path.glob("completions/*.parquet")
    rows = Dataset.from_parquet(str(table), cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 32
    assert set(rows.column_names) >= {"prompt", "completion", "hit", "semantic", "advantage"}
    assert "Advantage" in capsys.readouterr().out
