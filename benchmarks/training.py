"""Measures the speed of training on real histories, as ratios within one run.

    python benchmarks/training.py FOLDER_OF_INSTRUMENTS [--bf16] [--threads 2]

FOLDER holds `NAME.inter.json`. These are compared:

- random batches padded to their longest history, batches grouped by length, and one pass per sequence with a causal
  encoder;
- the recommender phase and the tokenizer phase;
- operations per second in training and in a plain matrix product;
- the time of loading data and the time of a step;
- the time of computing all codes again and the time of a tokenizer epoch.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from decoding import matmul_rate

from etegrec_hf import ETEGRecTrainer, ETEGRecTrainingArguments, RQVAEConfig, RQVAEModel
from etegrec_hf.data.prepare import prepare
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.sequences import LengthGroupedSampler, SequenceDataset, WholeSequenceDataset
from etegrec_hf.training.item_tokenizer.codebooks import initialize_codebooks
from etegrec_hf.training.item_tokenizer.item_codes import build_recommender, refresh_item_codes
from etegrec_hf.training.recommender.target_batch import TargetBatch

BATCH = 256
BUDGET = 8192  # tokens per batch of whole sequences


def prepared(folder: Path, scratch: str) -> tuple[PreparedDataset, RQVAEModel]:
    """Returns the dataset of a log, and an item tokenizer for it whose codebooks come from k-means."""
    prepare(folder, f"{scratch}/data", "letter", embedding="cooccurrence")
    data = PreparedDataset.load(f"{scratch}/data")
    torch.manual_seed(0)
    rqvae = RQVAEModel(RQVAEConfig(input_size=data.embeddings.shape[1]))
    initialize_codebooks(rqvae, torch.from_numpy(data.embeddings))
    return data, rqvae


def batches_of(order: list[int]) -> list[list[int]]:
    """Returns full batches of samples in this order."""
    return [order[start : start + BATCH] for start in range(0, len(order) - BATCH + 1, BATCH)]


def spread(batches: list[list[int]], lengths: np.ndarray, count: int) -> list[list[int]]:
    """Returns `count` batches of an epoch, evenly spread from the shortest to the longest, as a sample of all."""
    ascending = sorted(batches, key=lambda batch: (lengths[batch].max(), lengths[batch].sum()))
    return [ascending[int((number + 0.5) * len(batches) / count)] for number in range(count)]


def targets_a_second(trainer: ETEGRecTrainer, batches: list[list[int]]) -> float:
    """Returns targets per second in full training steps: loading, forward, backward, clipping, update."""
    optimizer = trainer.create_optimizer()
    targets, start = 0, time.perf_counter()
    for batch in batches:
        inputs = trainer.train_dataset.__getitems__(batch)
        targets += len(TargetBatch.of(inputs).targets)
        trainer.training_step(trainer.model, inputs)
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return targets / (time.perf_counter() - start)


def make_trainer(
    data: PreparedDataset,
    rqvae: RQVAEModel,
    folder: str,
    whole: bool = False,
    kind=ETEGRecTrainingArguments,
    sizes: dict | None = None,
    **options,
) -> ETEGRecTrainer:
    """Makes a trainer of whole sequences with a causal encoder, or of prefixes; `sizes` are fields of the model."""
    torch.manual_seed(0)
    sizes = {"encoder_attention": "causal" if whole else "bidirectional"} | (sizes or {})
    model = build_recommender(rqvae, torch.from_numpy(data.embeddings), **sizes)
    options = {"max_tokens_per_batch": BUDGET if whole else None} | options
    arguments = kind(folder, use_cpu=True, eval_strategy="no", load_best_model_at_end=False, **options)
    read = model.config.max_history
    dataset = (
        WholeSequenceDataset(data.train, read, read // 2) if whole else SequenceDataset.for_training(data.train, read)
    )
    return ETEGRecTrainer(model, arguments, data.item_ids, dataset)


def make_stepper(*args, **kwargs) -> ETEGRecTrainer:
    """Makes a trainer in the recommender phase, whose `training_step` can be called without `train`."""
    trainer = make_trainer(*args, **kwargs)
    trainer.current_gradient_accumulation_steps = 1
    trainer.accelerator.prepare_model(trainer.model, evaluation_mode=True)  # autocast, as `train` prepares it
    trainer.enter_phase("recommender", aligned=False)
    return trainer


def operations_a_target(model, lengths: np.ndarray) -> float:
    """Returns the mean floating point operations of forward and backward for one target with its own history.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the model, for its sizes.
        lengths (`np.ndarray` of shape `(targets,)`): number of items per history.
    """
    config = model.config
    inner, width, codes = config.num_heads * config.d_kv, config.d_model, config.code_length
    projections, feed_forward = 2 * 4 * width * inner, 2 * 2 * width * config.d_ff
    tokens = lengths * codes
    encoder = config.num_layers * tokens * (projections + feed_forward + 2 * 2 * tokens * inner)
    keys = config.num_decoder_layers * tokens * 2 * 2 * width * inner
    layer = projections + feed_forward + 2 * 2 * codes * inner + 2 * 2 * width * inner + 2 * 2 * tokens * inner
    decoder = codes * (config.num_decoder_layers * layer + 2 * width * config.codebook_size)
    return float(3 * (encoder + keys + decoder).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bf16", action="store_true", help="under bfloat16 autocast too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory() as scratch:
        data, rqvae = prepared(options.folder, scratch)
        trainer = make_stepper(data, rqvae, scratch)
        dataset = trainer.train_dataset

        grouped = batches_of(list(LengthGroupedSampler(dataset.lengths, BATCH)))
        grouped = spread(grouped, dataset.lengths, options.steps)
        random = batches_of(torch.randperm(len(dataset)).tolist())[: max(2, options.steps // 10)]
        targets_a_second(trainer, grouped[:2])  # warm up
        matmul = [matmul_rate(torch.float32, seconds=1)]
        grouped_rate = targets_a_second(trainer, grouped)
        matmul.append(matmul_rate(torch.float32, seconds=1))
        random_rate = targets_a_second(trainer, random)
        print(f"random batches, float32     {random_rate:8.1f} targets/s     1.0x")
        print(f"grouped batches, float32    {grouped_rate:8.1f} targets/s  {grouped_rate / random_rate:6.1f}x")
        needed = operations_a_target(trainer.model, dataset.lengths[np.concatenate(grouped)])
        print(f"grouped batches make {grouped_rate * needed / np.mean(matmul):.0%} of a plain matrix product's rate")
        if options.bf16:
            half = make_stepper(data, rqvae, scratch, bf16=True)
            targets_a_second(half, grouped[:2])
            matmul = [matmul_rate(torch.bfloat16, seconds=1)]
            rate = targets_a_second(half, grouped)
            matmul.append(matmul_rate(torch.bfloat16, seconds=1))
            print(f"grouped batches, bfloat16   {rate:8.1f} targets/s  {rate / random_rate:6.1f}x")
            share = rate * needed / np.mean(matmul)
            print(f"grouped batches make {share:.0%} of a plain matrix product's rate in bfloat16")

        causal = make_stepper(data, rqvae, scratch, sizes={"encoder_attention": "causal"})
        whole = make_stepper(data, rqvae, scratch, whole=True)
        batches = list(whole.get_train_dataloader().batch_sampler)
        batches = spread(batches, whole.train_dataset.lengths, options.steps)
        targets_a_second(whole, batches[:2])
        causal_rate, whole_rate = targets_a_second(causal, grouped), targets_a_second(whole, batches)
        print(f"causal, prefix by prefix    {causal_rate:8.1f} targets/s  {causal_rate / random_rate:6.1f}x")
        print(f"causal, one pass a sequence {whole_rate:8.1f} targets/s  {whole_rate / random_rate:6.1f}x,")
        print(f"    {whole_rate / causal_rate:.1f}x of prefix by prefix")
        if options.bf16:
            half = make_stepper(data, rqvae, scratch, whole=True, bf16=True)
            targets_a_second(half, batches[:2])
            rate = targets_a_second(half, batches)
            print(f"the same in bfloat16        {rate:8.1f} targets/s  {rate / random_rate:6.1f}x")

        start = time.perf_counter()
        for batch in grouped:
            dataset.__getitems__(batch)
        loading = (time.perf_counter() - start) / options.steps
        print(f"loading a batch takes {loading * grouped_rate / BATCH:.2%} of a step")

        aligned_rates = []
        for phase in ("recommender", "tokenizer"):
            trainer.enter_phase(phase, aligned=True)
            aligned_rates.append(targets_a_second(trainer, grouped))
        print(f"tokenizer phase against recommender phase, aligned {aligned_rates[1] / aligned_rates[0]:6.1f}x")
        trainer.enter_phase("tokenizer", aligned=False)
        epoch = len(dataset) / targets_a_second(trainer, grouped)
        start = time.perf_counter()
        refresh_item_codes(trainer.model)
        refresh = time.perf_counter() - start
        print(f"computing all codes again takes {refresh / epoch:.2%} of a tokenizer epoch without alignment")


if __name__ == "__main__":
    main()
