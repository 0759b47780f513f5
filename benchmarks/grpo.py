"""Measures the speed of reinforcement learning on real histories, as ratios within one run.

    python benchmarks/grpo.py FOLDER_OF_INSTRUMENTS [--threads 2] [--steps 8]

FOLDER holds `NAME.inter.json`. Steps of the trainer are compared with steps of plain repetition, which encodes every
history once per completion, both for sampling and for scoring. The two take turns, step by step, because a machine's
speed drifts. The share of rewards in the time of a step is measured too.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from etegrec_hf import (
    ETEGRecGRPOConfig,
    ETEGRecGRPOTrainer,
    ETEGRecTokenizer,
    RQVAEConfig,
    RQVAEModel,
    SequenceDataset,
    build_recommender,
)
from etegrec_hf.data.prepare import prepare
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.models.headwise_t5 import encode
from etegrec_hf.models.histories import EncodedBatch
from etegrec_hf.training.collaborative.arguments import CollaborativeSizes
from etegrec_hf.training.collaborative.model import build_collaborative_model
from etegrec_hf.training.grpo.rewards import REWARDS, make_reward
from etegrec_hf.training.item_tokenizer.codebooks import initialize_codebooks


class PlainRepetition(ETEGRecGRPOTrainer):
    """A trainer that encodes the history again for every completion."""

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        model = self.model
        ids = pad_sequence([torch.tensor(ids) for ids in prompt_ids], batch_first=True)
        mask = (ids > 0).long()
        with torch.no_grad():
            encoded = EncodedBatch(ids, mask, encode(model.encoder, ids, mask))
            codes, log_p = self.policy.roll_out(encoded, self.args.rollout, 1)
        self._log_probability = log_p.flatten().tolist()
        return model.config.layout.token_ids(codes).flatten(0, 1).tolist(), None

    def _score(self, model, input_ids, attention_mask, code_length):
        labels = input_ids[:, None, -code_length:]  # [completions, 1, L]
        ids, mask = input_ids[:, :-code_length], attention_mask[:, :-code_length]
        states = encode(model.encoder, ids, mask)
        logits = model(encoder_outputs=(states,), attention_mask=mask, candidates=labels).logits
        log_probs, entropies = self.policy.log_probs(logits, model.config.layout.codes(labels))
        return log_probs.squeeze(1), entropies.squeeze(1)


class Timed:
    """A reward that counts the seconds that it takes."""

    def __init__(self, reward):
        self.reward, self.__name__, self.seconds = reward, reward.__name__, 0.0

    def __call__(self, **columns) -> list[float]:
        start = time.perf_counter()
        rewards = self.reward(**columns)
        self.seconds += time.perf_counter() - start
        return rewards


def make_trainer(cls, data: PreparedDataset, folder: str, rewards: list[str], options) -> ETEGRecGRPOTrainer:
    torch.manual_seed(0)
    rqvae = RQVAEModel(RQVAEConfig(input_size=data.embeddings.shape[1]))
    initialize_codebooks(rqvae, torch.from_numpy(data.embeddings))
    model = build_recommender(rqvae, torch.from_numpy(data.embeddings), dropout_rate=0.0)
    arguments = ETEGRecGRPOConfig(
        folder,
        use_cpu=True,
        num_generations=options.group,
        per_device_train_batch_size=options.histories * options.group,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        early_stopping_patience=None,
    )
    train = SequenceDataset.for_training(data.train, model.config.max_history)
    collaborative = build_collaborative_model(data.n_items, CollaborativeSizes())
    tokenizer = ETEGRecTokenizer.from_item_codes(data.item_ids, model.catalogue.item_codes, model.config.codebook_size)
    trainer = cls(
        model,
        [Timed(make_reward(name, model, data, options.group, collaborative)) for name in rewards],
        arguments,
        train,
        processing_class=tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def step(trainer: ETEGRecGRPOTrainer, rows: list[dict]) -> float:
    """Returns the seconds of a full step: sampling, rewards, reference scores, forward, backward, clipping, update."""
    optimizer = trainer.create_optimizer()
    start = time.perf_counter()
    trainer.training_step(trainer.model, rows, None)
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--histories", type=int, default=32, help="a step")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory() as scratch:
        prepare(options.folder, f"{scratch}/data", "letter", embedding="cooccurrence")
        data = PreparedDataset.load(f"{scratch}/data")
        trainers = [
            make_trainer(cls, data, scratch, ["hit", "semantic"], options)
            for cls in (ETEGRecGRPOTrainer, PlainRepetition)
        ]
        order = list(trainers[0]._get_train_sampler())
        size = options.histories * options.group
        batches = [order[start : start + size] for start in range(0, (options.steps + 1) * size, size)]
        seconds = [
            [step(trainer, trainer.train_dataset.__getitems__(rows)) for trainer in trainers] for rows in batches
        ]
        ours, plain = (sum(times) / options.steps for times in zip(*seconds[1:]))  # the first warms up
        print(f"plain repetition       {1 / plain:6.2f} steps/s    1.0x")
        print(f"one pass over a history{1 / ours:6.2f} steps/s {plain / ours:6.1f}x")
        share = sum(reward.__wrapped__.seconds for reward in trainers[0].reward_funcs) / sum(
            times[0] for times in seconds
        )
        print(f"rewards hit and semantic take {share:.2%} of a step")

        trainer = make_trainer(ETEGRecGRPOTrainer, data, scratch, list(REWARDS), options)
        total = sum(step(trainer, trainer.train_dataset.__getitems__(rows)) for rows in batches)
        for name, reward in zip(REWARDS, trainer.reward_funcs):
            print(f"reward {name:<20} {reward.__wrapped__.seconds / total:6.2%} of a step with all rewards")


if __name__ == "__main__":
    main()
