import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from file_modes import umask, unusual_modes
from transformers import EarlyStoppingCallback, GPT2LMHeadModel, TrainerCallback

from etegrec_hf.data.prepared import PreparedDataset, Split
from etegrec_hf.data.sequences import WholeSequenceDataset
from etegrec_hf.data.synthetic import SyntheticProcess
from etegrec_hf.evaluation.baselines import popularity
from etegrec_hf.evaluation.collaborative import load_collaborative_model, rank_split
from etegrec_hf.evaluation.metrics import ranking_metrics
from etegrec_hf.training.collaborative.arguments import CollaborativeSizes, CollaborativeTrainingArguments
from etegrec_hf.training.collaborative.model import build_collaborative_model, collaborative_embedding
from etegrec_hf.training.collaborative.trainer import CollaborativeTrainer, describe_training

SIZES = CollaborativeSizes(width=16, num_layers=1, num_heads=2, dropout_rate=0.1, max_history=6)


def make_trainer(data, folder, callbacks=(), dropout_rate=0.1, **options) -> CollaborativeTrainer:
    torch.manual_seed(0)
    model = build_collaborative_model(data.n_items, replace(SIZES, dropout_rate=dropout_rate))
    defaults = {"num_train_epochs": 3, "per_device_train_batch_size": 16, "use_cpu": True, "disable_tqdm": True}
    arguments = CollaborativeTrainingArguments(str(folder), **(defaults | options))
    return CollaborativeTrainer(model, arguments, data, callbacks=[*callbacks])


def split_of(rows: list[list[int]]) -> Split:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return Split([str(row) for row in range(len(rows))], np.concatenate(rows), offsets)


def test_every_item_after_the_first_is_a_target_once():
    dataset = WholeSequenceDataset(split_of([[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11, 12]]), max_history=3)
    batch = dataset.__getitems__([0, 1, 2, 3])
    assert batch["input_ids"].tolist() == [[1, 2, 0], [5, 6, 7], [8, 9, 10], [11, 0, 0]]
    assert batch["labels"].tolist() == [[2, 3, 0], [6, 7, 8], [9, 10, 11], [12, 0, 0]]
    assert dataset[3]["labels"].tolist() == [12]
    with pytest.raises(ValueError, match="no training sequence has two items"):
        WholeSequenceDataset(split_of([[1], [2]]), max_history=3)


def test_the_loss_is_that_of_each_real_position(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path)
    model = trainer.model.eval()
    batch = trainer.train_dataset.__getitems__([0, 5, 9])
    losses = []
    for items, labels in zip(batch["input_ids"], batch["labels"]):
        for position in range(int((labels > 0).sum())):
            logits = model(input_ids=items[: position + 1].unsqueeze(0)).logits[0, -1]
            losses.append(F.cross_entropy(logits, labels[position]))
    assert trainer.compute_loss(model, batch).item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_accumulated_gradients_are_the_mean_of_their_batches(prepared, tmp_path):
    """Not four times as much, as a Trainer gives a model whose forward takes any argument."""
    seen: dict[str, torch.Tensor] = {}

    class Gradients(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            seen.update({name: weight.grad.clone() for name, weight in model.named_parameters()})

    options = {"max_steps": 1, "gradient_accumulation_steps": 4, "max_grad_norm": 0.0, "eval_strategy": "no"}
    options |= {"save_strategy": "no", "load_best_model_at_end": False, "early_stopping_patience": 0}
    trainer = make_trainer(prepared, tmp_path, [Gradients()], dropout_rate=0.0, **options)
    model = copy.deepcopy(trainer.model)
    order = list(trainer._get_train_sampler())
    trainer.train()
    for start in range(0, 64, 16):
        batch = trainer.train_dataset.__getitems__(order[start : start + 16])
        (trainer.compute_loss(model, batch) / 4).backward()
    for name, weight in model.named_parameters():
        assert torch.allclose(seen[name], weight.grad, atol=1e-6), name


@pytest.mark.parametrize("is_frozen", [False, True])
def test_item_embeddings_move_as_far_as_asked(prepared, tmp_path, is_frozen):
    """Adam's first update moves every weight with a gradient by the learning rate."""
    options = {"max_steps": 1, "learning_rate": 1e-4, "lr_scheduler_type": "constant", "warmup_steps": 0}
    options |= {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "weight_decay": 0.0}
    trainer = make_trainer(prepared, tmp_path, early_stopping_patience=0, item_gain=10.0, **options)
    items = trainer.model.get_input_embeddings().weight.requires_grad_(not is_frozen)
    before = copy.deepcopy(trainer.model)
    trainer.train()
    weights = dict(trainer.model.named_parameters())
    moved = {name: (weights[name] - weight).abs().max().item() for name, weight in before.named_parameters()}
    of_items = moved.pop(next(name for name, weight in weights.items() if weight is items))
    assert of_items == pytest.approx(0 if is_frozen else 1e-3, rel=0.01)
    assert max(moved.values()) == pytest.approx(1e-4, rel=0.01)


def test_item_embeddings_decay_as_much_as_layers(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path, item_gain=10.0, learning_rate=1e-4, weight_decay=0.5)
    groups = trainer.create_optimizer().param_groups
    rates = {id(weight): group["lr"] * group["weight_decay"] for group in groups for weight in group["params"]}
    model = trainer.model
    of_items, of_layers = model.get_input_embeddings().weight, model.transformer.h[0].mlp.c_fc.weight
    assert rates[id(of_items)] == pytest.approx(rates[id(of_layers)])
    assert len(rates) == len(list(model.parameters()))


@pytest.mark.parametrize(("given", "expected"), [(None, 0.3), (0.0, 0.0), (0.2, 0.2)])
def test_dropout_of_attention_is_that_of_layers_unless_given(given, expected):
    sizes = CollaborativeSizes(width=8, num_heads=2, dropout_rate=0.3, attention_dropout_rate=given)
    config = build_collaborative_model(4, sizes).config
    assert (config.attn_pdrop, config.resid_pdrop, config.embd_pdrop) == (expected, 0.3, 0.3)


def test_training_stops_early_and_keeps_the_best(prepared, tmp_path, caplog):
    trainer = make_trainer(prepared, tmp_path, num_train_epochs=30, learning_rate=0.05, early_stopping_patience=2)
    trainer.train()
    scores = [entry["eval_ndcg@10"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
    assert len(scores) < 30
    assert len(scores) - 1 - int(np.argmax(scores)) == 2
    assert trainer.evaluate()["eval_ndcg@10"] == max(scores)
    assert "missing keys" not in caplog.text


def test_what_chooses_the_epoch_is_validation(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path)
    assert trainer.eval_dataset.sequences is prepared.validation.sequences
    assert sorted(prepared.validation.targets) == sorted(
        trainer.eval_dataset.__getitems__(list(range(len(trainer.eval_dataset))))["target"].tolist()
    )
    with pytest.raises(ValueError, match=r"`early_stopping_patience` is 3 and `eval_strategy` is 'no'; .* to 0"):
        CollaborativeTrainingArguments(str(tmp_path), eval_strategy="no", load_best_model_at_end=False, use_cpu=True)


def test_metrics_are_of_the_weights_that_are_kept(prepared, tmp_path):
    too_fast = 0.2  # a rate at which the last epochs make the model worse
    trainer = make_trainer(
        prepared, tmp_path, learning_rate=too_fast, num_train_epochs=4, load_best_model_at_end=False
    )
    trainer.train()
    scores = [entry["eval_ndcg@10"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
    assert scores[-1] != max(scores), "the last epoch is not the best in this run"
    made = describe_training(trainer, SIZES)
    assert made["steps"] == trainer.state.global_step
    assert made["validation"]["ndcg@10"] == pytest.approx(scores[-1], abs=1e-5)


def test_a_catalogue_of_few_items_is_trained_on(prepared, tmp_path):
    few = [replace(split, sequences=split.sequences % 8 + 1) for split in (prepared.train, prepared.validation)]
    data = replace(prepared, item_ids=[str(item) for item in range(8)], train=few[0], validation=few[1])
    trainer = make_trainer(data, tmp_path, num_train_epochs=1)
    trainer.train()
    assert trainer.state.best_metric is not None


def test_checkpoints_have_the_modes_that_the_umask_gives(prepared, tmp_path):
    with umask(0o027):
        make_trainer(prepared, tmp_path, num_train_epochs=1).train()
    assert unusual_modes(tmp_path, 0o027) == {}


def test_other_items_are_not_resumed(prepared, tmp_path):
    make_trainer(prepared, tmp_path, num_train_epochs=1).train()
    other = replace(prepared, item_ids=prepared.item_ids[::-1])
    with pytest.raises(
        ValueError, match="not trained on this dataset's 60 items, but on the same items in another order"
    ):
        make_trainer(other, tmp_path).train(resume_from_checkpoint=True)


def test_a_run_that_reads_other_samples_is_not_resumed(prepared, tmp_path):
    make_trainer(prepared, tmp_path, num_train_epochs=1).train()
    for options, message in (
        ({"seed": 9}, "`seed` is 9, but 42 in the checkpoint"),
        ({"per_device_train_batch_size": 8}, "`per_device_train_batch_size` is 8, but 16 in the checkpoint"),
    ):
        with pytest.raises(ValueError, match=message):
            make_trainer(prepared, tmp_path, **options).train(resume_from_checkpoint=True)
    rows = [prepared.train.row(row).tolist() for row in range(len(prepared.train))]
    other = replace(prepared, train=split_of([rows[0][::-1], *rows[1:]]))
    with pytest.raises(ValueError, match="is of another dataset: the fingerprint of its `train` is"):
        make_trainer(other, tmp_path).train(resume_from_checkpoint=True)


def test_resuming_uses_the_patience_of_this_run(prepared, tmp_path):
    make_trainer(prepared, tmp_path, num_train_epochs=1).train()
    again = make_trainer(prepared, tmp_path, num_train_epochs=2, early_stopping_patience=9)
    again.train(resume_from_checkpoint=True)
    stopping = [one for one in again.callback_handler.callbacks if isinstance(one, EarlyStoppingCallback)]
    assert [one.early_stopping_patience for one in stopping] == [9]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"max_history": 0}, "`max_history` is 0; give 1 or more"),
        ({"width": 16, "num_heads": 3}, "`width` is 16 and `num_heads` is 3; give a width"),
        ({"dropout_rate": 1.0}, "`dropout_rate` is 1.0; give a number from 0 to less"),
        ({"attention_dropout_rate": -0.1}, "`attention_dropout_rate` is -0.1; give a number from 0 to less"),
    ],
)
def test_odd_sizes_are_an_error(sizes, message):
    with pytest.raises(ValueError, match=message):
        CollaborativeSizes(**sizes)


def test_a_gain_of_nothing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"`item_gain` is 0\.0; give a number above 0"):
        CollaborativeTrainingArguments(str(tmp_path), item_gain=0.0, use_cpu=True)


@pytest.mark.slow
def test_training_beats_popularity_and_saves_what_a_stranger_loads(tmp_path):
    process = SyntheticProcess(n_users=600, n_items=60, n_clusters=4, width=12, seed=3)
    optimum = process.write(tmp_path / "data")["recall@10"]
    data = PreparedDataset.load(tmp_path / "data")
    trainer = make_trainer(data, tmp_path / "run", num_train_epochs=25, learning_rate=5e-3, warmup_steps=20)
    trainer.train()
    trainer.save_model()
    model = load_collaborative_model(tmp_path / "run", data)
    reached = ranking_metrics(rank_split(model, data.test, 50), data.test.targets)["recall@10"]
    simple = ranking_metrics(popularity(data, data.test), data.test.targets)["recall@10"]
    assert reached > simple + 0.5 * (optimum - simple), (simple, reached, optimum)
    plain = GPT2LMHeadModel.from_pretrained(tmp_path / "run").eval()
    history = torch.from_numpy(data.test.sequences[: data.test.offsets[1] - 1][-6:]).unsqueeze(0)
    scores = plain(input_ids=history).logits[0, -1, 1:]
    assert scores.topk(5).indices.tolist() == (rank_split(model, data.test, 5)[0] - 1).tolist()
    made = describe_training(trainer, SIZES)
    best = max(entry["eval_ndcg@10"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry)
    assert made["validation"]["ndcg@10"] == pytest.approx(best, abs=1e-5)
    assert made["steps"] == trainer.state.best_global_step
    assert (made["trained_steps"], made["planned_steps"]) == (trainer.state.global_step, trainer.state.max_steps)


def test_no_validation_or_test_item_reaches_the_embedding(prepared, tmp_path):
    def shuffled(split: Split) -> Split:
        sequences = split.sequences.copy()
        sequences[split.offsets[1:] - 1] = np.random.default_rng(0).permutation(split.targets)
        return replace(split, sequences=sequences)

    other = replace(prepared, validation=shuffled(prepared.validation), test=shuffled(prepared.test))
    options = {"load_best_model_at_end": False, "early_stopping_patience": None}
    embeddings = []
    for number, data in enumerate((prepared, other)):
        trainer = make_trainer(data, tmp_path / str(number), **options)
        trainer.train()
        embeddings.append(collaborative_embedding(trainer.model, data))
    assert (prepared.validation.targets != other.validation.targets).any()
    assert (embeddings[0] == embeddings[1]).all()


def test_items_that_training_does_not_know_are_zero(prepared, tmp_path):
    row = prepared.train.sequences[0]
    kept = np.where(
        prepared.train.sequences == row, prepared.n_items - (row == prepared.n_items), prepared.train.sequences
    )
    data = replace(prepared, train=replace(prepared.train, sequences=kept))
    values = collaborative_embedding(build_collaborative_model(data.n_items, SIZES), data)
    assert values.shape == (data.n_items, 16)
    assert not values[row - 1].any()
    assert values[kept[0] - 1].any()


def test_resuming_equals_no_interruption(prepared, tmp_path):
    class Stop(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.epoch >= 1

    whole = make_trainer(prepared, tmp_path / "whole")
    whole.train()
    make_trainer(prepared, tmp_path / "parts", [Stop()]).train()
    again = make_trainer(prepared, tmp_path / "parts")
    again.train(resume_from_checkpoint=True)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    for checkpoint in (tmp_path / "parts").glob("checkpoint-*"):
        assert json.loads((checkpoint / "item_ids.json").read_text()) == prepared.item_ids
