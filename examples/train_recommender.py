# /// script
# requires-python = ">=3.11"
# dependencies = ["etegrec_hf"]
# ///
"""Trains recommender and item tokenizer in turns, and finetunes the recommender, with the Python API.

    python examples/train_recommender.py DATA TOKENIZER OUTPUT [EPOCHS FINETUNING_EPOCHS]

TOKENIZER is the output folder of `examples/train_tokenizer.py`. The trained recommender is in OUTPUT/finetuned.
"""

import sys

import torch

from etegrec_hf import (
    ETEGRecTrainer,
    ETEGRecTrainingArguments,
    FinetuningArguments,
    PreparedDataset,
    RQVAEModel,
    SequenceDataset,
    TrainingRecord,
    build_recommender,
)


def main(
    data_folder: str, tokenizer_folder: str, output_dir: str, epochs: str = "40", finetuning_epochs: str = "50"
) -> None:
    data = PreparedDataset.load(data_folder)
    item_tokenizer = RQVAEModel.from_pretrained(tokenizer_folder)
    model = build_recommender(item_tokenizer, torch.from_numpy(data.embeddings))
    train = SequenceDataset.for_training(data.train, model.config.max_history)
    validation = SequenceDataset.for_evaluation(data.validation, model.config.max_history)
    stages = [
        ETEGRecTrainingArguments(
            f"{output_dir}/alternating", num_train_epochs=int(epochs), warm_epochs=4, learning_rate=1e-3
        ),
        FinetuningArguments(f"{output_dir}/finetuned", num_train_epochs=int(finetuning_epochs)),
    ]
    record = TrainingRecord.read(tokenizer_folder)
    for arguments in stages:
        trainer = ETEGRecTrainer(
            model,
            arguments,
            data.item_ids,
            train,
            eval_dataset=validation,
            item_titles=data.title_of,
            record=record,
        )
        trainer.train()
        trainer.save_model()
        record = trainer.record_now()


if __name__ == "__main__":
    main(*sys.argv[1:])
