"""How training arguments divide streamed sequences into batches."""

from functools import partial

import numpy as np
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, Sampler

from ..data.sequences import LengthGroupedSampler, TokenBudgetBatches
from ..data.streamed_sequences import StreamedBatches, StreamedSequences
from .arguments import ETEGRecTrainingArguments


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
    if args.max_tokens_per_batch is not None:
        batches = TokenBudgetBatches(
            lengths * code_length, args.max_tokens_per_batch, args.seed, args.world_size, args.process_index
        )
        batches.set_epoch(epoch)
        return batches
    sampler = LengthGroupedSampler(lengths, args.train_batch_size, args.seed)
    sampler.set_epoch(epoch)
    whole = BatchSampler(sampler, args.train_batch_size, args.dataloader_drop_last)
    return whole if args.world_size == 1 else BatchSamplerShard(whole, args.world_size, args.process_index)
