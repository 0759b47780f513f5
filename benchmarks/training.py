"""Training speed on real histories, as ratios measured in one run.

    python benchmarks/training.py FOLDER_OF_INSTRUMENTS [--bf16] [--threads 2]

FOLDER holds `NAME.inter.json`. Compared are length-grouped batches and random batches padded to their longest history;
then what data loading costs beside a step, and what computing all codes again costs beside a tokenizer epoch.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from etegrec_hf import ETEGRecTrainer, ETEGRecTrainingArguments, RQVAEConfig, RQVAEModel
from etegrec_hf.data.prepare import prepare
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.sequences import LengthGroupedSampler, SequenceDataset
from etegrec_hf.training.codebooks import initialize_codebooks
from etegrec_hf.training.item_codes import build_recommender, refresh_item_codes


def batches_of(order: list[int], batch_size: int, count: int) -> list[list[int]]:
    return [order[start : start + batch_size] for start in range(0, count * batch_size, batch_size)]


def samples_a_second(trainer: ETEGRecTrainer, batches: list[list[int]]) -> float:
    """Full training steps: load, forward, backward, clip, update."""
    optimizer = trainer.create_optimizer()
    start = time.perf_counter()
    for batch in batches:
        trainer.training_step(trainer.model, trainer.train_dataset.__getitems__(batch))
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return sum(map(len, batches)) / (time.perf_counter() - start)


def make_trainer(data: PreparedDataset, rqvae: RQVAEModel, folder: str, bf16: bool) -> ETEGRecTrainer:
    torch.manual_seed(0)
    model = build_recommender(rqvae, torch.from_numpy(data.embeddings))
    arguments = ETEGRecTrainingArguments(
        folder, bf16=bf16, use_cpu=True, eval_strategy="no", load_best_model_at_end=False
    )
    dataset = SequenceDataset(data.train, model.config.max_history, every_position=True)
    trainer = ETEGRecTrainer(model, arguments, data.item_ids, dataset)
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bf16", action="store_true", help="also grouped batches under bfloat16 autocast")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory() as scratch:
        prepare(options.folder, "letter", f"{scratch}/data", embedding="cooccurrence")
        data = PreparedDataset.load(f"{scratch}/data")
        torch.manual_seed(0)
        rqvae = RQVAEModel(RQVAEConfig(input_size=data.embeddings.shape[1]))
        initialize_codebooks(rqvae, torch.from_numpy(data.embeddings))
        trainer = make_trainer(data, rqvae, scratch, bf16=False)
        dataset = trainer.train_dataset
        trainer.enter_phase("recommender", aligned=False)

        grouped = batches_of(list(LengthGroupedSampler(dataset.lengths, 256)), 256, options.steps)
        random = batches_of(torch.randperm(len(dataset)).tolist(), 256, max(2, options.steps // 10))
        samples_a_second(trainer, grouped[:2])  # warm up
        grouped_rate = samples_a_second(trainer, grouped)
        random_rate = samples_a_second(trainer, random)
        print(f"random batches, float32     {random_rate:8.1f} samples/s     1.0x")
        print(f"grouped batches, float32    {grouped_rate:8.1f} samples/s  {grouped_rate / random_rate:6.1f}x")
        if options.bf16:
            rate = samples_a_second(make_trainer(data, rqvae, scratch, bf16=True), grouped)
            print(f"grouped batches, bfloat16   {rate:8.1f} samples/s  {rate / random_rate:6.1f}x")

        start = time.perf_counter()
        for batch in grouped:
            dataset.__getitems__(batch)
        loading = (time.perf_counter() - start) / options.steps
        print(f"loading a batch takes {loading * grouped_rate / 256:.2%} of a step")

        trainer.enter_phase("tokenizer", aligned=False)
        epoch = len(dataset) / samples_a_second(trainer, grouped)
        start = time.perf_counter()
        refresh_item_codes(trainer.model)
        refresh = time.perf_counter() - start
        print(f"computing all codes again takes {refresh / epoch:.2%} of a tokenizer epoch without alignment")


if __name__ == "__main__":
    main()
