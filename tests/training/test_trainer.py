import json
import shutil
from pathlib import Path

import pytest
import torch
from recommender_runs import make_trainer, sides, unchanged
from tiny_models import RECIPE, make_model, random_codes, random_histories

from etegrec_hf import ETEGRecForConditionalGeneration, ETEGRecTokenizer, ETEGRecTrainer, ETEGRecTrainingArguments
from etegrec_hf.data.sequences import SequenceDataset
from etegrec_hf.evaluation.metrics import ranking_metrics
from etegrec_hf.training.base.checkpoints import last_checkpoint
from etegrec_hf.training.recommender import checks
from etegrec_hf.training.recommender.arguments import FinetuningArguments
from etegrec_hf.training.recommender.losses import preference_semantic_alignment, sequence_item_alignment


def recorder(seen: list):
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):
        def __init__(self, trainer):
            self.trainer = trainer

        def on_epoch_begin(self, args, state, control, model=None, **kwargs):
            self.before, self.codes = sides(model), model.catalogue.item_codes.clone()

        def on_epoch_end(self, args, state, control, model=None, **kwargs):
            changed = {side: not unchanged(self.before[side], weights) for side, weights in sides(model).items()}
            seen.append((self.trainer.phase, changed, not torch.equal(self.codes, model.catalogue.item_codes)))

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


def test_a_frozen_tokenizer_leaves_codes_alone(prepared, tmp_path):
    """TIGER: the recommender alone, and the loss of its codes alone."""
    options = {"freeze_tokenizer": True, "warm_epochs": 0, "num_train_epochs": 3}
    trainer = make_trainer(prepared, tmp_path, **options, sia_weight=0, psa_weight=0)
    before, codes = sides(trainer.model), trainer.model.catalogue.item_codes.clone()
    trainer.train()
    after = sides(trainer.model)
    assert unchanged(before["tokenizer"], after["tokenizer"])
    assert not unchanged(before["recommender"], after["recommender"])
    assert torch.equal(codes, trainer.model.catalogue.item_codes)
    logged = {name for entry in trainer.state.log_history for name in entry if name.startswith("loss_")}
    assert logged == {"loss_code"}
    assert sum("eval_ndcg@10" in entry for entry in trainer.state.log_history) == 3, (
        "every epoch is one of the recommender"
    )
    with pytest.raises(ValueError, match="`freeze_tokenizer` is False, but finetuning trains on fixed codes"):
        FinetuningArguments(str(tmp_path), freeze_tokenizer=False, use_cpu=True)


def test_the_recommender_is_aligned_to_a_frozen_tokenizer_where_weights_say_so(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path, freeze_tokenizer=True, warm_epochs=1, num_train_epochs=2)
    before = sides(trainer.model)
    trainer.train()
    assert unchanged(before["tokenizer"], sides(trainer.model)["tokenizer"])
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert ["loss_sia" in entry and "loss_psa" in entry for entry in logs] == [False, True], "warm-up"
    finetuning = FinetuningArguments(str(tmp_path), use_cpu=True)
    assert (finetuning.sia_weight, finetuning.psa_weight, finetuning.warm_epochs) == (0, 0, 0)


@pytest.mark.parametrize(
    ("length", "warns"),
    [({"num_train_epochs": 1}, True), ({"max_steps": 14}, True), ({"max_steps": 27}, False)],  # 13 steps per epoch
    ids=str,
)
def test_a_training_that_ends_before_alignment_begins_warns(prepared, tmp_path, caplog, length, warns):
    options = {
        "freeze_tokenizer": True,
        "warm_epochs": 2,
        "sia_weight": 0.0,
        "psa_weight": 0.25,
        "eval_strategy": "no",
    }
    options |= {"save_strategy": "no", "load_best_model_at_end": False}
    trainer = make_trainer(prepared, tmp_path, **(options | length))
    checks.logger.addHandler(caplog.handler)
    trainer.train()
    checks.logger.removeHandler(caplog.handler)
    epochs = 1 if "num_train_epochs" in length else 2
    sentence = (
        f"`warm_epochs` is 2, but the number of epochs is {epochs}, so training ends before its alignment losses "
        "begin (`psa_weight` 0.25). Give `num_train_epochs` above 2 or fewer `warm_epochs`, or set these weights to 0"
    )
    assert (sentence in caplog.text) == warns
    assert any("loss_psa" in entry for entry in trainer.state.log_history) != warns


def test_a_training_without_alignment_has_no_warning(prepared, tmp_path, caplog):
    checks.logger.addHandler(caplog.handler)
    checks.check_warm_epochs(FinetuningArguments(str(tmp_path), warm_epochs=10, use_cpu=True), 1)
    checks.logger.removeHandler(caplog.handler)
    assert "warm_epochs" not in caplog.text


def test_a_finished_run_can_be_loaded_and_agrees_with_itself(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path)
    trainer.train()
    trainer.save_model()
    model = ETEGRecForConditionalGeneration.from_pretrained(tmp_path)
    tokenizer = ETEGRecTokenizer.from_pretrained(tmp_path)
    model.catalogue.check_tokenizer(tokenizer)
    assert not [path.name for path in tmp_path.iterdir() if path.suffix in (".bin", ".pt", ".pth")], "no pickles"
    assert torch.equal(model.catalogue.item_codes, trainer.model.catalogue.item_codes)
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


def test_evaluations_while_training_do_not_follow_the_models_own_settings(prepared, tmp_path):
    settings = {"num_beams": 40, "exclude_history": True, "rerank_weight": 9.0}
    runs = [make_trainer(prepared, tmp_path, sizes={"search_settings": own}) for own in (None, settings)]
    ranked = [run.predict(run.eval_dataset).predictions for run in runs]
    assert (ranked[0] == ranked[1]).all()
    assert ranked[0].shape[1] == 10, "the beams of the arguments"


@pytest.mark.parametrize(
    ("stop_after", "load_best"),
    [
        ("tokenizer", True),
        ("recommender", False),
        pytest.param("tokenizer", False, marks=pytest.mark.slow),
        pytest.param("recommender", True, marks=pytest.mark.slow),
    ],
)
def test_resuming_equals_no_interruption(prepared, tmp_path, stop_after, load_best):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def __init__(self, trainer):
            self.trainer = trainer

        def on_epoch_end(self, args, state, control, **kwargs):
            control.should_training_stop = self.trainer.phase == stop_after and state.epoch > 0.5

    options = {"load_best_model_at_end": load_best}
    whole = make_trainer(prepared, tmp_path / "whole", **options)
    whole.train()
    make_trainer(prepared, tmp_path / "parts", callbacks=[Stop], **options).train()
    again = make_trainer(prepared, tmp_path / "parts", **options)
    again.train(resume_from_checkpoint=last_checkpoint(tmp_path / "parts"))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    last = [[entry for entry in run.state.log_history if "eval_ndcg@10" in entry][-1] for run in (whole, again)]
    assert last[0]["eval_ndcg@10"] == last[1]["eval_ndcg@10"]


@pytest.mark.slow
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


@pytest.mark.slow
def test_resuming_from_a_step_that_ends_an_epoch_equals_no_interruption(prepared, tmp_path):
    """The checkpoint of an epoch's last step must hold the codes that the epoch's end refreshes."""
    options = {"load_best_model_at_end": False, "num_train_epochs": 2, "eval_strategy": "no"}
    whole = make_trainer(prepared, tmp_path / "whole", **options)
    whole.train()
    steps = whole.state.global_step // 2
    saving = {"save_strategy": "steps", "save_steps": steps, "save_total_limit": None}
    make_trainer(prepared, tmp_path / "parts", **options, **saving).train()
    assert sorted(path.name for path in tmp_path.glob("parts/checkpoint-*")) == [
        f"checkpoint-{number}" for number in (steps, 2 * steps)
    ]
    again = make_trainer(prepared, tmp_path / "parts", **options)
    again.train(resume_from_checkpoint=str(tmp_path / f"parts/checkpoint-{steps}"))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_step_evaluations_leave_out_tokenizer_epochs(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path, num_train_epochs=2, eval_strategy="steps", save_strategy="steps",
                           eval_steps=13, save_steps=13, per_device_train_batch_size=32)  # fmt: skip
    trainer.train()
    assert trainer.state.max_steps == 52
    evaluated = [entry["step"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
    assert evaluated == [39, 52], "26 steps per epoch"


@pytest.mark.slow
def test_a_moved_run_keeps_its_best_checkpoint(prepared, tmp_path):
    make_trainer(prepared, tmp_path / "here", num_train_epochs=2).train()
    (tmp_path / "here").rename(tmp_path / "there")
    again = make_trainer(prepared, tmp_path / "there", num_train_epochs=6)
    again.compute_metrics = lambda prediction: {"ndcg@10": -1.0}
    again.train(resume_from_checkpoint=True)
    assert again.state.best_metric > 0
    best = Path(again.state.best_model_checkpoint)
    assert best.parent == tmp_path / "there"
    loaded = ETEGRecForConditionalGeneration.from_pretrained(best)
    assert all(torch.equal(tensor, again.model.state_dict()[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.slow
def test_resuming_with_another_patience_uses_it(prepared, tmp_path):
    options = {"num_train_epochs": 2, "learning_rate": 0.0, "lr_scheduler_type": "constant"}
    make_trainer(prepared, tmp_path, FinetuningArguments, early_stopping_patience=9, **options).train()
    options["num_train_epochs"] = 8
    again = make_trainer(prepared, tmp_path, FinetuningArguments, early_stopping_patience=3, **options)
    again.train(resume_from_checkpoint=True)
    assert again.state.epoch == 4, "one equal score before the stop, two after it"


def test_a_schedule_uses_its_groups_learning_rate(prepared, tmp_path):
    size = {"per_device_train_batch_size": 32}
    options = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-4}} | size
    trainer = make_trainer(prepared, tmp_path, learning_rate=1e-3, tokenizer_learning_rate=2e-4, **options)
    trainer.create_optimizer_and_scheduler(100)
    # 26 steps per epoch: 26 + 26 of the tokenizer, 26 + 22 of the recommender
    assert [factor(steps) for factor, steps in zip(trainer.lr_scheduler.factors, (48, 52))] == pytest.approx(
        [0.1, 0.5]
    )
    with pytest.raises(
        ValueError, match=r"`max_steps` 60 ends in a tokenizer epoch \(26 steps per epoch, `cycle` 2\)"
    ):
        make_trainer(prepared, tmp_path, **size).create_optimizer_and_scheduler(60)
    other = make_trainer(prepared, tmp_path, lr_scheduler_type="reduce_lr_on_plateau")
    with pytest.raises(ValueError, match=r"`lr_scheduler_type` is .*reduce_lr_on_plateau.*; choose one like 'cosine'"):
        other.create_optimizer_and_scheduler(100)


def test_accumulated_batches_equal_one_batch_of_twice_the_size(prepared, tmp_path):
    """Each target counts alike; the last two batches are not of one size."""
    weights = []
    options = {"num_train_epochs": 1, "save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}
    options |= {"optim": "sgd", "max_grad_norm": 0.0, "learning_rate": 0.1, "early_stopping_patience": None}
    for name, size, accumulated in (("one", 64, 1), ("two", 32, 2)):
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}
        trainer = make_trainer(
            prepared, tmp_path / name, FinetuningArguments, sizes={"dropout_rate": 0.0}, **options, **sizes
        )
        order = torch.arange(len(trainer.train_dataset)).tolist()[: 64 * 4 - 20]
        trainer._get_train_sampler = lambda *args, order=order: order
        trainer.train()
        assert trainer.state.global_step == 4
        weights.append(trainer.model.shared.weight.detach())
    torch.testing.assert_close(*weights)


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
    output = model(
        **model.catalogue.inputs_from_items(batch["history"]), labels=model.catalogue.item_tokens[batch["target"]]
    )
    rows = [0, 3, 1]  # first row of the distinct targets 5, 7, 9
    item = model.item_tokenizer(model.catalogue.semantic_embedding[[5, 7, 9]])
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
    output = model(**model.catalogue.inputs_from_items(batch["history"]))
    item = model.item_tokenizer(model.catalogue.semantic_embedding[[5, 7, 9]])
    sequence = model.item_tokenizer.quantizer(output.sequence_projection[[0, 3, 1]])
    sia = sequence_item_alignment(sequence.code_logits, item.code_logits)
    psa = preference_semantic_alignment(output.preference_latents[[0, 3, 1]], item.reconstruction)
    torch.testing.assert_close(loss, 3 * item.loss + 0.5 * sia + 0.25 * psa)


@pytest.mark.parametrize("phase", ["tokenizer", "recommender"])
@pytest.mark.parametrize("off", ["sia", "psa", "own"])
def test_each_part_can_be_switched_off(prepared, tmp_path, phase, off, monkeypatch):
    weights = {"sia_weight": 0.5, "psa_weight": 0.5, "vq_weight": 1.0, "code_weight": 1.0}
    zero = ["vq_weight", "code_weight"] if off == "own" else [f"{off}_weight"]
    trainer = make_trainer(prepared, tmp_path, **(weights | dict.fromkeys(zero, 0.0)))
    batch = {"history": random_histories(trainer.model, [2, 2]), "target": torch.tensor([5, 9])}
    computed = {"sia": "sequence_item_alignment", "psa": "preference_semantic_alignment"}
    if off in computed:
        name = f"etegrec_hf.training.recommender.phase_losses.{computed[off]}"
        monkeypatch.setattr(name, lambda *args: pytest.fail("this loss has weight 0"))
    trainer.enter_phase(phase, aligned=True)
    assert trainer.compute_loss(trainer.model, batch).requires_grad
    own = "loss_vq" if phase == "tokenizer" else "loss_code"
    assert set(trainer._parts) == {own, "loss_sia", "loss_psa"} - {own if off == "own" else f"loss_{off}"}


def test_a_phase_without_a_loss_is_an_error(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path, code_weight=0.0)
    trainer.enter_phase("recommender", aligned=False)
    with pytest.raises(ValueError, match=r"every loss of the recommender phase has weight 0: .* give one"):
        trainer.compute_loss(trainer.model, {"history": torch.tensor([[1]]), "target": torch.tensor([2])})


@pytest.mark.parametrize("phase", ["tokenizer", "recommender"])
def test_a_part_of_weight_zero_is_not_computed(prepared, tmp_path, phase, monkeypatch):
    trainer = make_trainer(prepared, tmp_path, sia_weight=0.0)
    batch = {"history": random_histories(trainer.model, [2, 2]), "target": torch.tensor([5, 9])}
    calls = []
    monkeypatch.setattr(trainer.model.encoder, "forward", lambda *args, **kwargs: calls.append("encoder"))
    monkeypatch.setattr(
        "etegrec_hf.training.recommender.phase_losses.sequence_item_alignment",
        lambda *args: pytest.fail("SIA has weight 0"),
    )
    trainer.enter_phase(phase, aligned=False)
    if phase == "tokenizer":
        trainer.compute_loss(trainer.model, batch)
        assert calls == [], "without alignment the tokenizer phase needs no history"
    else:
        monkeypatch.undo()
        trainer.compute_loss(trainer.model, batch)
        assert set(trainer._parts) == {"loss_code"}


def test_evaluation_while_training_is_of_the_weights_that_are_saved(prepared, tmp_path):
    trainer = make_trainer(
        prepared, tmp_path, sizes=RECIPE, learning_rate=1e-2, num_train_epochs=8, load_best_model_at_end=False
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
    trainer.save_model()
    trainer.model.load_state_dict(ETEGRecForConditionalGeneration.from_pretrained(tmp_path).state_dict())
    metrics = trainer.evaluate()
    assert len(logged) == 4
    assert logged[-1]["eval_ndcg@10"] != logged[0]["eval_ndcg@10"]
    for name in ("eval_ndcg@10", "eval_recall@10"):
        assert logged[-1][name] == pytest.approx(metrics[name])


def test_evaluation_ranks_what_recommend_returns(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path)
    metrics = trainer.evaluate()
    split = prepared.validation
    items = []
    for start, end in zip(split.offsets[:-1], split.offsets[1:]):
        history = torch.from_numpy(split.sequences[start : end - 1][-20:]).unsqueeze(0)
        items.append(
            trainer.model.recommend(**trainer.model.catalogue.inputs_from_items(history), top_k=10, num_beams=10)[0]
        )
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


@pytest.fixture(scope="module")
def checkpoint(prepared, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    make_trainer(prepared, folder, num_train_epochs=2).train()
    return Path(last_checkpoint(folder))


FILES = ["config.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth"]


@pytest.mark.parametrize("name", [*FILES, "item_index.json", "tokenizer_config.json"])
def test_a_truncated_checkpoint_is_an_error_that_names_it(prepared, checkpoint, tmp_path, name):
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    trainer = make_trainer(prepared, tmp_path, num_train_epochs=4)
    before = sides(trainer.model)
    with pytest.raises(ValueError, match=rf"{name} in .*copy' is truncated or damaged .*; copy the folder again"):
        trainer.train(resume_from_checkpoint=str(copy))
    assert all(unchanged(before[side], weights) for side, weights in sides(trainer.model).items())


@pytest.mark.parametrize("name", FILES)
def test_an_incomplete_checkpoint_is_an_error_that_names_the_file(prepared, checkpoint, tmp_path, name):
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"isn't complete: it holds no {name}; copy the folder again"):
        make_trainer(prepared, tmp_path, num_train_epochs=4).train(resume_from_checkpoint=str(copy))


def test_a_best_checkpoint_damaged_meanwhile_is_an_error(prepared, checkpoint, tmp_path):
    trainer = make_trainer(prepared, tmp_path)
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    (copy / "model.safetensors").write_bytes(b"")
    trainer.state.best_model_checkpoint = str(copy)
    with pytest.raises(ValueError, match=r"model.safetensors in .* is truncated or damaged"):
        trainer._load_best_model()


@pytest.mark.parametrize(("sizes", "message"), [
    ({"d_ff": 64}, "`d_ff` is 64, but 32 in the checkpoint .*; repeat the arguments of that run"),
    ({"max_history": 7}, "`max_history` is 7, but 50 in the checkpoint"),
])  # fmt: skip
def test_resuming_with_other_sizes_is_an_error(prepared, checkpoint, tmp_path, sizes, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(prepared, tmp_path, sizes=sizes).train(resume_from_checkpoint=str(checkpoint))


def test_no_checkpoint_to_resume_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint to resume; run without --resume"):
        last_checkpoint(tmp_path)


def test_detached_item_logits_need_their_loss(prepared, tmp_path):
    with pytest.raises(
        ValueError, match=r"`item_weight` is 0 and the model's `item_logits` is 'detached'.*; give a weight"
    ):
        make_trainer(prepared, tmp_path, sizes=RECIPE | {"item_logits": "detached"}, item_weight=0)


def test_data_of_another_catalogue_is_an_error(prepared, tmp_path):
    model = make_model(random_codes(30, 3, 8), 8)
    with pytest.raises(ValueError, match="`item_ids` holds 60 items and the model 30"):
        ETEGRecTrainer(model, ETEGRecTrainingArguments(str(tmp_path), use_cpu=True), prepared.item_ids, None)


def test_alternating_needs_embeddings_and_finetuning_does_not(prepared, tmp_path):
    with pytest.raises(ValueError, match="holds no `semantic_embedding`, which alternating training and"):
        make_trainer_without_embeddings(prepared, tmp_path, ETEGRecTrainingArguments)
    make_trainer_without_embeddings(prepared, tmp_path, FinetuningArguments).train()


def make_trainer_without_embeddings(prepared, folder, arguments):
    model = make_model(random_codes(prepared.n_items, 3, 8), 8)
    model.catalogue.semantic_embedding = None
    train = SequenceDataset.for_training(prepared.train, 20)
    validation = SequenceDataset.for_evaluation(prepared.validation, 20)
    options = {"num_train_epochs": 2, "num_beams": 10, "use_cpu": True, "save_strategy": "no"}
    options |= {"load_best_model_at_end": False, "disable_tqdm": True, "early_stopping_patience": None}
    return ETEGRecTrainer(model, arguments(str(folder), **options), prepared.item_ids, train, eval_dataset=validation)


def test_bf16_evaluates_under_autocast(prepared, tmp_path, monkeypatch):
    trainer = make_trainer(prepared, tmp_path, bf16=True)
    seen = []
    recommend = trainer.model.recommend

    def spy(*args, **kwargs):
        seen.append(torch.is_autocast_enabled("cpu"))
        return recommend(*args, **kwargs)

    monkeypatch.setattr(trainer.model, "recommend", spy)
    trainer.evaluate()
    assert set(seen) == {True}


def test_bf16_trains(prepared, tmp_path):
    trainer = make_trainer(prepared, tmp_path, FinetuningArguments, num_train_epochs=1, bf16=True)
    before = sides(trainer.model)["recommender"]
    trainer.train()
    assert not unchanged(before, sides(trainer.model)["recommender"])
    assert all(tensor.dtype == torch.float32 for tensor in trainer.model.parameters())
