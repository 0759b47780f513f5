# /// script
# requires-python = ">=3.11"
# dependencies = ["etegrec_hf"]
# ///
"""Finetunes a published recommender on your own log, which may have items that the model doesn't know.

    python examples/finetune_published.py MODEL DATA OUTPUT [EPOCHS]

MODEL is a folder or an id on the Hub, and DATA is a prepared dataset. If DATA has new items, it needs embeddings that
were made like those of the model.
"""

import sys

import torch

from etegrec_hf import (
    ETEGRecForConditionalGeneration,
    ETEGRecTokenizer,
    ETEGRecTrainer,
    FinetuningArguments,
    PreparedDataset,
    SequenceDataset,
    TrainingRecord,
)


def main(name: str, data_folder: str, output_dir: str, epochs: str = "10") -> None:
    data = PreparedDataset.load(data_folder)
    model = ETEGRecForConditionalGeneration.from_pretrained(name)
    tokenizer = ETEGRecTokenizer.from_pretrained(name)
    known = set(tokenizer.item_ids)
    new = [row for row, item_id in enumerate(data.item_ids) if item_id not in known]
    if new:
        model.add_items([data.item_ids[row] for row in new], torch.from_numpy(data.embeddings[new]), tokenizer)
    titles = tokenizer.item_titles | data.title_of
    data = data.with_items(tokenizer.item_ids)

    trainer = ETEGRecTrainer(
        model,
        FinetuningArguments(output_dir, num_train_epochs=int(epochs)),
        data.item_ids,
        SequenceDataset.for_training(data.train, model.config.max_history),
        eval_dataset=SequenceDataset.for_evaluation(data.validation, model.config.max_history),
        item_titles=titles,
        record=TrainingRecord(data.statistics),
    )
    trainer.train()
    trainer.save_model()  # or, after `hf auth login`: trainer.push_to_hub()


if __name__ == "__main__":
    main(*sys.argv[1:])
