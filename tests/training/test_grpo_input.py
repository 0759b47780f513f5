"""Data and bad input of GRPO, and the TRL that it overrides."""

import inspect
import re

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets, load_from_disk
from grpo_runs import WITHOUT_EVALUATION, Spy, make_trainer, tiny_model
from tiny_models import make_model, random_codes
from trl import GRPOTrainer

from etegrec_hf import (
    ETEGRecGRPOConfig,
    ETEGRecGRPOTrainer,
    HitReward,
    RankReward,
    SequenceDataset,
    prompt_dataset,
)
from etegrec_hf.training.grpo.arguments import check_trl_version
from etegrec_hf.training.grpo.prompts import prompts_on_demand


def rows_of(samples: SequenceDataset) -> list[dict]:
    """Returns the expected prompts of these samples."""
    batches = (samples[index] for index in range(len(samples)))
    return [{"prompt": row["history"].tolist(), "target": row["target"].item()} for row in batches]


@pytest.mark.parametrize("make", [prompt_dataset, prompts_on_demand])
def test_prompts_are_histories_and_targets(prepared, make):
    samples = SequenceDataset.for_training(prepared.train, 3)
    prompts = make(samples)
    assert list(prompts) == rows_of(samples)
    assert len(prompts[5:25]["prompt"]) == 20


def test_prompts_are_laid_out_in_chunks(prepared, monkeypatch):
    samples = SequenceDataset.for_training(prepared.train, 20)
    monkeypatch.setattr("etegrec_hf.training.grpo.prompts.CHUNK", 100)
    assert list(prompt_dataset(samples)) == rows_of(samples)


def saved(prompts: Dataset, folder) -> Dataset:
    prompts.save_to_disk(str(folder))
    return load_from_disk(str(folder))


# What one does with a dataset, and how many of 64 rows it leaves
OPERATIONS = {
    "as it is": (lambda prompts, _: prompts, 64),
    "select": (lambda prompts, _: prompts.select(range(32)), 32),
    "shuffle": (lambda prompts, _: prompts.shuffle(seed=0), 64),
    "filter": (lambda prompts, _: prompts.filter(lambda row: len(row["prompt"]) > 1), None),
    "map": (lambda prompts, _: prompts.map(lambda row: {"price": float(row["target"])}), 64),
    "add_column": (lambda prompts, _: prompts.add_column("price", [1.0] * 64), 64),
    "remove_columns": (lambda prompts, _: prompts.add_column("price", [1.0] * 64).remove_columns("price"), 64),
    "concatenate": (lambda prompts, _: concatenate_datasets([prompts, Dataset.from_list(list(prompts))]), 128),
    "train_test_split": (lambda prompts, _: prompts.train_test_split(0.5, seed=0)["train"], 32),
    "sort": (lambda prompts, _: prompts.sort("target"), 64),
    "save_to_disk": (saved, 64),
    "numpy": (lambda prompts, _: prompts.with_format("numpy"), 64),
    "torch": (lambda prompts, _: prompts.with_format("torch", columns=["prompt"]), 64),
    "transform": (lambda prompts, _: prompts.with_transform(lambda rows: {**rows, "seen": rows["prompt"]}), 64),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_prompts_stay_prompts_whatever_is_done_to_them(prepared, tmp_path, operation):
    samples = SequenceDataset.for_training(prepared.train, 20)
    prompts = prompt_dataset(samples).select(range(64))
    transform, left = OPERATIONS[operation]
    changed = transform(prompts, tmp_path / "prompts")
    run = make_trainer(prepared, tmp_path, train=changed, evaluated=changed, max_steps=1)
    inputs = next(iter(run.get_train_dataloader()))
    known = rows_of(samples)[:64]
    assert {"prompt": inputs[0]["prompt"], "target": inputs[0]["target"]} in known
    assert len(run.train_dataset) == len(run.lengths) == (left or len(run.train_dataset))
    targets = [row["target"] for row in run.train_dataset.with_format(None)]
    assert run.item_counts.tolist() == np.bincount(targets, minlength=61).tolist()
    assert 0 <= run.evaluate()["eval_ndcg@10"] <= 1


def test_a_column_of_ones_own_reaches_the_rewards(prepared, tmp_path):
    prices = []

    def cheap(completions, price, target, **columns):
        assert price == [target_ / 2 for target_ in target]
        prices.extend(price)
        return [float(item % 7) for item in completions]

    prompts = prompt_dataset(SequenceDataset.for_training(prepared.train, 20))
    prompts = prompts.map(lambda row: {"price": row["target"] / 2})
    make_trainer(prepared, tmp_path, [cheap], train=prompts, max_steps=1, **WITHOUT_EVALUATION).train()
    assert len(prices) == 32


def test_batches_hold_groups_of_like_length(prepared, tmp_path):
    run = make_trainer(prepared, tmp_path, num_iterations=2)
    order = list(run._get_train_sampler())
    assert len(order) == len(run._get_train_sampler())
    rounds = np.array(order).reshape(-1, 2, 8, 4)
    assert (rounds == rounds[:, :1, :, :1]).all()
    lengths = run.lengths[rounds[:, 0, :, 0]]
    assert (lengths.max(1) - lengths.min(1)).mean() < 1
    visits = np.zeros(len(run.train_dataset))
    sampler = run._get_train_sampler()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        visited = np.unique(list(sampler))
        assert len(visited) == len(visits) // 8 * 8
        visits[visited] += 1
    assert visits.min() > 10, "whatever an epoch leaves out, the next ones don't"
    plain = make_trainer(prepared, tmp_path, shuffle_dataset=False)._get_train_sampler()
    assert list(plain)[:8] == [0] * 4 + [1] * 4


def test_own_prompts_are_cut_to_the_last_items(prepared, tmp_path):
    long = [list(range(1, 31))] * 16
    run = make_trainer(
        prepared,
        tmp_path,
        model=tiny_model(prepared, max_history=5),
        train=Dataset.from_dict({"prompt": long, "target": [1] * 16}),
        trainer=Spy,
        max_steps=1,
        **WITHOUT_EVALUATION,
    )
    run.train()
    assert (run.losses[0]["prompt_ids"] == run.model.catalogue.item_tokens[26:31].flatten()).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_generations": 1}, "`num_generations` is 1; give at least 2"),
        ({"num_generations": 5}, "`per_device_train_batch_size` is 32 and `num_generations` is 5; .* a multiple"),
        ({"rollout": "best"}, "`rollout` is 'best'; choose one of sample, without_replacement, beam"),
        ({"steps_per_generation": 3, "gradient_accumulation_steps": 2}, "a round of completions is 3 batches"),
        ({"temperature": 0.0}, "`temperature` is 0.0; it must be positive"),
        ({"top_k": -1}, "`top_k` is -1; give the number of codes"),
        ({"num_beams": 5}, "`num_beams` is 5 and `metric_for_best_model` is 'ndcg@10'"),
        ({"metric_for_best_model": "loss"}, "`metric_for_best_model` is 'loss'; choose recall@k or ndcg@k"),
        ({"use_vllm": True}, "`use_vllm` is True, an option of TRL that has no meaning"),
        ({"top_p": 0.9}, "`top_p` is 0.9, .*; leave it at 1.0"),
        ({"mask_truncated_completions": True}, "`mask_truncated_completions` is True"),
        ({"sync_ref_model": True}, "`sync_ref_model` is True"),
        ({"max_completion_length": 4}, "`max_completion_length` is 4, but the model's `code_length` is 3"),
        ({"rollout": "beam", "num_generations": 64, "per_device_train_batch_size": 64}, "there are 60"),
        ({"eval_strategy": "no", "load_best_model_at_end": False}, "`early_stopping_patience` is 5"),
        ({"push_to_hub": True, "hub_strategy": "every_save"}, "`hub_strategy` is 'every_save'"),
        ({"reward_weights": [1.0]}, r"Number of reward weights \(1\) must match number of reward functions \(2\)"),
    ],
)
def test_arguments_of_no_use_are_errors(prepared, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(prepared, tmp_path, **options)


@pytest.mark.parametrize(
    ("prompts", "targets", "message"),
    [
        ([[1]], None, "`train_dataset` has the columns ['prompt'] and no 'target'"),
        (None, [1], "and no 'prompt'"),
        ([[1], []], [1, 1], "row 1 of `train_dataset` has the prompt [] and the target 1"),
        ([[1], [-1, 5]], [1, 1], "row 1 of `train_dataset` has the prompt [-1, 5] and the target 1"),
        ([[1], [2]], [1, 99], "row 1 of `train_dataset` has the prompt [2] and the target 99"),
        ([[61]], [1], "1..60"),
        ([["item00001"]], ["item00002"], "give item indices"),
        ([], [], "`train_dataset` is empty"),
        ([[1], [2]], [2, 3], "`train_dataset` has 2 histories, but a round of completions needs 8"),
    ],
)
def test_data_of_no_use_is_an_error(prepared, tmp_path, prompts, targets, message):
    columns = {name: values for name, values in (("prompt", prompts), ("target", targets)) if values is not None}
    with pytest.raises(ValueError, match=re.escape(message)):
        make_trainer(prepared, tmp_path, train=Dataset.from_dict(columns)).train()


@pytest.mark.parametrize("column", ["log_probability", "completions", "prompts", "trainer_state", "image", "images"])
def test_columns_of_names_that_are_taken_are_an_error(prepared, tmp_path, column):
    own = Dataset.from_dict({"prompt": [[1]] * 8, "target": [2] * 8, column: [0.5] * 8})
    with pytest.raises(ValueError, match=f"`train_dataset` has the column '{column}', a name .*; rename the column"):
        make_trainer(prepared, tmp_path, train=own)


def test_a_tokenizer_that_is_not_the_models_is_an_error(prepared, tmp_path):
    run = make_trainer(prepared, tmp_path)
    arguments = ETEGRecGRPOConfig(str(tmp_path), use_cpu=True)
    with pytest.raises(ValueError, match="`processing_class` is None; give the model's `ETEGRecTokenizer`"):
        ETEGRecGRPOTrainer(run.model, HitReward(), arguments, run.train_dataset)
    other = tiny_model(prepared)
    other.set_item_codes(other.catalogue.item_codes.flip(0))
    with pytest.raises(ValueError, match="tokenizer and model disagree about item"):
        ETEGRecGRPOTrainer(other, HitReward(), arguments, run.train_dataset, processing_class=run.processing_class)


def test_rewards_that_do_not_fit_are_an_error(prepared, tmp_path):
    message = "the reward 'rank' was made for groups of 2, but `num_generations` is 4; make"
    with pytest.raises(ValueError, match=message):
        make_trainer(prepared, tmp_path, RankReward(2))
    with pytest.raises(ValueError, match="a reward is a str, but models that score text can't read items"):
        make_trainer(prepared, tmp_path, ["some/reward-model"])


def test_rollouts_that_a_model_does_not_allow_are_an_error(prepared, tmp_path):
    model = make_model(random_codes(prepared.n_items, 6, 2), 2)
    with pytest.raises(ValueError, match="there are 64; give a smaller group, or the rollout 'sample'"):
        make_trainer(prepared, tmp_path, HitReward(), model, num_generations=128, rollout="beam",
                     per_device_train_batch_size=128, constrained=False)  # fmt: skip
    model = tiny_model(prepared, constrained_softmax=True)
    with pytest.raises(ValueError, match="`constrained` is False, but the model's `constrained_softmax` is True"):
        make_trainer(prepared, tmp_path, HitReward(), model, constrained=False)


# TRL


@pytest.mark.parametrize("version", ["1.15.9", "1.17.0", "1.17.0rc1", "2.0"])
def test_a_trl_that_was_not_tested_is_an_error(version):
    with pytest.raises(ImportError, match=rf"TRL {version} is installed, .* pip install 'trl>=1.16,<1.17'"):
        check_trl_version(version)


def test_overridden_methods_are_as_trl_has_them():
    """Those of the tested TRL, by name and order of their parameters: another TRL may call ours with others."""
    multimodal = (
        "pixel_values, image_grid_thw, num_images, pixel_attention_mask, spatial_shapes, num_tiles, image_sizes, "
        "token_type_ids, mm_token_type_ids, image_position_ids"
    )
    expected = {
        "_tokenize_prompts": "self, prompts",
        "_generate_single_turn": "self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images",
        "_generate": "self, prompts",
        "_get_per_token_logps_and_entropies": "self, model, input_ids, attention_mask, logits_to_keep, batch_size, "
        f"compute_entropy, compute_aux_loss, {multimodal}",
        "_calculate_rewards": "self, inputs, prompts, completions, completion_ids_list",
        "_generate_and_score_completions": "self, inputs",
        "compute_loss": "self, model, inputs, return_outputs, num_items_in_batch",
        "log": "self, logs, start_time",
        "_get_train_sampler": "self, dataset",
        "_get_eval_sampler": "self, eval_dataset",
        "prediction_step": "self, model, inputs, prediction_loss_only, ignore_keys",
    }
    for name, parameters in expected.items():
        theirs, ours = (list(inspect.signature(getattr(cls, name)).parameters) for cls in
                        (GRPOTrainer, ETEGRecGRPOTrainer))  # fmt: skip
        assert ", ".join(theirs) == parameters, name
        taken = [*theirs[:-10], "multimodal"] if "per_token" in name else theirs
        assert ours == taken, name
    own = {name for name in vars(ETEGRecGRPOTrainer) if callable(getattr(GRPOTrainer, name, None))}
    # from transformers' trainer
    inherited = {"__init__", "__doc__", "_init_training_state", "train", "_get_dataloader"}
    assert own - inherited == expected.keys(), "the list above is whole"
