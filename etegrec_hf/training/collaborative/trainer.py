"""Training of a causal model of item sequences, for collaborative embeddings and as the SASRec baseline."""

import json
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import GPT2LMHeadModel

from ...data.fingerprint import splits_hash
from ...data.prepared import PreparedDataset
from ...data.sequences import LengthGroupedSampler, SequenceDataset, WholeSequenceDataset, as_batch
from ...evaluation.collaborative import ITEM_IDS, best_items, check_items, next_item_scores
from ...evaluation.metrics import KS, rank
from ...hub.model_folder import check_files
from ...hub.training_record import TrainingRecord
from ..base.arguments import order_seed
from ..base.callbacks import EarlyStoppingCallback
from ..base.recording import validation_metrics
from ..base.refusals import REFUSED_ARGUMENTS
from ..base.trainer import BaseTrainer
from .arguments import CollaborativeSizes, CollaborativeTrainingArguments


class CollaborativeTrainer(BaseTrainer):
    """Trains a causal model to predict each item of the training sequences, by a softmax over all items.

    Besides the methods that [`BaseTrainer`] overrides, it overrides these methods of transformers' Trainer:

    - `compute_loss`: the label of a position is the next item, so labels aren't shifted.
    - `_get_train_sampler`: batches hold sequences of similar length.
    - `create_optimizer`: item embeddings have a learning rate of their own.
    - `prediction_step`: evaluation ranks items.

    Item ids and a training record are saved with the model. The model learns only from training sequences. The
    validation targets choose the epoch whose weights are kept.

    Args:
        model (`GPT2LMHeadModel`): the model, see [`build_collaborative_model`].
        args ([`CollaborativeTrainingArguments`]): arguments.
        data ([`PreparedDataset`]): dataset with training sequences and validation targets.
        **kwargs: further arguments of [`BaseTrainer`], like `callbacks`.

    Raises:
        ValueError: the model, the arguments or the data are of another kind.
        ValueError: a refused argument of `Trainer` is given.

    Source: Kang and McAuley, Self-Attentive Sequential Recommendation (2018), with the loss of Klenitskiy and Vasilev,
    Turning Dross Into Gold Loss (2023).
    """

    stage = "collaborative model"
    unit = "targets"
    model_class = GPT2LMHeadModel
    args_class = CollaborativeTrainingArguments
    evaluated = (SequenceDataset,)
    refused_arguments = REFUSED_ARGUMENTS | {
        "train_dataset": "it trains on the sequences of `data`",
        "eval_dataset": "it evaluates on the validation targets of `data`; `etegrec baselines` measures other splits",
        "processing_class": "it reads the item ids of `data`",
    }

    def __init__(self, model: GPT2LMHeadModel, args: CollaborativeTrainingArguments, data: PreparedDataset, **kwargs):
        kwargs = self.checked(model, args, kwargs)
        if not isinstance(data, PreparedDataset):
            raise ValueError(
                f"`data` is a {type(data).__name__}; give a `PreparedDataset`: `PreparedDataset.load(folder)`."
            )
        self.item_ids = data.item_ids
        read = {name: splits_hash([data.split(name)]) for name in ("train", "validation")}
        # the head is the embedding, which is saved once: a checkpoint without the head is complete
        model._keys_to_ignore_on_save = list(model.all_tied_weights_keys)
        super().__init__(
            model=model,
            args=args,
            record=TrainingRecord(data.statistics, fingerprint=read),
            train_dataset=WholeSequenceDataset(data.train, model.config.n_positions),
            eval_dataset=SequenceDataset.for_evaluation(data.validation, model.config.n_positions),
            data_collator=as_batch,
            compute_metrics=rank,
            **kwargs,
        )
        self.model_accepts_loss_kwargs = (
            False  # compute_loss returns a mean, which Trainer divides by the accumulation steps
        )
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    def check_checkpoint(self, folder: str) -> None:
        """Checks a checkpoint as [`BaseTrainer`] does, and checks that it belongs to these items.

        Raises:
            FileNotFoundError: the checkpoint has no list of items.
            ValueError: the checkpoint belongs to other items.
        """
        check_files(folder, (ITEM_IDS,))
        check_items(json.loads(Path(folder, ITEM_IDS).read_text(encoding="utf-8")), self.item_ids, folder)
        super().check_checkpoint(folder)

    def samples_per_epoch(self) -> int:
        """Returns the number of targets in all training windows."""
        return self.train_dataset.n_targets

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch=None):
        """Returns the mean cross-entropy over positions with a target; batches of similar length have few others."""
        logits = model(input_ids=inputs["input_ids"], use_cache=False).logits  # [B, T, 1 + n_items]
        loss = F.cross_entropy(logits.flatten(0, 1), inputs["labels"].flatten(), ignore_index=0)
        return (loss, None) if return_outputs else loss

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Makes the optimizer `optim`, whose last group is the item embeddings, if they are trained.

        Their learning rate is `item_gain` times that of the layers. They decay per update as much as layers do.
        """
        if self.optimizer is None:
            optimizer = super().create_optimizer(model)
            items, gain = self.model.get_input_embeddings().weight, self.args.item_gain
            for group in optimizer.param_groups:
                group["params"] = [weight for weight in group["params"] if weight is not items]
            if items.requires_grad:
                rate, decay = gain * self.args.learning_rate, self.args.weight_decay / gain
                optimizer.add_param_group({"params": [items], "lr": rate, "weight_decay": decay})
        return self.optimizer

    def prediction_step(self, model, inputs, prediction_loss_only: bool, ignore_keys=None):
        """Returns ranked item indices `[batch, listed]` and targets `[batch]`."""
        inputs = self._prepare_inputs(inputs)
        scores = next_item_scores(self.accelerator.unwrap_model(model), inputs["history"])
        return None, best_items(scores, max(KS)), inputs["target"]

    def _get_train_sampler(self, train_dataset=None) -> LengthGroupedSampler:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        return LengthGroupedSampler(dataset.lengths, self.args.train_batch_size, order_seed(self.args))

    def write_beside(self, folder: Path) -> None:
        """Writes the item ids and the training record into a folder with saved weights."""
        replace(self.record, stages=[self.stage_entry()]).write(folder)
        (folder / ITEM_IDS).write_text(json.dumps(self.item_ids, ensure_ascii=False) + "\n", encoding="utf-8")


def describe_training(trainer: CollaborativeTrainer, sizes: CollaborativeSizes) -> dict:
    """Returns how a collaborative embedding was made: the model's sizes, and how long it was trained."""
    args, state = trainer.args, trainer.state
    best = state.best_global_step if args.load_best_model_at_end else None
    step = best or state.global_step
    metrics = validation_metrics(state.log_history).get(step, {})
    return {
        "method": "causal item-sequence model, softmax over all items",
        **{name: getattr(sizes, name) for name in ("num_layers", "num_heads", "dropout_rate", "max_history")},
        "attention_dropout_rate": trainer.model.config.attn_pdrop,
        "learning_rate": args.learning_rate,
        "item_gain": args.item_gain,
        "batch_size": args.train_batch_size,
        "steps": step,
        "trained_steps": state.global_step,
        "planned_steps": state.max_steps,
        "seed": args.seed,
        **({"updates_left_out": trainer.updates_left_out} if trainer.updates_left_out else {}),
        "validation": {name: round(value, 5) for name, value in metrics.items() if "@10" in name},
    }
