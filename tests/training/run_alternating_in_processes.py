"""Alternating training in one of several processes: DATA FOLDER BATCH. torchrun gives each its number."""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from safetensors.torch import save_file
from tiny_models import make_model, random_codes
from torch.utils.data import SequentialSampler

from etegrec_hf import ETEGRecTrainer, ETEGRecTrainingArguments, FinetuningArguments
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.sequences import SequenceDataset
from etegrec_hf.data.streamed_sequences import StreamedSequences
from etegrec_hf.hub.dataset_folder import training_files
from etegrec_hf.training.recommender.negatives import negatives_of_others

TOGETHER = 16  # samples a step, over all processes
USERS = 117  # that are evaluated: neither batches nor processes go round


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
    model.catalogue.set_semantic_embedding(torch.from_numpy(prepared.embeddings))
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
    train = distinct_targets(SequenceDataset.for_training(prepared.train, 20))
    users = SequenceDataset.for_evaluation(prepared.validation, 20, limit=USERS)
    run = Ordered(model, arguments, prepared.item_ids, train, eval_dataset=users)
    run.train()
    run.save_model()
    return run


def streamed_or_not(prepared: PreparedDataset, data_folder: str, folder: str, **options) -> list[dict]:
    """Weights after training on sequences in memory, and on the same ones as they are read."""
    make = partial(SequenceDataset.for_training, max_history=20)
    weights = []
    for train in (make(prepared.train), StreamedSequences(training_files(data_folder), prepared.item_ids, make)):
        model = make_model(random_codes(prepared.n_items, 3, 8), 8)
        arguments = FinetuningArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=13,  # doesn't go round
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            early_stopping_patience=None,
            num_beams=10,
            use_cpu=True,
            disable_tqdm=True,
            **options,
        )
        ETEGRecTrainer(model, arguments, prepared.item_ids, train).train()
        weights.append(dict(model.named_parameters()))
    return weights


def resumed(prepared: PreparedDataset, folder: str, **options) -> tuple[dict, dict]:
    """Weights after two epochs, and after the second one was resumed in its middle."""
    weights = []
    for step in (None, 5):
        arguments = FinetuningArguments(
            folder,
            num_train_epochs=2,
            per_device_train_batch_size=32,
            eval_strategy="no",
            save_strategy="steps",
            save_steps=5,
            save_total_limit=None,
            load_best_model_at_end=False,
            early_stopping_patience=None,
            num_beams=10,
            use_cpu=True,
            disable_tqdm=True,
            **options,
        )
        model = make_model(random_codes(prepared.n_items, 3, 8), 8, dropout_rate=0.0)
        train = SequenceDataset.for_training(prepared.train, 20)
        run = ETEGRecTrainer(model, arguments, prepared.item_ids, train)
        steps = len(run.get_train_dataloader())  # of an epoch
        step = step and f"{folder}/checkpoint-{steps // 5 * 5 + 5}"
        run.train(resume_from_checkpoint=step)
        weights.append(dict(model.named_parameters()))
    return weights[0], weights[1]


def unequal_negatives(process: int) -> dict[str, torch.Tensor]:
    """What two processes with 2 and 3 targets, one of them common, give each other, and gradients that flow back."""
    targets = torch.tensor([[5, 6], [6, 7, 8]][process])
    preference = targets.float().unsqueeze(1).repeat(1, 4).requires_grad_()
    others = negatives_of_others(targets, preference, -preference.detach())
    (others.preference.sum() * (process + 1)).backward()
    return {
        "theirs": others.preference,
        "reconstructions": others.reconstruction,
        "same": others.is_same,
        "gradient": preference.grad,
    }


def main(data_folder: str, folder: str, batch: str) -> None:
    prepared = PreparedDataset.load(data_folder)
    run = alternating(prepared, folder, int(batch), ddp_backend="gloo")
    ranked = run.predict(run.eval_dataset)
    memory, stream = streamed_or_not(prepared, data_folder, f"{folder}/more", ddp_backend="gloo")
    tensors = dict(run.model.named_parameters()) | {"item_tokens": run.model.catalogue.item_tokens}
    tensors |= {"items": torch.from_numpy(ranked.predictions), "targets": torch.from_numpy(ranked.label_ids)}
    tensors |= {f"memory.{name}": tensor for name, tensor in memory.items()}
    tensors |= {f"stream.{name}": tensor for name, tensor in stream.items()}
    for kind, weights in zip(("whole", "resumed"), resumed(prepared, f"{folder}/resumed", ddp_backend="gloo")):
        tensors |= {f"{kind}.{name}": tensor for name, tensor in weights.items()}
    tensors |= {f"negatives.{name}": tensor for name, tensor in unequal_negatives(run.args.process_index).items()}
    save_file(
        {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
        f"{folder}/process{run.args.process_index}.safetensors",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
