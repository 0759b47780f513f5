"""Pre-training of the item tokenizer."""

import torch
from torch.utils.data import Dataset

from ...data.sequences import as_batch
from ...evaluation.code_diagnostics import check_telling
from ...models.modeling_rqvae import RQVAEModel, first_not_finite
from ..base.callbacks import EpochBorderCallback
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


class RQVAETrainer(BaseTrainer):
    """Trains an [`RQVAEModel`] on the embeddings of all items.

    It overrides `train` of transformers' Trainer, besides what [`BaseTrainer`] does: codebooks start from k-means. Its
    callback revives dead codes, as the arguments say.

    Args:
        model ([`RQVAEModel`]): to train.
        args ([`RQVAETrainingArguments`]): arguments.
        embeddings (`torch.FloatTensor` of shape `(n_items, input_size)`): semantic embeddings, maybe mapped.
        record ([`TrainingRecord`], *optional*): what is known of the data.
        **kwargs: further arguments of `Trainer`.

    Raises:
        ValueError: embeddings of another width, with NaN or infinity, or that tell no items apart.
    """

    stage = "item tokenizer"
    unit = "items"

    def __init__(self, model: RQVAEModel, args: RQVAETrainingArguments, embeddings: torch.FloatTensor, **kwargs):
        if embeddings.shape[1] != model.config.input_size:
            raise ValueError(
                f"`embeddings` are {embeddings.shape[1]} wide and the model's `input_size` is "
                f"{model.config.input_size}; "
                "make the model with the width of the data."
            )
        row = first_not_finite(embeddings)
        if row is not None:
            raise ValueError(f"`embeddings` holds NaN or infinity, first in row {row}; repair that item's embedding.")
        check_telling(embeddings)
        super().__init__(
            model=model, args=args, train_dataset=ItemEmbeddingDataset(embeddings), data_collator=as_batch, **kwargs
        )
        self.add_callback(EpochBorderCallback())
        self.add_callback(CodeUsageCallback(self))

    def prefixes(self) -> torch.LongTensor:
        """Returns the codes of all items, `[n_items, levels]`."""
        return self.model.encode(self.train_dataset.embeddings)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Trains; a new run starts the codebooks from k-means unless the arguments say otherwise."""
        if not resume_from_checkpoint and self.args.kmeans_init:
            initialize_codebooks(self.model, self.train_dataset.embeddings, self.args.seed)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
