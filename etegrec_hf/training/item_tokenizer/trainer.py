"""Training of the item tokenizer before the recommender."""

import torch
from torch.utils.data import Dataset
from transformers import EvalPrediction

from ...data.sequences import as_batch
from ...evaluation.code_diagnostics import check_telling
from ...models.modeling_rqvae import RQVAEModel, first_not_finite
from ..base.callbacks import EpochBorderCallback
from ..base.refusals import REFUSED_ARGUMENTS, named_datasets, whole_of
from ..base.trainer import BaseTrainer
from .arguments import RQVAETrainingArguments
from .callbacks import CodeUsageCallback
from .codebooks import initialize_codebooks


class ItemEmbeddingDataset(Dataset):
    """The semantic embeddings `[n_items, input_size]` of a catalogue, fetched batch by batch."""

    def __init__(self, embeddings: torch.FloatTensor):
        self.embeddings = embeddings

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"embeddings": self.embeddings[index]}

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        return {"embeddings": self.embeddings[indices]}


LOSSES = ("loss", "reconstruction_loss", "quantization_loss")  # losses that evaluation measures


class RQVAETrainer(BaseTrainer):
    """Trains an [`RQVAEModel`] on the embeddings of all items.

    Besides the methods that [`BaseTrainer`] overrides, it overrides `train`, so that codebooks start from k-means, and
    `prediction_step`, so that evaluation measures the losses of held-out items. A callback moves unused codes if the
    arguments say so. Codebooks that the caller froze (`requires_grad` is False) don't change.

    Args:
        model ([`RQVAEModel`]): the model to train.
        args ([`RQVAETrainingArguments`]): arguments.
        embeddings (`torch.FloatTensor` of shape `(n_items, input_size)`): semantic embeddings, maybe mapped.
        record ([`TrainingRecord`], *optional*): record of the data.
        **kwargs: further arguments of [`BaseTrainer`]: `record`, `eval_dataset` (an [`ItemEmbeddingDataset`] of
            held-out items, or several by name), `callbacks`, ... Evaluation logs `loss`, `reconstruction_loss` and
            `quantization_loss`, see [`RQVAEOutput`].

    Raises:
        ValueError: the model, the arguments or a dataset are of another kind.
        ValueError: a refused argument of `Trainer` is given.
        ValueError: the embeddings have another width, hold NaN or infinity, or are all alike.
    """

    stage = "item tokenizer"
    unit = "items"
    model_class = RQVAEModel
    args_class = RQVAETrainingArguments
    evaluated = (ItemEmbeddingDataset,)
    refused_arguments = REFUSED_ARGUMENTS | {
        "train_dataset": "give the items' `embeddings`",
        "processing_class": "it reads items' embeddings, without a tokenizer",
    }

    def __init__(self, model: RQVAEModel, args: RQVAETrainingArguments, embeddings: torch.FloatTensor, **kwargs):
        kwargs = self.checked(model, args, kwargs)
        check_item_embeddings("`embeddings`", embeddings, model.config.input_size)
        check_telling(embeddings)
        for name, dataset in named_datasets(kwargs.get("eval_dataset")).items():
            check_item_embeddings(f"`embeddings` of `{name}`", whole_of(dataset).embeddings, model.config.input_size)
        super().__init__(
            model=model,
            args=args,
            train_dataset=ItemEmbeddingDataset(embeddings),
            data_collator=as_batch,
            compute_metrics=mean_losses,
            **kwargs,
        )
        self.add_callback(EpochBorderCallback())
        self.add_callback(CodeUsageCallback(self))

    def prefixes(self) -> torch.LongTensor:
        """Returns the codes of all items, `[n_items, levels]`."""
        return self.model.encode(self.train_dataset.embeddings)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Trains. In a new run, codebooks start from k-means unless the arguments say otherwise."""
        learns = self.model.quantizer.codebooks.requires_grad  # the caller may have frozen them
        if not resume_from_checkpoint and self.args.kmeans_init and learns:
            initialize_codebooks(self.model, self.train_dataset.embeddings, self.args.seed)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only: bool, ignore_keys=None):
        """Returns the `LOSSES` of each item of a batch, `[batch, 3]`, and the items' codes, `[batch, levels]`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.accelerator.autocast():
            outputs = model(**inputs)
        losses = torch.stack([outputs[name].float() for name in LOSSES])
        return None, losses.expand(len(outputs.codes), -1), outputs.codes


def mean_losses(prediction: EvalPrediction) -> dict[str, float]:
    """Returns the mean of each loss over all items that `prediction_step` evaluated."""
    return dict(zip(LOSSES, prediction.predictions.mean(0).tolist()))


def check_item_embeddings(name: str, embeddings: torch.FloatTensor, input_size: int) -> None:
    """Checks the embeddings that an item tokenizer is trained or evaluated on.

    Raises:
        ValueError: `embeddings` isn't a tensor of floats with two axes.
        ValueError: the embeddings have another width than `input_size`.
        ValueError: an embedding holds NaN or infinity.
    """
    if not isinstance(embeddings, torch.Tensor) or embeddings.ndim != 2 or not embeddings.is_floating_point():
        raise ValueError(
            f"{name} is a {type(embeddings).__name__}; give a tensor of floats, [n_items, input_size]. "
            "`torch.from_numpy` makes a tensor of an array."
        )
    if embeddings.shape[1] != input_size:
        raise ValueError(
            f"{name} are {embeddings.shape[1]} wide, but the model's `input_size` is {input_size}; make the "
            "model with the width of the data."
        )
    row = first_not_finite(embeddings)
    if row is not None:
        raise ValueError(f"{name} holds NaN or infinity, first in row {row}; repair that item's embedding.")
