"""Trains for a moment and pushes with the Trainer: run by `test_publish.py`, in a process that talks to its Hub."""

import json
import sys
from pathlib import Path

import torch
from huggingface_hub import ModelCard, create_repo

from etegrec_hf import (
    ETEGRecForConditionalGeneration,
    ETEGRecTokenizer,
    ETEGRecTrainer,
    ETEGRecTrainingArguments,
    PreparedDataset,
    RQVAEConfig,
    RQVAEModel,
    SequenceDataset,
    TrainingRecord,
    build_recommender,
)

MODEL_CARD = Path(__file__).parents[2] / "MODEL_CARD.md"


def main(data_folder: str, output_dir: str) -> dict:
    data = PreparedDataset.load(data_folder)
    torch.manual_seed(0)
    embeddings = torch.from_numpy(data.embeddings)
    sizes = {"hidden_sizes": [16], "latent_size": 8, "num_levels": 2, "codebook_size": 8}
    item_tokenizer = RQVAEModel(RQVAEConfig(input_size=embeddings.shape[1], **sizes))
    model = build_recommender(item_tokenizer, embeddings, d_model=16, num_layers=1, num_decoder_layers=1)
    arguments = ETEGRecTrainingArguments(
        output_dir,
        num_train_epochs=2,
        num_beams=10,
        use_cpu=True,
        report_to=[],
        push_to_hub=True,
        hub_model_id="trained",
    )
    trainer = ETEGRecTrainer(
        model,
        arguments,
        data.item_ids,
        SequenceDataset.for_training(data.train, 50),
        eval_dataset=SequenceDataset.for_evaluation(data.validation, 50),
        item_titles=data.title_of,
        record=TrainingRecord(data.statistics),
    )
    trainer.train()
    trainer.save_model()  # and so pushes
    trainer.push_to_hub()  # the same again

    card = ModelCard.load("tester/trained")
    card.validate()
    ModelCard.load(MODEL_CARD).validate()
    reloaded = ETEGRecForConditionalGeneration.from_pretrained("tester/trained")
    ETEGRecTokenizer.from_pretrained("tester/trained")
    reloaded.push_to_hub("tester/trained", commit_message="again")
    same = ModelCard.load("tester/trained").content == card.content

    create_repo("tester/own")
    own = ModelCard("---\nlicense: mit\n---\n# My own\n\nPrecious. [More Information Needed]\n")
    own.push_to_hub("tester/own")
    reloaded.push_to_hub("tester/own")
    return {"tags": card.data.tags, "same": same, "own": ModelCard.load("tester/own").content == own.content}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
