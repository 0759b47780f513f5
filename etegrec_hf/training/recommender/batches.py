"""Batches of training samples, from memory or from streamed files."""

from functools import partial

import numpy as np
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader
from torch.utils.data import BatchSampler, DataLoader, Sampler

from ...data.sequences import (
    LengthGroupedSampler,
    SequenceDataset,
    TokenBudgetBatches,
    WholeSequenceDataset,
    as_batch,
)
from ...data.streamed_sequences import StreamedBatches, StreamedSequences
from .arguments import ETEGRecTrainingArguments


def make_own_batches(
    dataset: SequenceDataset | WholeSequenceDataset | StreamedSequences,
    args: ETEGRecTrainingArguments,
    code_length: int,
    seed: int,
) -> StreamedBatches | TokenBudgetBatches | None:
    """Returns this process's batches if Trainer can't make them, else `None`.

    Trainer can't make batches of streamed sequences, or batches of `max_tokens_per_batch`.

    Raises:
        ValueError: a sample is longer than `max_tokens_per_batch`.
    """
    if isinstance(dataset, StreamedSequences):
        return StreamedBatches(dataset, partial(_batches_of, args, code_length, seed), seed)
    return token_budget_batches(dataset.lengths, args, code_length, seed)


def token_budget_batches(
    lengths: np.ndarray, args: ETEGRecTrainingArguments, code_length: int, seed: int
) -> TokenBudgetBatches | None:
    """Returns this process's batches of `max_tokens_per_batch`, or `None` without such a budget.

    Args:
        lengths (`np.ndarray` of shape `(samples,)`): how many items each sample reads.
        args ([`ETEGRecTrainingArguments`]): arguments of the run.
        code_length (`int`): tokens per item.
        seed (`int`): random seed of the shuffling.

    Raises:
        ValueError: a sample is longer than `max_tokens_per_batch`.
    """
    budget = args.max_tokens_per_batch
    if budget is None:
        return None
    return TokenBudgetBatches(lengths * code_length, budget, seed, args.world_size, args.process_index)


def _batches_of(
    args: ETEGRecTrainingArguments, code_length: int, seed: int, lengths: np.ndarray, epoch: int
) -> Sampler[list[int]]:
    """Returns batches of samples of these lengths `[samples]`, grouped by length as samples in memory are."""
    budgeted = token_budget_batches(lengths, args, code_length, seed)
    if budgeted is not None:
        budgeted.set_epoch(epoch)
        return budgeted
    sampler = LengthGroupedSampler(lengths, args.train_batch_size, seed)
    sampler.set_epoch(epoch)
    whole = BatchSampler(sampler, args.train_batch_size, args.dataloader_drop_last)
    return whole if args.world_size == 1 else BatchSamplerShard(whole, args.world_size, args.process_index)


def loader_of(
    dataset: SequenceDataset | WholeSequenceDataset | StreamedSequences,
    batches: StreamedBatches | TokenBudgetBatches,
    args: ETEGRecTrainingArguments,
) -> DataLoader:
    """Returns a loader of the batches of [`make_own_batches`], which are already those of this process."""
    streamed = isinstance(batches, StreamedBatches)
    loader = DataLoader(
        batches if streamed else dataset,
        **({"batch_size": None} if streamed else {"batch_sampler": batches}),
        collate_fn=as_batch,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
        persistent_workers=args.dataloader_persistent_workers,
        multiprocessing_context=args.dataloader_multiprocessing_context,
        prefetch_factor=args.dataloader_prefetch_factor,
        in_order=args.dataloader_in_order,
    )
    return prepare_data_loader(
        loader, args.device, num_processes=1, process_index=0, put_on_device=True, dispatch_batches=False
    )
