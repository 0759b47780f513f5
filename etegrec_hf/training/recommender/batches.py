"""How training samples become batches, in memory or as they are read."""

import math
from functools import cached_property, partial

import numpy as np
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader
from torch.utils.data import BatchSampler, DataLoader, Sampler
from transformers import Trainer

from ...data.sequences import LengthGroupedSampler, TokenBudgetBatches, as_batch
from ...data.streamed_sequences import StreamedBatches, StreamedSequences
from .arguments import ETEGRecTrainingArguments


def token_budget_batches(
    lengths: np.ndarray, args: ETEGRecTrainingArguments, code_length: int
) -> TokenBudgetBatches | None:
    """This process's batches of samples that read so many items each `[samples]`; none without a budget.

    Raises:
        ValueError: a sample is longer than `max_tokens_per_batch`.
    """
    budget = args.max_tokens_per_batch
    if budget is None:
        return None
    return TokenBudgetBatches(lengths * code_length, budget, args.seed, args.world_size, args.process_index)


def stream_batches(sequences: StreamedSequences, args: ETEGRecTrainingArguments, code_length: int) -> StreamedBatches:
    """The batches of this process, of a number of samples or of `max_tokens_per_batch`.

    Raises:
        ValueError: a sample is longer than `max_tokens_per_batch`.
    """
    return StreamedBatches(sequences, partial(_batches_of, args, code_length), args.seed)


def _batches_of(
    args: ETEGRecTrainingArguments, code_length: int, lengths: np.ndarray, epoch: int
) -> Sampler[list[int]]:
    """Batches of samples of these lengths `[samples]`, as those in memory: those of like length are together."""
    budgeted = token_budget_batches(lengths, args, code_length)
    if budgeted is not None:
        budgeted.set_epoch(epoch)
        return budgeted
    sampler = LengthGroupedSampler(lengths, args.train_batch_size, args.seed)
    sampler.set_epoch(epoch)
    whole = BatchSampler(sampler, args.train_batch_size, args.dataloader_drop_last)
    return whole if args.world_size == 1 else BatchSamplerShard(whole, args.world_size, args.process_index)


class BatchesOfLikeLength(Trainer):
    """A Trainer whose training batches hold histories of like length, so that work is proportional to real tokens.

    Overrides `_get_train_sampler`, and `get_train_dataloader` and `num_examples` for batches that Trainer doesn't
    know: of `max_tokens_per_batch`, and of [`StreamedSequences`] that aren't held in memory.
    """

    def _get_train_sampler(self, train_dataset=None) -> LengthGroupedSampler:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        return LengthGroupedSampler(dataset.lengths, self.args.train_batch_size, seed=self.args.seed)

    @cached_property
    def streamed(self) -> StreamedBatches | None:
        """The batches of training sequences that aren't held in memory."""
        if isinstance(self.train_dataset, StreamedSequences):
            return stream_batches(self.train_dataset, self.args, self.model.config.code_length)
        return None

    def get_train_dataloader(self) -> DataLoader:
        """Batches of a number of samples, or of `max_tokens_per_batch`, from memory or as they are read."""
        if self.streamed is not None:
            return self._loader(self.streamed, batch_size=None)
        budgeted = self._token_budget_batches()
        if budgeted is not None:
            return self._loader(self.train_dataset, batch_sampler=budgeted)
        return super().get_train_dataloader()

    def _loader(self, dataset, **batching) -> DataLoader:
        """Hands on batches that are this process's own already."""
        loader = DataLoader(
            dataset,
            **batching,
            collate_fn=as_batch,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
        )
        return prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True, dispatch_batches=False
        )

    def num_examples(self, dataloader: DataLoader) -> int:
        """Samples, of whatever makes whole batches too."""
        return len(self.train_dataset) if dataloader.dataset is self.streamed else super().num_examples(dataloader)

    def _token_budget_batches(self) -> TokenBudgetBatches | None:
        return token_budget_batches(self.train_dataset.lengths, self.args, self.model.config.code_length)

    def _batches_an_epoch(self) -> int:
        """Of each process."""
        if self.streamed is not None:
            return len(self.streamed)
        budgeted = self._token_budget_batches()
        if budgeted is not None:
            return len(budgeted)
        return math.ceil(len(self.train_dataset) / (self.args.train_batch_size * self.args.world_size))
