"""Arguments of transformers act where this package overrides methods of Trainer."""

from functools import partial

import grpo_runs
import pytest
import recommender_runs
import torch

from etegrec_hf import StreamedSequences
from etegrec_hf.data.sequences import SequenceDataset
from etegrec_hf.hub.dataset_folder import training_files
from etegrec_hf.training.base.arguments import order_seed
from etegrec_hf.training.base.recording import changed_arguments
from etegrec_hf.training.collaborative.arguments import CollaborativeSizes, CollaborativeTrainingArguments
from etegrec_hf.training.collaborative.model import build_collaborative_model
from etegrec_hf.training.collaborative.trainer import CollaborativeTrainer
from etegrec_hf.training.recommender.arguments import ETEGRecTrainingArguments, FinetuningArguments

PREFIXES = partial(SequenceDataset.for_training, max_history=20)
UNEVALUATED = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}


def recommender_order(prepared, folder, **options) -> list:
    loader = recommender_runs.make_trainer(prepared, folder, **options).get_train_dataloader()
    return [batch["target"].tolist() for batch in loader]


def streamed_order(prepared, folder, files, **options) -> list:
    trainer = recommender_runs.make_trainer(prepared, folder, **options)
    trainer.train_dataset = StreamedSequences(files, prepared.item_ids, PREFIXES, buffer_rows=50)
    return [batch["target"].tolist() for batch in trainer.get_train_dataloader()]


def grpo_order(prepared, folder, **options) -> list:
    return list(grpo_runs.make_trainer(prepared, folder, **options)._get_train_sampler())


def collaborative_order(prepared, folder, **options) -> list:
    arguments = CollaborativeTrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, **options)
    model = build_collaborative_model(prepared.n_items, CollaborativeSizes(8, 1, 1, 0.0, 6))
    return list(CollaborativeTrainer(model, arguments, prepared)._get_train_sampler())


@pytest.mark.parametrize(
    ("order", "options"),
    [
        (recommender_order, {}),
        (recommender_order, {"max_tokens_per_batch": 300}),
        (grpo_order, {}),
        (collaborative_order, {}),
    ],
)
def test_the_order_of_samples_is_the_data_seeds(prepared, tmp_path, order, options):
    def ordered(**seeds) -> list:
        return order(prepared, tmp_path / str(len(list(tmp_path.iterdir()))), **options, **seeds)

    of_seed = ordered(seed=1)
    assert ordered(seed=1, data_seed=9) != of_seed
    assert ordered(seed=1, data_seed=9) == ordered(seed=2, data_seed=9) == ordered(seed=9)
    assert ordered(seed=5, data_seed=1) == of_seed


@pytest.mark.parametrize("options", [{}, {"max_tokens_per_batch": 300}])
def test_the_order_of_streamed_samples_is_the_data_seeds(prepared, prepared_folder, tmp_path, options):
    files = training_files(prepared_folder)
    one, other, neither = (
        streamed_order(prepared, tmp_path, files, **options, **seeds)
        for seeds in ({"seed": 1, "data_seed": 9}, {"seed": 9}, {"seed": 1})
    )
    assert one == other != neither


def test_a_checkpoint_of_another_data_seed_is_not_resumed(prepared, tmp_path):
    often = recommender_runs.SAVED_OFTEN | {"save_steps": 1}
    trainer = recommender_runs.make_trainer(prepared, tmp_path, callbacks=[lambda _: recommender_runs.Stop()], **often)
    trainer.train()
    again = recommender_runs.make_trainer(prepared, tmp_path, **often | {"data_seed": 4})
    with pytest.raises(ValueError, match=r"`data_seed` is 4, but None in the checkpoint .* other samples"):
        again.train(resume_from_checkpoint=True)


def test_incomplete_batches_are_dropped_and_the_schedule_knows(prepared, tmp_path):
    options = UNEVALUATED | {"num_train_epochs": 2, "dataloader_drop_last": True, "lr_scheduler_type": "linear"}
    trainer = recommender_runs.make_trainer(prepared, tmp_path, **options)
    samples = len(trainer.train_dataset)
    assert samples % 64, "something is left over"
    assert trainer.batches_per_epoch() == len(trainer.get_train_dataloader()) == samples // 64
    trainer.train()
    assert trainer.state.global_step == 2 * (samples // 64)
    assert trainer.lr_scheduler.steps == [samples // 64, samples // 64], "one epoch each"
    with pytest.raises(ValueError, match="`dataloader_drop_last` is True, but `max_tokens_per_batch` is 300"):
        recommender_runs.make_trainer(prepared, tmp_path, max_tokens_per_batch=300, dataloader_drop_last=True)


def test_loaders_of_our_own_follow_the_arguments(prepared, tmp_path):
    options = {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 3, "dataloader_in_order": False,
               "dataloader_multiprocessing_context": "spawn"}  # fmt: skip
    trainer = recommender_runs.make_trainer(prepared, tmp_path, max_tokens_per_batch=300, **options)
    loader = trainer.get_train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.in_order) == (1, 3, False)
    assert loader.multiprocessing_context.get_start_method() == "spawn"


def test_an_optimizer_with_options_of_its_own_gets_both_rates_and_the_decay(prepared, tmp_path):
    options = {"optim": "sgd", "optim_args": "momentum=0.5", "weight_decay": 0.25, "learning_rate": 0.5}
    optimizer = recommender_runs.make_trainer(prepared, tmp_path, **options).create_optimizer()
    assert isinstance(optimizer, torch.optim.SGD)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 1e-3]
    assert {(group["weight_decay"], group["momentum"]) for group in optimizer.param_groups} == {(0.25, 0.5)}


def test_an_optimizer_that_brings_a_decay_is_made(prepared, tmp_path, monkeypatch):
    trainer = recommender_runs.make_trainer(prepared, tmp_path, weight_decay=0.25)
    options = {"lr": 1.0, "weight_decay": 0.125}  # as schedule-free optimizers do
    monkeypatch.setattr(trainer, "get_optimizer_cls_and_kwargs", lambda *_: (torch.optim.AdamW, options))
    assert {group["weight_decay"] for group in trainer.create_optimizer().param_groups} == {0.25}


def test_what_a_script_was_told_to_do_is_not_recorded(prepared, tmp_path):
    arguments = FinetuningArguments(str(tmp_path), use_cpu=True, do_train=True, do_predict=True, data_seed=9)
    assert changed_arguments(arguments) == {"use_cpu": True, "data_seed": 9}
    assert order_seed(arguments) == 9


@pytest.mark.parametrize(
    ("options", "recorded"),
    [
        ({"max_steps": 5, "num_train_epochs": 7}, {"max_steps"}),
        ({"max_tokens_per_batch": 300, "per_device_train_batch_size": 7}, {"max_tokens_per_batch"}),
        ({"cycle": 3, "vq_weight": 2.0, "tokenizer_learning_rate": 0.5}, set()),
        ({"temperature": 0.5, "gather_negatives": True}, set()),
        ({"temperature": 0.5, "psa_weight": 0.5}, {"temperature", "psa_weight"}),
    ],
)
def test_arguments_that_others_override_are_not_recorded(tmp_path, options, recorded):
    assert changed_arguments(FinetuningArguments(str(tmp_path), **options)).keys() == recorded


def test_arguments_that_others_override_may_change_when_a_run_is_resumed(prepared, tmp_path):
    often = recommender_runs.SAVED_OFTEN | {"save_steps": 1, "max_tokens_per_batch": 300}
    trainer = recommender_runs.make_trainer(prepared, tmp_path, callbacks=[lambda _: recommender_runs.Stop()], **often)
    trainer.train()
    again = recommender_runs.make_trainer(prepared, tmp_path, **often | {"per_device_train_batch_size": 5})
    again.check_checkpoint(str(tmp_path / "checkpoint-1"))


def test_reinforcement_learning_applies_no_dropout(prepared, tmp_path):
    """As the refusal of `disable_dropout` says: completions are scored alike twice, which a loss isn't."""
    rates = {"dropout_rate": 0.5, "decoder_dropout_rate": 0.5, "attention_dropout_rate": 0.5}
    trainer = grpo_runs.make_trainer(prepared, tmp_path, model=grpo_runs.tiny_model(prepared, **rates))
    model = trainer.model.train()
    inputs = model.catalogue.inputs_from_items(torch.tensor([[1, 2, 3]]))
    items = model.catalogue.item_tokens[torch.tensor([4, 9, 1, 2])]  # a group of completions
    ids = torch.cat([inputs["input_ids"].repeat(4, 1), items], dim=1)
    scores = [trainer._score(model, ids, torch.ones_like(ids), items.shape[1])[0] for _ in range(2)]
    assert torch.equal(*scores)
    losses = {model(**inputs, labels=items[:1]).loss.item() for _ in range(3)}
    assert len(losses) == 3, "elsewhere there is dropout"


def test_a_choice_of_codes_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`code_strategy` is 'none'; choose one of forge, count, balance\."):
        ETEGRecTrainingArguments(str(tmp_path), code_strategy="none")


def test_no_early_stopping_is_recorded(tmp_path):
    assert changed_arguments(FinetuningArguments(str(tmp_path), early_stopping_patience=0)) == {
        "early_stopping_patience": None
    }


def test_an_order_noise_that_the_samples_lack_is_refused(prepared, tmp_path):
    with pytest.raises(ValueError, match=r"`order_noise` is 2, but that of `train_dataset` is 0\.0; give the same"):
        recommender_runs.make_trainer(prepared, tmp_path, order_noise=2)
