"""Compares the speed of the recipe with that of the earlier one, in turns, as ratios within one run.

    python benchmarks/recipe.py FOLDER_OF_INSTRUMENTS [--threads 1]

FOLDER holds `NAME.inter.json`. Steps of finetuning read whole training sequences, 1,024 items per step. The search is
that of each recipe's evaluation, on test histories in batches of 256. Weights are random. The earlier recipe's model
reads and scores codes, and the preset `best` scores items too.
"""

import argparse
import statistics
import tempfile
from dataclasses import asdict, fields
from pathlib import Path

import torch
from decoding import RECIPE, histories_of, users_a_second
from training import make_stepper, prepared, spread, targets_a_second

from etegrec_hf import ETEGRecForConditionalGeneration
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.transitions import strongest_transitions
from etegrec_hf.training.from_log.presets import LogSize, fitted_preset
from etegrec_hf.training.recommender.options import RecommenderOptions

TOKENS = 4096  # per step, four for each item
SEARCHES = {
    "earlier": {"num_beams": 50, "transition_weight": 0.5, "rerank_weight": 4.0},
    "today": {"num_beams": 50, "transition_weight": 0.2},
}


def sizes_of(data: PreparedDataset) -> dict[str, dict]:
    """Returns the fields of each recipe's model."""
    preset = fitted_preset("best", LogSize.of(data))["train"]
    chosen = {field.name: preset[field.name] for field in fields(RecommenderOptions) if field.name in preset}
    return {"earlier": RECIPE | {"num_transitions": 64}, "today": asdict(RecommenderOptions(**chosen))}


def search_rate(model: ETEGRecForConditionalGeneration, name: str, histories: list[torch.Tensor]) -> float:
    """Returns how many users a recipe's evaluation searches for per second."""
    model.eval()
    return users_a_second(lambda batch: model.recommend(**batch, **SEARCHES[name]), model, histories, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16, help="per round")
    parser.add_argument("--users", type=int, default=1024, help="per round")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory() as scratch:
        data, rqvae = prepared(options.folder, scratch)
        trainers = {
            name: make_stepper(
                data, rqvae, scratch, whole=True, sizes=sizes, max_tokens_per_batch=TOKENS, psa_weight=0.03
            )
            for name, sizes in sizes_of(data).items()
        }
        histories = histories_of(data, options.users)
        batches = list(trainers["today"].get_train_dataloader().batch_sampler)
        batches = spread(batches, trainers["today"].train_dataset.lengths, options.steps)
        for trainer in trainers.values():
            trainer.enter_phase("recommender", aligned=True)
            trainer.model.catalogue.set_transitions(*strongest_transitions(data, 64))
        steps, searches = [], []
        for _ in range(options.rounds + 1):
            steps.append({name: targets_a_second(trainer, batches) for name, trainer in trainers.items()})
            searches.append({name: search_rate(trainer.model, name, histories) for name, trainer in trainers.items()})
    for what, rates in (("targets per second of training", steps), ("users per second of searching", searches)):
        ratios = [rate["today"] / rate["earlier"] for rate in rates[1:]]  # the first round warms up
        today, earlier = (statistics.median(rate[name] for rate in rates[1:]) for name in ("today", "earlier"))
        print(f"{what}: {today:.0f} against {earlier:.0f}, {statistics.median(ratios):.2f}x", end=" ")
        print(f"({min(ratios):.2f}x to {max(ratios):.2f}x)")


if __name__ == "__main__":
    main()
