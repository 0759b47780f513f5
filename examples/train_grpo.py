# /// script
# requires-python = ">=3.11"
# dependencies = ["etegrec_hf"]
# ///
"""Trains a recommender by reinforcement learning with the Python API, and with a reward function of your own.

    python examples/train_grpo.py MODEL DATA OUTPUT [STEPS]

MODEL is a trained recommender, and DATA is the prepared dataset that it was trained on. The result is in OUTPUT.
"""

import sys

from etegrec_hf import (
    ETEGRecForConditionalGeneration,
    ETEGRecGRPOConfig,
    ETEGRecGRPOTrainer,
    ETEGRecTokenizer,
    HitReward,
    PreparedDataset,
    SemanticReward,
    SequenceDataset,
    TrainingRecord,
)


def novelty(prompts, completions, **columns) -> list[float]:
    """Returns 0.1 for items that aren't in the history; `prompts` and `completions` are item indices."""
    return [0.1 * (item not in history) for history, item in zip(prompts, completions)]


def main(name: str, data_folder: str, output_dir: str, steps: str = "1000") -> None:
    data = PreparedDataset.load(data_folder)
    model = ETEGRecForConditionalGeneration.from_pretrained(name)
    tokenizer = ETEGRecTokenizer.from_pretrained(name)
    max_history = model.config.max_history
    trainer = ETEGRecGRPOTrainer(
        model,
        [HitReward(), SemanticReward(model), novelty],
        ETEGRecGRPOConfig(output_dir, max_steps=int(steps), reward_weights=[1.0, 0.5, 1.0]),
        SequenceDataset.for_training(data.train, max_history),
        SequenceDataset.for_evaluation(data.validation, max_history),
        processing_class=tokenizer,
        record=TrainingRecord.read(name),
    )
    trainer.train()
    trainer.save_model()
    for row in trainer.validation_rows():  # the first row is of the model before training
        print(row["step"], row["ndcg@10"], row["coverage@10"])


if __name__ == "__main__":
    main(*sys.argv[1:])
