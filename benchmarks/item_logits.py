"""Measures the cost of item logits in training and in the search, by size of the catalogue and vectors per item.

    python benchmarks/item_logits.py
    python benchmarks/item_logits.py --sizes 10000 100000 --threads 1

Catalogues are made up, with random codes (256 per level) and random embeddings. For each row, a model with item logits
and a model without them train and search in turns. The row shows how many times as long item logits take, and the
memory of a step's logits. A step has the code loss and the loss of item logits, as in training.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from etegrec_hf import ETEGRecConfig, ETEGRecForConditionalGeneration

RECIPE = {
    "encoder_attention": "causal",
    "encoder_input": "items",
    "recency_buckets": 16,
    "starts_from_last_item": True,
    "reads_items": True,
    "item_gain": 10,
    "constrained_softmax": True,
    "has_repeat_bias": True,
    "num_layers": 2,
    "num_decoder_layers": 2,
}
ITEM_LOGITS = {"item_logits": "detached", "recent_items": 10}
VECTORS = 1, 2  # per item
SEQUENCES, LENGTH = 64, 16  # sequences per training step, and their items: 1,024 targets
USERS = 64  # users per search


def make_model(n_items: int, **kind) -> ETEGRecForConditionalGeneration:
    """Returns an untrained model of the recipe with random codes and embeddings."""
    torch.manual_seed(0)
    rqvae = {"input_size": 256, "hidden_sizes": [64], "latent_size": 32, "num_levels": 3, "codebook_size": 256}
    model = ETEGRecForConditionalGeneration(ETEGRecConfig(n_items=n_items, rqvae_config=rqvae, **RECIPE, **kind))
    numbers = torch.randperm(2**27)[:n_items] if n_items > 10**5 else torch.randint(2**32, (2 * n_items,)).unique()
    numbers = numbers[torch.randperm(len(numbers))[:n_items]]
    model.set_item_codes(torch.stack([numbers // 256**level % 256 for level in range(4)], dim=1))
    model.catalogue.set_semantic_embedding(torch.randn(n_items, 256))
    return model


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Returns the median seconds of some calls, after one that isn't counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def step_of(model: ETEGRecForConditionalGeneration) -> Callable[[], None]:
    """Returns a function that runs a forward and a backward pass over whole sequences."""
    items = torch.randint(1, model.config.n_items + 1, (SEQUENCES, LENGTH + 1))
    inputs = model.catalogue.inputs_from_items(items[:, :-1])
    inputs["history_lengths"] = torch.arange(1, LENGTH + 1).expand(SEQUENCES, -1)
    inputs["sequence_labels"] = model.catalogue.item_tokens[items[:, 1:]]

    def step() -> None:
        model.train().zero_grad()
        outputs = model(**inputs)
        (outputs.loss if outputs.item_loss is None else outputs.loss + outputs.item_loss).backward()

    return step


def search_of(model: ETEGRecForConditionalGeneration, users: int) -> Callable[[], object]:
    """Returns a function that recommends ten items per user."""
    inputs = model.catalogue.inputs_from_items(torch.randint(1, model.config.n_items + 1, (users, LENGTH)))
    return lambda: model.eval().recommend(**inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--largest-training", type=int, default=10**5, help="items of the largest training step")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        "| items | vectors | training step, with over without | search of 64 users | of one user | logits of a step |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for size in arguments.sizes:
        without = make_model(size)
        for vectors in VECTORS:
            with_logits = make_model(size, item_ensemble=vectors, **ITEM_LOGITS)
            trained = "-"
            if size <= arguments.largest_training:
                times = [seconds(step_of(model), arguments.repeats) for model in (with_logits, without)]
                trained = f"{times[0] / times[1]:.2f}x ({times[0] * 1e3:.0f} ms)"
            searched = []
            for users in (USERS, 1):
                times = [seconds(search_of(model, users), arguments.repeats) for model in (with_logits, without)]
                searched.append(f"{times[0] / times[1]:.2f}x ({times[0] * 1e3:.1f} ms)")
            memory = vectors * SEQUENCES * LENGTH * size * 4 / 2**20
            row = f"{size:,}", str(vectors), trained, *searched, f"{memory:,.0f} MiB"
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
