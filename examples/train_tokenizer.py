# /// script
# requires-python = ">=3.11"
# dependencies = ["etegrec_hf"]
# ///
"""Trains an item tokenizer (RQ-VAE) with the Python API.

    python examples/train_tokenizer.py DATA OUTPUT [EPOCHS]

DATA is a prepared dataset with embeddings (`etegrec prepare ... --embedding cooccurrence`).
"""

import sys

import torch

from etegrec_hf import PreparedDataset, RQVAEConfig, RQVAEModel, RQVAETrainer, RQVAETrainingArguments, TrainingRecord


def main(data_folder: str, output_dir: str, epochs: str = "200") -> None:
    data = PreparedDataset.load(data_folder)
    embeddings = torch.from_numpy(data.embeddings)
    model = RQVAEModel(RQVAEConfig(input_size=embeddings.shape[1]))
    arguments = RQVAETrainingArguments(output_dir, num_train_epochs=int(epochs))
    trainer = RQVAETrainer(model, arguments, embeddings, record=TrainingRecord(data.statistics))
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main(*sys.argv[1:])
