import json
from pathlib import Path

import pytest
import torch
from conftest import make_model, random_codes, random_histories

from etegrec_hf import ETEGRecForConditionalGeneration, ETEGRecTokenizer, ETEGRecTrainer, ETEGRecTrainingArguments
from etegrec_hf.data.sequences import SequenceDataset
from etegrec_hf.evaluation.metrics import ranking_metrics
from etegrec_hf.training.arguments import FinetuningArguments
from etegrec_hf.training.checkpoints import last_checkpoint
from etegrec_hf.training.losses import preference_semantic_alignment, sequence_item_alignment
from etegrec_hf.training.trainer import model_inputs


def make_trainer(prepared, folder, arguments=ETEGRecTrainingArguments, callbacks=(), **options) -> ETEGRecTrainer:
    """A trainer of a tiny recommender on the tiny data."""
    model = make_model(random_codes(prepared.n_items, 3, 8), 8)
    model.set_semantic_embedding(torch.from_numpy(prepared.embeddings))
    defaults = {
        "num_train_epochs": 4,
        "warm_epochs": 2,
        "per_device_train_batch_size": 32,
        "learning_rate": 1e-3,
        "tokenizer_learning_rate": 1e-3,
        "num_beams": 10,
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 1,
    }
    trainer = ETEGRecTrainer(
        model,
        arguments(str(folder), **(defaults | options)),
        prepared.item_ids,
        SequenceDataset(prepared.train, 20, every_position=True),
        SequenceDataset(prepared.validation, 20, every_position=False),
    )
    for callback in callbacks:
        trainer.add_callback(callback(trainer))
    return trainer


def sides(model) -> dict[str, dict[str, torch.Tensor]]:
    """Copies of all weights, of the tokenizer and of the recommender."""
    state = {name: tensor.clone() for name, tensor in model.named_parameters()}
    own = {name: tensor for name, tensor in state.items() if name.startswith("item_tokenizer.")}
    return {"tokenizer": own, "recommender": {name: state[name] for name in state.keys() - own.keys()}}


def unchanged(before: dict, after: dict) -> bool:
    return all(torch.equal(before[name], after[name]) for name in before)


def recorder(seen: list):
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):
        def __init__(self, trainer):
            self.trainer = trainer

        def on_epoch_begin(self, args, state, control, model=None, **kwargs):
            self.before, self.codes = sides(model), model.item_codes.clone()

        def on_epoch_end(self, args, state, control, model=None, **kwargs):
            changed = {side: not unchanged(self.before[side], weights) for side, weights in sides(model).items()}
            seen.append((self.trainer.phase, changed, not torch.equal(self.codes, model.item_codes)))

    return Recorder


def test_each_phase_moves_its_own_side_only(prepared, tmp_path):
    seen: list = []
    trainer = make_trainer(prepared, tmp_path, callbacks=[recorder(seen)], cycle=2)
    trainer.train()
    tokenizer = ("tokenizer", {"tokenizer": True, "recommender": False}, True)
    recommender = ("recommender", {"tokenizer": False, "recommender": True}, False)
    assert seen == [tokenizer, recommender, tokenizer, recommender]
    assert all(parameter.requires_grad for parameter in trainer.model.parameters()), "all thawed at the end"


def test_finetuning_moves_the_recommender_on_frozen_codes(prepared, tmp_path):
    seen: list = []
    options = {"num_train_epochs": 1, "learning_rate": 1e-3}
    make_trainer(prepared, tmp_path, FinetuningArguments, [recorder(seen)], **options).train()
    assert seen == [("finetune", {"tokenizer": False, "recommender": True}, False)]


def test_a_finished_run_can_be_loaded_and_agrees_with_itself(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path)
    trainer.train()
    trainer.save_model()
    model = ETEGRecForConditionalGeneration.from_pretrained(tmp_path)
    tokenizer = ETEGRecTokenizer.from_pretrained(tmp_path)
    model.check_item_ids(tokenizer)
    assert torch.equal(model.item_codes, trainer.model.item_codes)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [set(entry) & {"loss_vq", "loss_code"} for entry in logs] == [{"loss_vq"}, {"loss_code"}] * 2
    assert ["loss_sia" in entry and "loss_psa" in entry for entry in logs] == [False, False, True, True], "warm-up"
    assert all("changed_codes" in entry for entry in logs[::2])
    evaluated = [entry["epoch"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
    assert evaluated == [2, 4], "not after tokenizer epochs, whose codes the recommender hasn't seen"


def test_the_best_checkpoint_is_what_remains(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path, num_train_epochs=6)
    trainer.train()
    scores = [entry["eval_ndcg@10"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
    assert trainer.state.best_metric == max(scores)
    best = ETEGRecForConditionalGeneration.from_pretrained(trainer.state.best_model_checkpoint)
    for name, tensor in best.state_dict().items():
        assert torch.equal(tensor, trainer.model.state_dict()[name]), name
    assert trainer.evaluate()["eval_ndcg@10"] == pytest.approx(max(scores))


@pytest.mark.parametrize("stop_after", ["tokenizer", "recommender"])
def test_resuming_equals_no_interruption(prepared, tmp_path, stop_after):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def __init__(self, trainer):
            self.trainer = trainer

        def on_epoch_end(self, args, state, control, **kwargs):
            control.should_training_stop = self.trainer.phase == stop_after and state.epoch > 0.5

    options = {"load_best_model_at_end": False, "lr_scheduler_type": "cosine", "early_stopping_patience": None}
    whole = make_trainer(prepared, tmp_path / "whole", **options)
    whole.train()
    make_trainer(prepared, tmp_path / "parts", callbacks=[Stop], **options).train()
    again = make_trainer(prepared, tmp_path / "parts", **options)
    again.train(resume_from_checkpoint=last_checkpoint(tmp_path / "parts"))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    last = [[entry for entry in run.state.log_history if "eval_ndcg@10" in entry][-1] for run in (whole, again)]
    assert last[0]["eval_ndcg@10"] == last[1]["eval_ndcg@10"]


def test_resuming_within_an_epoch_equals_no_interruption(prepared, tmp_path):
    options = {"load_best_model_at_end": False, "num_train_epochs": 2, "eval_strategy": "no"}
    whole = make_trainer(prepared, tmp_path / "whole", **options)
    whole.train()
    steps = whole.state.global_step // 2
    half = {"save_strategy": "steps", "save_steps": steps + steps // 2}
    make_trainer(prepared, tmp_path / "parts", **options, **half, save_total_limit=None).train()
    first = min(tmp_path.glob("parts/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    again = make_trainer(prepared, tmp_path / "parts", **options)
    again.train(resume_from_checkpoint=str(first))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_the_same_seed_gives_the_same_numbers(prepared, tmp_path):
    states = []
    for name in ("one", "two"):
        run = make_trainer(prepared, tmp_path / name, num_train_epochs=2)
        run.train()
        states.append(run.model.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_the_recommender_loss_by_hand(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path, sia_weight=0.5, psa_weight=0.25, temperature=0.2, code_weight=2.0)
    model = trainer.model
    batch = {"history": random_histories(model, [3, 3, 2, 1]), "target": torch.tensor([5, 9, 5, 7])}
    trainer.enter_phase("recommender", aligned=True)
    torch.manual_seed(0)
    loss = trainer.compute_loss(model, batch)
    torch.manual_seed(0)  # the same dropout
    output = model(**model_inputs(model, batch["history"]), labels=model.item_tokens[batch["target"]])
    rows = [0, 3, 1]  # first row of the distinct targets 5, 7, 9
    item = model.item_tokenizer(model.semantic_embedding[[5, 7, 9]])
    sequence = model.item_tokenizer.quantizer(output.sequence_projection[rows])
    sia = sequence_item_alignment(sequence.code_logits, item.code_logits)
    psa = preference_semantic_alignment(output.preference_latents[rows], item.reconstruction, 0.2)
    torch.testing.assert_close(loss, 2 * output.loss + 0.5 * sia + 0.25 * psa)


def test_the_tokenizer_loss_by_hand_and_without_dropout(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path, sia_weight=0.5, psa_weight=0.25, vq_weight=3.0)
    model = trainer.model
    batch = {"history": random_histories(model, [3, 3, 2, 1]), "target": torch.tensor([5, 9, 5, 7])}
    trainer.enter_phase("tokenizer", aligned=True)
    model.train()
    loss = trainer.compute_loss(model, batch)
    assert not model.encoder.training, "the frozen side looks on without dropout"
    output = model(**model_inputs(model, batch["history"]))
    item = model.item_tokenizer(model.semantic_embedding[[5, 7, 9]])
    sequence = model.item_tokenizer.quantizer(output.sequence_projection[[0, 3, 1]])
    sia = sequence_item_alignment(sequence.code_logits, item.code_logits)
    psa = preference_semantic_alignment(output.preference_latents[[0, 3, 1]], item.reconstruction)
    torch.testing.assert_close(loss, 3 * item.loss + 0.5 * sia + 0.25 * psa)


@pytest.mark.parametrize("phase", ["tokenizer", "recommender"])
def test_a_part_of_weight_zero_is_not_computed(prepared, tmp_path, phase, monkeypatch):
    trainer = make_trainer(prepared, tmp_path, sia_weight=0.0)
    batch = {"history": random_histories(trainer.model, [2, 2]), "target": torch.tensor([5, 9])}
    calls = []
    monkeypatch.setattr(trainer.model.encoder, "forward", lambda *args, **kwargs: calls.append("encoder"))
    monkeypatch.setattr(
        "etegrec_hf.training.trainer.sequence_item_alignment", lambda *args: pytest.fail("SIA has weight 0")
    )
    trainer.enter_phase(phase, aligned=False)
    if phase == "tokenizer":
        trainer.compute_loss(trainer.model, batch)
        assert calls == [], "without alignment the tokenizer phase needs no history"
    else:
        monkeypatch.undo()
        trainer.compute_loss(trainer.model, batch)
        assert set(trainer._parts) == {"loss_code"}


def test_evaluation_ranks_what_recommend_returns(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path)
    metrics = trainer.evaluate()
    split = prepared.validation
    items = []
    for start, end in zip(split.offsets[:-1], split.offsets[1:]):
        history = torch.from_numpy(split.sequences[start : end - 1][-20:]).unsqueeze(0)
        items.append(trainer.model.recommend(**model_inputs(trainer.model, history), top_k=10, num_beams=10)[0])
    expected = ranking_metrics(torch.cat(items).numpy(), split.targets)
    assert {name: metrics[f"eval_{name}"] for name in expected} == pytest.approx(expected)


def test_two_optimizer_groups_hold_every_weight_once(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path)
    recommender, tokenizer = trainer.create_optimizer().param_groups
    assert {id(p) for p in tokenizer["params"]} == {id(p) for p in trainer.model.item_tokenizer.parameters()}
    ids = [id(p) for group in (recommender, tokenizer) for p in group["params"]]
    assert len(ids) == len(set(ids)) == len(list(trainer.model.parameters()))
    assert (recommender["lr"], tokenizer["lr"]) == (1e-3, 1e-3)
    assert recommender["weight_decay"] == 0.05


def test_a_checkpoint_appears_whole_or_not_at_all(prepared, tmp_path, monkeypatch):
    trainer = make_trainer(prepared, tmp_path, num_train_epochs=2)

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "_save_rng_state", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert list(tmp_path.glob("checkpoint-*")) == []
    monkeypatch.undo()
    trainer.train()
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert {"config.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"} <= {
        path.name for path in checkpoint.iterdir()
    }
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(checkpoint)
    assert not (tmp_path / ".incomplete").exists()


def test_a_model_is_published_whole_or_not_at_all(prepared, tmp_path, monkeypatch):
    trainer = make_trainer(prepared, tmp_path)
    monkeypatch.setattr(trainer.model, "save_pretrained", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.save_model()
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
def test_a_truncated_checkpoint_is_an_error_that_names_it(prepared, tmp_path, name):
    make_trainer(prepared, tmp_path, num_train_epochs=2).train()
    checkpoint = Path(last_checkpoint(tmp_path))
    content = (checkpoint / name).read_bytes()
    (checkpoint / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"{checkpoint.name}' is truncated or damaged .* remove that folder"):
        make_trainer(prepared, tmp_path, num_train_epochs=4).train(resume_from_checkpoint=str(checkpoint))


def test_no_checkpoint_to_resume_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint to resume; run without --resume"):
        last_checkpoint(tmp_path)


def test_data_of_another_catalogue_is_an_error(prepared, tmp_path):
    model = make_model(random_codes(30, 3, 8), 8)
    with pytest.raises(ValueError, match="`item_ids` holds 60 items and the model 30"):
        ETEGRecTrainer(model, ETEGRecTrainingArguments(str(tmp_path), use_cpu=True), prepared.item_ids, None)


def test_bf16_trains(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path, FinetuningArguments, num_train_epochs=1, bf16=True)
    before = sides(trainer.model)["recommender"]
    trainer.train()
    assert not unchanged(before, sides(trainer.model)["recommender"])
    assert all(tensor.dtype == torch.float32 for tensor in trainer.model.parameters())
