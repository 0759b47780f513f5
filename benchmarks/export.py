"""Compares ONNX Runtime with `model.recommend`, as ratios of times measured in turns.

    python benchmarks/export.py [--threads 1] [--rounds 15] [--kind paper]

A model of random weights, 6 + 6 layers of width 128, and 25,000 items: beam 20, top 10. Every ratio is the median of
the rounds. For the exported model, the shares of time of the two networks and of numpy are printed too. With one
thread, processor time is measured, as other programs change it less.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from etegrec_hf import ETEGRecConfig, ETEGRecForConditionalGeneration, ETEGRecTokenizer
from etegrec_hf.runtime import OnnxRecommender
from etegrec_hf.runtime.export import export

N_ITEMS, BEAMS, TOP_K = 25_000, 20, 10
KINDS = {
    "paper": {"has_item_tokenizer": False, "has_semantic_embedding": False},
    "recipe": {
        "encoder_attention": "causal",
        "encoder_input": "items",
        "recency_buckets": 16,
        "starts_from_last_item": True,
        "reads_items": True,
        "item_logits": "exact",
        "recent_items": 10,
        "mixed_items": 2,
        "constrained_softmax": True,
        "has_repeat_bias": True,
    },
}


def random_model(kind: str) -> tuple[ETEGRecForConditionalGeneration, ETEGRecTokenizer]:
    torch.manual_seed(0)
    model = ETEGRecForConditionalGeneration(ETEGRecConfig(n_items=N_ITEMS, **KINDS[kind])).eval()
    numbers = torch.randint(256**4, (2 * N_ITEMS,)).unique()
    numbers = numbers[torch.randperm(len(numbers))[:N_ITEMS]]
    codes = torch.stack([numbers >> shift & 255 for shift in (24, 16, 8, 0)], dim=1)
    model.set_item_codes(codes)
    return model, ETEGRecTokenizer.from_item_codes([str(item) for item in range(1, N_ITEMS + 1)], codes, 256)


def seconds(act, clock) -> float:
    start = clock()
    act()
    return clock() - start


class Timed:
    """A network that counts the seconds of its runs."""

    def __init__(self, network, clock):
        self.network, self.clock, self.spent = network, clock, {"read": 0.0, "step": 0.0}

    def read(self, *given):
        return self._timed("read", given)

    def step(self, *given):
        return self._timed("step", given)

    def _timed(self, name: str, given):
        start = self.clock()
        made = getattr(self.network, name)(*given)
        self.spent[name] += self.clock() - start
        return made


@torch.no_grad()
def measure(model, recommender: OnnxRecommender, users: int, items: int, rounds: int) -> None:
    """Prints one row of the table."""
    histories = torch.randint(1, N_ITEMS + 1, (users, items))
    inputs = model.catalogue.inputs_from_items(histories)
    ids = [[str(item) for item in row] for row in histories.tolist()]
    options = {"top_k": TOP_K, "num_beams": BEAMS}
    acts = {
        "torch": lambda: model.recommend(**inputs, **options),
        "onnx": lambda: recommender.recommend(ids, **options),
    }
    for act in acts.values():
        act()
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    timed = recommender.network = Timed(recommender.network, clock)
    times = [{name: seconds(act, clock) for name, act in acts.items()} for _ in range(rounds)]
    recommender.network = timed.network
    ratio = statistics.median(row["torch"] / row["onnx"] for row in times)
    medians = {name: 1000 * statistics.median(row[name] for row in times) for name in acts}
    total = sum(row["onnx"] for row in times)
    shares = {name: spent / total for name, spent in timed.spent.items()}
    parts = [f"{share:.0%}" for share in (*shares.values(), 1 - sum(shares.values()))]
    print(
        f"| {users} | {items} | {medians['torch']:.1f} | {medians['onnx']:.1f} | {ratio:.2f}x | {' | '.join(parts)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--kind", choices=[*KINDS], default="paper")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = random_model(options.kind)
    with tempfile.TemporaryDirectory() as temporary:
        recommender = OnnxRecommender(export(model, tokenizer, Path(temporary, "export")), options.threads)
    print("| users | items | torch, ms | ONNX Runtime, ms | torch / ONNX Runtime | history | steps | numpy |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for users in (1, 32):
        for items in (8, 50):
            measure(model, recommender, users, items, options.rounds)


if __name__ == "__main__":
    main()
