"""Collaborative item embeddings from a causal model of item sequences, which is the SASRec baseline too."""

import json
from pathlib import Path

import torch.nn.functional as F
from transformers import GPT2LMHeadModel

from ...data.prepared import PreparedDataset
from ...data.sequences import LengthGroupedSampler, SequenceDataset, WholeSequenceDataset, as_batch
from ...evaluation.collaborative import ITEM_IDS, best_items, check_items, next_item_scores
from ...evaluation.metrics import KS, rank
from ...hub.model_folder import check_files
from ..base.arguments import order_seed
from ..base.callbacks import EarlyStoppingCallback
from ..base.recording import validation_metrics
from ..base.refusals import REFUSED_ARGUMENTS
from ..base.trainer import BaseTrainer
from .arguments import CollaborativeSizes, CollaborativeTrainingArguments


class CollaborativeTrainer(BaseTrainer):
    """Trains a causal model to foretell each item of the training sequences, by a softmax over all items.

    What it overrides of transformers' Trainer besides what [`BaseTrainer`] does, and why:

    - `compute_loss`: labels stand below their position.
    - `_get_train_sampler`: batches hold sequences of like length.
    - `prediction_step`: evaluation ranks items.

    The item ids are written beside the model, in the place of a training record. Only training sequences are learned
    from; the validation targets choose the epoch that is kept.

    Args:
        model (`GPT2LMHeadModel`): see [`build_collaborative_model`].
        args ([`CollaborativeTrainingArguments`]): arguments.
        data ([`PreparedDataset`]): sequences.
        **kwargs: further arguments of [`BaseTrainer`], like `callbacks`.

    Raises:
        ValueError: a model, arguments or data of another kind, or an argument of `Trainer` that is refused.

    Source: Kang and McAuley, Self-Attentive Sequential Recommendation (2018), with the loss of Klenitskiy and Vasilev,
    Turning Dross Into Gold Loss (2023).
    """

    stage = "collaborative model"
    unit = "targets"
    model_class = GPT2LMHeadModel
    args_class = CollaborativeTrainingArguments
    evaluated = (SequenceDataset,)
    refused_arguments = REFUSED_ARGUMENTS | {
        "train_dataset": "sequences are those of `data`",
        "eval_dataset": "validation targets are those of `data`; `etegrec baselines` measures other splits",
        "processing_class": "item ids are those of `data`",
    }

    def __init__(self, model: GPT2LMHeadModel, args: CollaborativeTrainingArguments, data: PreparedDataset, **kwargs):
        kwargs = self.checked(model, args, kwargs)
        if not isinstance(data, PreparedDataset):
            raise ValueError(
                f"`data` is a {type(data).__name__}; give a `PreparedDataset`: `PreparedDataset.load(folder)`."
            )
        self.item_ids = data.item_ids
        # the head is the embedding, saved once: a checkpoint without it misses nothing
        model._keys_to_ignore_on_save = list(model.all_tied_weights_keys)
        super().__init__(
            model=model,
            args=args,
            train_dataset=WholeSequenceDataset(data.train, model.config.n_positions),
            eval_dataset=SequenceDataset.for_evaluation(data.validation, model.config.n_positions),
            data_collator=as_batch,
            compute_metrics=rank,
            **kwargs,
        )
        self.model_accepts_loss_kwargs = (
            False  # compute_loss gives a mean, which Trainer divides by accumulation steps
        )
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    def check_checkpoint(self, folder: str) -> None:
        """Checks also that the checkpoint is of these items.

        Raises:
            FileNotFoundError: it names no items.
            ValueError: it names others.
        """
        check_files(folder, (ITEM_IDS,))
        check_items(json.loads(Path(folder, ITEM_IDS).read_text(encoding="utf-8")), self.item_ids, folder)
        super().check_checkpoint(folder)

    def samples_per_epoch(self) -> int:
        """Returns the targets of all windows."""
        return self.train_dataset.n_targets

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch=None):
        """Returns the mean cross-entropy over positions that have a target, as most have in batches of like length."""
        logits = model(input_ids=inputs["input_ids"], use_cache=False).logits  # [B, T, 1 + n_items]
        loss = F.cross_entropy(logits.flatten(0, 1), inputs["labels"].flatten(), ignore_index=0)
        return (loss, None) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only: bool, ignore_keys=None):
        """Returns ranked item indices `[batch, listed]` and targets `[batch]`."""
        inputs = self._prepare_inputs(inputs)
        scores = next_item_scores(self.accelerator.unwrap_model(model), inputs["history"])
        return None, best_items(scores, max(KS)), inputs["target"]

    def _get_train_sampler(self, train_dataset=None) -> LengthGroupedSampler:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        return LengthGroupedSampler(dataset.lengths, self.args.train_batch_size, order_seed(self.args))

    def write_beside(self, folder: Path) -> None:
        """Writes the item ids beside the model."""
        (folder / ITEM_IDS).write_text(json.dumps(self.item_ids, ensure_ascii=False) + "\n", encoding="utf-8")


def describe_training(trainer: CollaborativeTrainer, sizes: CollaborativeSizes) -> dict:
    """Returns how a collaborative embedding was made, for whoever wants to repeat it."""
    args, state = trainer.args, trainer.state
    best = state.best_global_step if args.load_best_model_at_end else None
    step = best or state.global_step
    metrics = validation_metrics(state.log_history).get(step, {})
    return {
        "method": "causal item-sequence model, softmax over all items",
        **{name: getattr(sizes, name) for name in ("num_layers", "num_heads", "dropout_rate", "max_history")},
        "learning_rate": args.learning_rate,
        "batch_size": args.train_batch_size,
        "steps": step,
        "seed": args.seed,
        **({"updates_left_out": trainer.updates_left_out} if trainer.updates_left_out else {}),
        "validation": {name: round(value, 5) for name, value in metrics.items() if "@10" in name},
    }
