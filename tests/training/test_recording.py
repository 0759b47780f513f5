"""Training records that trainers write."""

import json
from importlib.metadata import version

import pytest
import torch
from huggingface_hub import ModelCard

from etegrec_hf import (
    ETEGRecTrainer,
    ETEGRecTrainingArguments,
    RQVAEConfig,
    RQVAEModel,
    RQVAETrainer,
    RQVAETrainingArguments,
    SequenceDataset,
    TrainingRecord,
    build_recommender,
)


@pytest.fixture
def item_tokenizer(prepared):
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [16], "latent_size": 8, "num_levels": 2, "codebook_size": 8}
    return RQVAEModel(RQVAEConfig(input_size=prepared.embeddings.shape[1], **sizes))


def trainer(item_tokenizer, prepared, folder, record, **arguments) -> ETEGRecTrainer:
    torch.manual_seed(0)
    model = build_recommender(
        item_tokenizer, torch.from_numpy(prepared.embeddings), d_model=16, num_layers=1, num_decoder_layers=1
    )
    settings = {"num_train_epochs": 4, "num_beams": 10, "use_cpu": True, "report_to": [], "learning_rate": 0.01}
    return ETEGRecTrainer(
        model,
        ETEGRecTrainingArguments(str(folder), **(settings | arguments)),
        prepared.item_ids,
        SequenceDataset.for_training(prepared.train, 50),
        eval_dataset=SequenceDataset.for_evaluation(prepared.validation, 50),
        item_titles=prepared.title_of,
        record=record,
    )


def test_a_run_tells_what_it_did(item_tokenizer, prepared, tmp_path):
    earlier = TrainingRecord(prepared.statistics, [{"stage": "item tokenizer"}])
    run = trainer(item_tokenizer, prepared, tmp_path, earlier)
    run.train()
    run.save_model()
    record = TrainingRecord.read(tmp_path)
    assert record.data == prepared.statistics
    first, stage = record.stages
    assert first == {"stage": "item tokenizer"}
    assert (stage["stage"], stage["epochs"], stage["data"]) == ("alternating training", 4, "synthetic")
    assert stage["arguments"] == {"num_train_epochs": 4, "num_beams": 10, "use_cpu": True, "learning_rate": 0.01}
    assert set(stage["losses"]) == {"loss", "loss_code", "loss_vq"}
    best = max((entry for entry in run.state.log_history if "eval_ndcg@10" in entry), key=lambda e: e["eval_ndcg@10"])
    assert stage["validation"] == {name[5:]: value for name, value in best.items() if "@" in name}
    assert stage["versions"]["torch"] == version("torch")
    prefixes = run.model.catalogue.item_codes[:, :-1]
    assert record.codes["usage_0"] == pytest.approx(len(prefixes[:, 0].unique()) / 8)
    assert "| this model |" not in ModelCard.load(tmp_path / "README.md").text, "validation is no result"


def test_time_before_an_interruption_counts(item_tokenizer, prepared, tmp_path):
    trainer(item_tokenizer, prepared, tmp_path, None, num_train_epochs=2).train()
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    clock = state["stateful_callbacks"]["StageClock"]
    assert 0 < clock["attributes"]["seconds_before"] < 600
    clock["attributes"]["seconds_before"] = 5000
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    resumed = trainer(item_tokenizer, prepared, tmp_path, None)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert 5000 <= resumed.record_now().stages[-1]["seconds"] < 5600


def test_checkpoints_of_a_version_without_a_clock_are_resumed(item_tokenizer, prepared, tmp_path):
    trainer(item_tokenizer, prepared, tmp_path, None, num_train_epochs=2).train()
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    del state["stateful_callbacks"]["StageClock"]
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    trainer(item_tokenizer, prepared, tmp_path, None).train(resume_from_checkpoint=str(checkpoint))
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1


@pytest.mark.parametrize("best", [True, False])
def test_validation_is_that_of_the_weights_that_are_saved(item_tokenizer, prepared, tmp_path, best):
    slow = {"learning_rate": 0.001}  # at which the second evaluation is better than the first
    run = trainer(
        item_tokenizer, prepared, tmp_path, None, load_best_model_at_end=best, greater_is_better=False, **slow
    )
    run.train()
    told = run.record_now().stages[-1]["validation"]["ndcg@10"]
    scores = [entry["eval_ndcg@10"] for entry in run.state.log_history if "eval_ndcg@10" in entry]
    assert scores[0] < scores[-1], "the test needs the first to be the best, which here is the lowest"
    assert told == (scores[0] if best else scores[-1])
    assert told == run.evaluate()["eval_ndcg@10"]


def test_parts_of_a_model_are_not_published_while_it_is_trained(item_tokenizer, prepared, tmp_path):
    with pytest.raises(ValueError, match="`hub_strategy` is 'every_save'"):
        trainer(item_tokenizer, prepared, tmp_path, None, push_to_hub=True, hub_strategy="every_save")


def test_no_pickle_of_arguments_is_left_anywhere(item_tokenizer, prepared, tmp_path):
    embeddings = torch.from_numpy(prepared.embeddings)
    arguments = RQVAETrainingArguments(str(tmp_path), num_train_epochs=2, use_cpu=True, report_to=[])
    run = RQVAETrainer(item_tokenizer, arguments, embeddings, record=TrainingRecord(prepared.statistics))
    run.train()
    run.save_model()
    assert list(tmp_path.glob("checkpoint-*"))
    assert not list(tmp_path.rglob("training_args.bin"))
    assert [stage["stage"] for stage in TrainingRecord.read(tmp_path).stages] == ["item tokenizer"]
    assert "an RQ-VAE that turns an item's embedding into" in (tmp_path / "README.md").read_text().replace("\n", " ")
