"""Tiny runs of a recommender's training, and comparisons of their weights."""

import torch
from tiny_models import make_model, random_codes
from transformers import TrainerCallback

from etegrec_hf import ETEGRecTrainer, ETEGRecTrainingArguments
from etegrec_hf.data.fingerprint import fingerprint
from etegrec_hf.data.sequences import SequenceDataset
from etegrec_hf.hub.training_record import TrainingRecord

# Six epochs of 26 steps with a checkpoint every three
SAVED_OFTEN = {"num_train_epochs": 6, "save_strategy": "steps", "save_steps": 3, "save_total_limit": 2,
               "per_device_train_batch_size": 32, "eval_strategy": "no", "load_best_model_at_end": False}  # fmt: skip


def make_trainer(
    prepared,
    folder,
    arguments=ETEGRecTrainingArguments,
    callbacks=(),
    sizes=None,
    evaluated=None,
    record=None,
    **options,
) -> ETEGRecTrainer:
    """A trainer of a tiny recommender on the tiny data, by 13 steps per epoch."""
    model = make_model(random_codes(prepared.n_items, 3, 8), 8, **(sizes or {}))
    model.catalogue.set_semantic_embedding(torch.from_numpy(prepared.embeddings))
    defaults = {
        "num_train_epochs": 4,
        "warm_epochs": 2,
        "per_device_train_batch_size": 64,
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
        SequenceDataset.for_training(prepared.train, 20),
        eval_dataset=SequenceDataset.for_evaluation(prepared.validation, 20) if evaluated is None else evaluated,
        record=record,
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


class Stop(TrainerCallback):
    """Ends training after one step."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = True


def record_of(data) -> TrainingRecord:
    """Returns the training record of a dataset."""
    return TrainingRecord(data.statistics, fingerprint=fingerprint(data))
