"""Measures recommending for users whose histories grow by one item, as ratios within one run.

    python benchmarks/serving.py [--threads 2] [--dtype bfloat16] [--rounds 20]

The model has random weights, a causal encoder, and 6 + 6 layers of width 128; beam 20, top 10. Encoding whole
histories takes turns with extending kept encoder states by the newest item. `recommend` is measured in both ways, too.
Every ratio is the median of the rounds.
"""

import argparse
import statistics
import time

import torch

from etegrec_hf import ETEGRecConfig, ETEGRecForConditionalGeneration
from etegrec_hf.models.headwise_t5 import encode

N_ITEMS, BEAMS, TOP_K = 10_000, 20, 10


def random_model(dtype: torch.dtype) -> ETEGRecForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"has_item_tokenizer": False, "has_semantic_embedding": False, "encoder_attention": "causal"}
    model = ETEGRecForConditionalGeneration(ETEGRecConfig(n_items=N_ITEMS, **sizes)).eval().to(dtype)
    numbers = torch.randint(256**4, (2 * N_ITEMS,)).unique()
    numbers = numbers[torch.randperm(len(numbers))[:N_ITEMS]]
    model.set_item_codes(torch.stack([numbers >> shift & 255 for shift in (24, 16, 8, 0)], dim=1))
    return model


def seconds(act) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


@torch.inference_mode()
def measure(model, users: int, items: int, rounds: int) -> None:
    """Prints one row of the table."""
    histories = torch.randint(1, N_ITEMS + 1, (users, items))
    whole, newest = model.catalogue.inputs_from_items(histories), model.catalogue.inputs_from_items(histories[:, -1:])
    past = model.encode_history(**model.catalogue.inputs_from_items(histories[:, :-1]))
    options = {"top_k": TOP_K, "num_beams": BEAMS}
    acts = {
        "encode": lambda: encode(model.encoder, **whole),
        "extend": lambda: model.encode_history(**newest, past=past),
        "recommend whole": lambda: model.recommend(**whole, **options),
        "recommend extended": lambda: model.recommend(encoded=model.encode_history(**newest, past=past), **options),
    }
    for act in acts.values():
        act()
    times = [{name: seconds(act) for name, act in acts.items()} for _ in range(rounds)]
    encoding = statistics.median(row["encode"] / row["extend"] for row in times)
    saved = statistics.median(1 - row["recommend extended"] / row["recommend whole"] for row in times)
    kept = sum(tensor.nbytes for tensor in vars(past).values()) / users / 1e6
    print(f"| {users} | {items} | {encoding:.1f}x | {saved:.0%} | {kept:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = random_model(getattr(torch, options.dtype))
    print("| users | items | extending against encoding all | saved of `recommend` | kept a user, MB |")
    print("| --- | --- | --- | --- | --- |")
    for users in (1, 64):
        for items in (8, 50):
            measure(model, users, items, options.rounds)


if __name__ == "__main__":
    main()
