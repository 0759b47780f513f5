"""Arguments, models and datasets that the trainers take, and those that they refuse."""

import dataclasses
import inspect
import os
import re
from pathlib import Path

import datasets
import grpo_runs
import item_tokenizer_runs
import pytest
import recommender_runs
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from transformers import Trainer, TrainingArguments
from trl import GRPOConfig, GRPOTrainer

from etegrec_hf import (
    ETEGRecGRPOConfig,
    ETEGRecGRPOTrainer,
    ETEGRecTrainer,
    ETEGRecTrainingArguments,
    RQVAETrainer,
    RQVAETrainingArguments,
    SequenceDataset,
)
from etegrec_hf.data.sequences import WholeSequenceDataset
from etegrec_hf.training.base.refusals import (
    REFUSED_ARGUMENTS,
    REFUSED_COMPILATION,
    REFUSED_FIELDS,
    REFUSED_WITH_RANKING,
)
from etegrec_hf.training.collaborative.arguments import CollaborativeSizes, CollaborativeTrainingArguments
from etegrec_hf.training.collaborative.model import build_collaborative_model
from etegrec_hf.training.collaborative.trainer import CollaborativeTrainer
from etegrec_hf.training.grpo.arguments import NO_MEANING, REFUSED_WITH_GROUPS
from etegrec_hf.training.item_tokenizer.trainer import ItemEmbeddingDataset
from etegrec_hf.training.recommender.arguments import REFUSED_IN_ALTERNATION


def words(text: str) -> set[str]:
    return set(text.split())


RANKED = REFUSED_FIELDS | REFUSED_WITH_RANKING
REFUSED = {
    RQVAETrainingArguments: REFUSED_FIELDS,
    CollaborativeTrainingArguments: RANKED,
    ETEGRecTrainingArguments: RANKED | REFUSED_COMPILATION | REFUSED_IN_ALTERNATION,
    ETEGRecGRPOConfig: RANKED | REFUSED_COMPILATION | REFUSED_WITH_GROUPS | NO_MEANING,
}
# Fields that act in every training: by Trainer, by accelerate, or by the command that reads them
ACTING = words(
    """
    output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type
    lr_scheduler_kwargs warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon
    optim_target_modules gradient_accumulation_steps max_grad_norm bf16 fp16 bf16_full_eval fp16_full_eval tf32
    use_cache torch_empty_cache_steps logging_strategy logging_steps logging_first_step log_on_each_node log_level
    log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id
    trackio_static_space_id eval_strategy eval_steps eval_delay per_device_eval_batch_size eval_on_start
    eval_accumulation_steps save_only_model save_strategy save_steps save_on_each_node save_total_limit push_to_hub
    hub_token hub_private_repo hub_model_id hub_strategy hub_revision load_best_model_at_end metric_for_best_model
    greater_is_better ignore_data_skip restore_callback_states_from_checkpoint full_determinism seed data_seed use_cpu
    accelerator_config dataloader_drop_last dataloader_num_workers dataloader_pin_memory
    dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order
    ddp_backend ddp_timeout fsdp_config debug skip_memory_metrics do_train do_eval do_predict resume_from_checkpoint
    local_rank
    """
)
# Those that act in some trainings and are refused in others
ACTING_SOMEWHERE = {
    *("average_tokens_across_devices", "activation_checkpointing", "activation_checkpointing_kwargs"),
    *("gradient_checkpointing", "gradient_checkpointing_kwargs", "train_sampling_strategy", "length_column_name"),
    *("prediction_loss_only", "eval_do_concat_batches", *REFUSED_COMPILATION, *REFUSED_IN_ALTERNATION),
}
ACTING_IN_GRPO = words(
    """
    num_generations max_completion_length shuffle_dataset generation_batch_size steps_per_generation
    temperature top_k beta num_iterations epsilon delta epsilon_high sapo_temperature_neg sapo_temperature_pos
    vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg importance_sampling_level reward_weights
    multi_objective_aggregation scale_rewards loss_type top_entropy_quantile entropy_coef use_adaptive_entropy
    entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target off_policy_mask_threshold
    use_bias_correction_kl log_completions num_completions_to_print log_unique_prompts log_completions_hub_repo
    """
)


def another(value):
    """A value that isn't the default."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return "other"


@pytest.mark.parametrize("arguments", REFUSED, ids=lambda arguments: arguments.__name__)
def test_every_field_acts_or_is_refused(tmp_path, arguments):
    """A new field of transformers or TRL belongs into one of the lists."""
    is_grpo = arguments is ETEGRecGRPOConfig
    fields = {field.name for field in dataclasses.fields(GRPOConfig if is_grpo else TrainingArguments)}
    acting = ACTING | (ACTING_IN_GRPO if is_grpo else set())
    refused = set(REFUSED[arguments])
    assert refused <= fields
    assert not acting & refused
    assert fields - acting - refused <= ACTING_SOMEWHERE, "a field that nobody looked at"
    for name in sorted(refused):
        value = another(getattr(arguments, name, None))
        with pytest.raises(ValueError, match=f"^`{name}` is {re.escape(repr(value))}, .*; leave it at "):
            arguments(str(tmp_path), use_cpu=True, **{name: value})


def test_fields_may_be_given_at_their_defaults(tmp_path):
    for arguments, refused in REFUSED.items():
        defaults = {name: getattr(arguments, name) for name in refused if hasattr(arguments, name)}
        arguments(str(tmp_path), use_cpu=True, **defaults)
        arguments(str(tmp_path), use_cpu=True, include_num_input_tokens_seen=False, fsdp="", include_for_metrics=[])


def test_compilation_that_is_refused_is_not_left_switched_on(tmp_path, monkeypatch):
    """Transformers writes it into the environment, where accelerate would find it in the next training."""
    monkeypatch.delenv("ACCELERATE_DYNAMO_BACKEND", raising=False)
    with pytest.raises(ValueError, match="`torch_compile_backend` is 'eager', which isn't supported"):
        ETEGRecGRPOConfig(str(tmp_path), use_cpu=True, torch_compile_backend="eager")
    assert "ACCELERATE_DYNAMO_BACKEND" not in os.environ


def test_the_documents_name_all_that_is_refused():
    text = Path(__file__).parents[2].joinpath("docs", "training.md").read_text(encoding="utf-8")
    names = set().union(*REFUSED.values(), REFUSED_ARGUMENTS, ETEGRecGRPOTrainer.refused_arguments)
    names = {name for name in names if not name.startswith("vllm_")}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


# Trainers


def trainers(prepared, folder) -> dict:
    """Returns a function per trainer that makes it from a model, arguments and options."""
    quiet = {"use_cpu": True, "disable_tqdm": True, "report_to": []}
    embeddings = torch.from_numpy(prepared.embeddings)
    samples = SequenceDataset.for_training(prepared.train, 20)
    recommender, tokenizer = recommender_runs.make_trainer(prepared, folder), grpo_runs.make_trainer(prepared, folder)
    item_tokenizer = item_tokenizer_runs.make_trainer(embeddings[:, :8], folder)
    collaborative = build_collaborative_model(prepared.n_items, CollaborativeSizes(8, 1, 1, 0.0, 6))
    once = quiet | {"eval_strategy": "no", "load_best_model_at_end": False, "save_strategy": "no"}
    return {
        RQVAETrainer: (item_tokenizer.model, item_tokenizer.args, {"embeddings": embeddings[:, :8]}),
        CollaborativeTrainer: (
            collaborative,
            CollaborativeTrainingArguments(str(folder), early_stopping_patience=0, **once),
            {"data": prepared},
        ),
        ETEGRecTrainer: (
            recommender.model,
            ETEGRecTrainingArguments(str(folder), **once),
            {"item_ids": prepared.item_ids, "train_dataset": samples},
        ),
        ETEGRecGRPOTrainer: (
            tokenizer.model,
            ETEGRecGRPOConfig(str(folder), early_stopping_patience=0, **once),
            {
                "reward_funcs": [grpo_runs.by_place],
                "train_dataset": samples,
                "processing_class": tokenizer.processing_class,
            },
        ),
    }


TRAINERS = [RQVAETrainer, CollaborativeTrainer, ETEGRecTrainer, ETEGRecGRPOTrainer]


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.__name__)
def test_every_argument_of_a_trainer_acts_or_is_refused(prepared, tmp_path, trainer):
    library = GRPOTrainer if trainer is ETEGRecGRPOTrainer else Trainer
    library_names = set(inspect.signature(library.__init__).parameters) - {"self"}
    refused = set(trainer.refused_arguments)
    acting = {"model", "args", "callbacks"} | {
        RQVAETrainer: {"eval_dataset"},
        CollaborativeTrainer: set(),
        ETEGRecTrainer: {"train_dataset", "eval_dataset"},
        ETEGRecGRPOTrainer: {"train_dataset", "eval_dataset", "processing_class", "reward_funcs"},
    }[trainer]
    assert library_names <= acting | refused, "an argument that nobody looked at"
    model, args, others = trainers(prepared, tmp_path)[trainer]
    for name in sorted(refused):
        with pytest.raises(ValueError, match=f"`{name}` is given, which this trainer can't use: "):
            trainer(model=None if name == "model_init" else model, args=args, **others | {name: lambda *_: None})
    nothing = dict.fromkeys(refused) | {"optimizers": (None, None)}
    assert isinstance(trainer(model=model, args=args, **others | nothing), trainer)


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.__name__)
def test_models_and_arguments_of_another_kind_are_refused(prepared, tmp_path, trainer):
    made = trainers(prepared, tmp_path)
    model, args, others = made[trainer]
    another_kind = made[RQVAETrainer if trainer is not RQVAETrainer else ETEGRecTrainer][0]
    for wrong in ("runs/model", None, another_kind, torch.nn.Linear(1, 1)):
        message = f"`model` is a {type(wrong).__name__}; give the model itself, a `{trainer.model_class.__name__}`"
        with pytest.raises(ValueError, match=message):
            trainer(model=wrong, args=args, **others)
    for wrong in (None, TrainingArguments(str(tmp_path), use_cpu=True)):
        message = f"`args` is a {type(wrong).__name__}; give `{type(args).__name__}`"
        with pytest.raises(ValueError, match=message):
            trainer(model=model, args=wrong, **others)
    with pytest.raises(NotImplementedError, match=r"needs a `model_init`.* a new trainer for each trial"):
        trainer(model=model, args=args, **others).hyperparameter_search(n_trials=1)


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.__name__)
def test_adapters_of_peft_are_refused_until_they_are_merged(prepared, tmp_path, trainer):
    model, args, others = trainers(prepared, tmp_path)[trainer]
    peft = pytest.importorskip("peft")
    layers = {"RQVAETrainer": ["encoder.0"], "CollaborativeTrainer": ["c_attn"]}.get(trainer.__name__, ["q", "v"])
    config = peft.LoraConfig(r=2, target_modules=layers, fan_in_fan_out=trainer is CollaborativeTrainer)
    adapted = peft.get_peft_model(model, config)
    for wrong in (adapted, adapted.get_base_model()):  # the second is what `model.add_adapter` makes
        with pytest.raises(ValueError, match=r"`model` has adapters of PEFT, .* `requires_grad_\(False\)`"):
            trainer(model=wrong, args=args, **others)
    assert isinstance(trainer(model=adapted.merge_and_unload(), args=args, **others), trainer)


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.__name__)
def test_models_in_float16_are_refused(prepared, tmp_path, trainer):
    """AdamW's epsilon is 0 there: weights without a gradient become NaN."""
    model, args, others = trainers(prepared, tmp_path)[trainer]
    with pytest.raises(ValueError, match=r"`model` is in float16, .* load it with `dtype=torch.float32`"):
        trainer(model=model.half(), args=args, **others)
    assert isinstance(trainer(model=model.float(), args=args, **others), trainer)


def test_split_batches_are_refused(prepared, tmp_path):
    with pytest.raises(ValueError, match="`split_batches` of `accelerator_config` is True"):
        recommender_runs.make_trainer(prepared, tmp_path, accelerator_config={"split_batches": True})


def test_an_optimizer_that_chooses_its_weights_is_refused(prepared, tmp_path, monkeypatch):
    trainer = recommender_runs.make_trainer(prepared, tmp_path)
    monkeypatch.setattr(trainer, "get_optimizer_cls_and_kwargs", lambda *_: (torch.optim.SGD, {"params": []}))
    with pytest.raises(ValueError, match="`optim` is 'adamw_torch_fused', which doesn't take groups of weights"):
        trainer.create_optimizer()


# Datasets


def test_datasets_of_another_kind_are_refused(prepared, tmp_path):
    train = SequenceDataset.for_training(prepared.train, 20)
    whole = WholeSequenceDataset(prepared.train, 20)
    table = datasets.Dataset.from_dict({"history": [[1, 2]], "target": [3]})
    rows = {"prompt": [[1, 2]], "target": [3]}
    streamed = datasets.Dataset.from_dict(rows).to_iterable_dataset()
    made = trainers(prepared, tmp_path)
    for trainer, name, wrong, taken in (
        (ETEGRecTrainer, "train_dataset", Subset(train, [0, 1]), "`SequenceDataset`, `WholeSequenceDataset` or `Str"),
        (ETEGRecTrainer, "train_dataset", ConcatDataset([train, train]), "`SequenceDataset`"),
        (ETEGRecTrainer, "train_dataset", [{"history": [1], "target": 2}], "`SequenceDataset`"),
        (ETEGRecTrainer, "train_dataset", table, "`SequenceDataset`"),
        (ETEGRecTrainer, "train_dataset", prepared, "`SequenceDataset`"),
        (ETEGRecTrainer, "eval_dataset", table, "`SequenceDataset`. For some rows"),
        (ETEGRecTrainer, "eval_dataset", whole, "`SequenceDataset`. For some rows"),
        (ETEGRecTrainer, "eval_dataset", [train], "`SequenceDataset`. For some rows"),
        (ETEGRecTrainer, "eval_dataset", {"cold": table}, "`SequenceDataset`. For some rows"),
        (RQVAETrainer, "eval_dataset", TensorDataset(torch.ones(2, 8)), "`ItemEmbeddingDataset`. For some rows"),
        (ETEGRecGRPOTrainer, "train_dataset", streamed, "`SequenceDataset` or `Dataset`"),
        (ETEGRecGRPOTrainer, "train_dataset", whole, "`SequenceDataset` or `Dataset`"),
        (ETEGRecGRPOTrainer, "train_dataset", None, "`SequenceDataset` or `Dataset`"),
        (ETEGRecGRPOTrainer, "eval_dataset", [train], "`SequenceDataset` or `Dataset`"),
        (ETEGRecGRPOTrainer, "eval_dataset", {"cold": streamed}, "`SequenceDataset` or `Dataset`"),
    ):
        model, args, others = made[trainer]
        if name == "eval_dataset" and not isinstance(wrong, dict):
            evaluating = trainer(model=model, args=args, **others)
            with pytest.raises(
                ValueError, match=re.escape(f"`eval_dataset` is a {type(wrong).__name__}; give {taken}")
            ):
                evaluating.evaluate(wrong)
        kind = type(next(iter(wrong.values())) if isinstance(wrong, dict) else wrong).__name__
        named = f"{name}['cold']" if isinstance(wrong, dict) else name
        with pytest.raises(ValueError, match=re.escape(f"`{named}` is a {kind}; give {taken}")):
            trainer(model=model, args=args, **others | {name: wrong})


def test_data_and_embeddings_of_another_kind_are_refused(prepared, tmp_path):
    made = trainers(prepared, tmp_path)
    model, args, _ = made[RQVAETrainer]
    for wrong in (prepared.embeddings[:, :8], torch.ones(8), torch.ones(2, 8).long()):
        with pytest.raises(ValueError, match=r"`embeddings` is a (ndarray|Tensor); give a tensor of floats"):
            RQVAETrainer(model, args, wrong)
    model, args, _ = made[CollaborativeTrainer]
    with pytest.raises(ValueError, match="`data` is a str; give a `PreparedDataset`"):
        CollaborativeTrainer(model, args, "data/mine")


def test_held_out_items_must_be_as_wide_as_the_models(tmp_path):
    embeddings = torch.eye(20, 8)
    with pytest.raises(
        ValueError, match="`embeddings` of `eval_dataset` are 7 wide, but the model's `input_size` is 8"
    ):
        item_tokenizer_runs.make_trainer(embeddings, tmp_path, evaluated=ItemEmbeddingDataset(torch.ones(3, 7)))


@pytest.mark.parametrize("rewards", [None, [], [None]], ids=str)
def test_no_reward_is_an_error(prepared, tmp_path, rewards):
    model, args, others = trainers(prepared, tmp_path)[ETEGRecGRPOTrainer]
    with pytest.raises(ValueError, match=r"(`reward_funcs` is empty|a reward is None); give a function that returns"):
        ETEGRecGRPOTrainer(model=model, args=args, **others | {"reward_funcs": rewards})
