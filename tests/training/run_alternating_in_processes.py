"""Alternating training in one of several processes: DATA FOLDER BATCH. Told apart by torchrun."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from conftest import make_model, random_codes
from safetensors.torch import save_file
from torch.utils.data import SequentialSampler

from etegrec_hf import ETEGRecTrainer, ETEGRecTrainingArguments
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.sequences import SequenceDataset

TOGETHER = 16  # samples a step, over all processes


class Ordered(ETEGRecTrainer):
    """Reads its samples in their order."""

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset)


def distinct_targets(dataset: SequenceDataset) -> SequenceDataset:
    """The dataset in an order in which no step has a target twice, so that its parts are as large as each other."""
    targets = dataset.sequences[dataset.position]
    turn = np.zeros(len(targets), dtype=int)  # which sample of its target each is
    for target in np.unique(targets):
        turn[targets == target] = np.arange((targets == target).sum())
    order: list[int] = []
    for number in range(turn.max() + 1):
        rows = np.flatnonzero(turn == number)
        order += rows[: len(rows) // TOGETHER * TOGETHER].tolist()
    dataset.position, dataset.lengths, dataset.rows = (
        column[order] for column in (dataset.position, dataset.lengths, dataset.rows)
    )
    return dataset


def alternating(prepared: PreparedDataset, folder: str, batch: int, **options) -> ETEGRecTrainer:
    """A finished run over two cycles, `batch` samples a step on each process."""
    # another seed in each process: all must start from the first one's weights
    process = ETEGRecTrainingArguments(folder, use_cpu=True, **options).process_index
    model = make_model(random_codes(prepared.n_items, 3, 8), 8, seed=process, dropout_rate=0.0)
    model.set_semantic_embedding(torch.from_numpy(prepared.embeddings))
    arguments = ETEGRecTrainingArguments(
        folder,
        num_train_epochs=4,
        warm_epochs=0,
        sia_weight=0.1,
        psa_weight=0.1,
        gather_negatives=True,  # those of the whole batch
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=7,
        learning_rate=1e-3,
        tokenizer_learning_rate=1e-2,
        num_beams=10,
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    train = distinct_targets(SequenceDataset(prepared.train, 20, every_position=True))
    run = Ordered(model, arguments, prepared.item_ids, train, SequenceDataset(prepared.validation, 20, False))
    run.train()
    run.save_model()
    return run


def main(data_folder: str, folder: str, batch: str) -> None:
    run = alternating(PreparedDataset.load(data_folder), folder, int(batch), ddp_backend="gloo")
    tensors = dict(run.model.named_parameters()) | {"item_tokens": run.model.item_tokens}
    save_file(
        {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
        f"{folder}/process{run.args.process_index}.safetensors",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
