"""Measures speed and memory of decoding, as ratios within one run.

    python benchmarks/decoding.py FOLDER_OF_INSTRUMENTS [--threads 2] [--dtype bfloat16] [--only speed]

FOLDER holds `NAME.inter.json`. A model of random weights with 6 + 6 layers of width 128 decodes its test histories:
beam 20, top 10. The catalogue's codes come from an RQ-VAE whose codebooks come from k-means. Every ratio is the median
of rounds in which both sides take turns.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationMixin

from etegrec_hf import ETEGRecForConditionalGeneration, RQVAEConfig, RQVAEModel
from etegrec_hf.data.prepare import prepare
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.transitions import strongest_transitions
from etegrec_hf.models.beam_search import BeamDecoder, beam_search
from etegrec_hf.models.code_distribution import CodeDistribution
from etegrec_hf.models.code_trie import CodeTrie
from etegrec_hf.models.headwise_t5 import encode
from etegrec_hf.models.histories import EncodedBatch
from etegrec_hf.training.item_tokenizer.codebooks import initialize_codebooks
from etegrec_hf.training.item_tokenizer.item_codes import build_recommender

BEAMS, TOP_K = 20, 10
RECIPE = {  # fields of the earlier recipe's model, which scores codes alone
    "encoder_attention": "causal",
    "reads_items": True,
    "constrained_softmax": True,
    "has_repeat_bias": True,
    "num_layers": 2,
    "num_decoder_layers": 2,
}


def load(
    folder: Path, dtype: torch.dtype, users: int, **sizes
) -> tuple[ETEGRecForConditionalGeneration, list[torch.Tensor]]:
    """Returns a recommender of random weights, and the histories `[items]` of random test users."""
    with tempfile.TemporaryDirectory() as scratch:
        prepare(folder, f"{scratch}/data", "letter", embedding="cooccurrence")
        data = PreparedDataset.load(f"{scratch}/data")
    torch.manual_seed(0)
    rqvae = RQVAEModel(RQVAEConfig(input_size=data.embeddings.shape[1]))
    initialize_codebooks(rqvae, torch.from_numpy(data.embeddings))
    model = build_recommender(rqvae, torch.from_numpy(data.embeddings), num_transitions=64, **sizes).eval().to(dtype)
    model.catalogue.set_transitions(*strongest_transitions(data, 64))
    return model, histories_of(data, users)


def histories_of(data: PreparedDataset, users: int) -> list[torch.Tensor]:
    """Returns the histories `[items]` of random test users."""
    test = data.test
    rows = np.random.default_rng(0).choice(len(test), users, replace=False)
    starts, ends = test.offsets[rows], test.offsets[rows + 1] - 1
    return [torch.from_numpy(test.sequences[start:end][-50:]) for start, end in zip(starts, ends)]


def batch_of(model, histories: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    return model.catalogue.inputs_from_items(torch.nn.utils.rnn.pad_sequence(histories, batch_first=True))


def model_flops(model, histories: list[torch.Tensor]) -> float:
    """Returns the floating point operations that decoding these users needs: no padding, and 4 own keys per beam."""
    config = model.config
    inner, width = config.num_heads * config.d_kv, config.d_model
    attention, feed_forward = 2 * 4 * width * inner, 2 * 2 * width * config.d_ff
    total = 0.0
    steps = [1] + [BEAMS] * (config.code_length - 1)
    for history in histories:
        tokens = len(history) * config.code_length
        total += config.num_layers * tokens * (attention + feed_forward + 2 * 2 * tokens * inner)
        total += config.num_decoder_layers * tokens * 2 * 2 * width * inner  # cross-attention keys and values
        for step, beams in enumerate(steps, start=1):
            cross = 2 * 2 * width * inner + 2 * 2 * tokens * inner
            layer = attention + 2 * 2 * step * inner + cross + feed_forward
            total += beams * (config.num_decoder_layers * layer + 2 * width * config.codebook_size)
    return total


def matmul_rate(dtype: torch.dtype, seconds: float = 0.3) -> float:
    """Returns the floating point operations per second of a plain matrix product."""
    size = 1024
    left, right = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    left @ right
    products, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        left @ right
        products += 1
    return products * 2 * size**3 / spent


def dict_trie(model) -> dict[tuple[int, ...], list[int]]:
    """Returns a dict from prefixes of token ids to the token ids that may follow, as is usual for `generate`."""
    following: dict[tuple[int, ...], set[int]] = {}
    for tokens in model.catalogue.item_tokens[1:].tolist():
        for level, token in enumerate(tokens):
            following.setdefault(tuple(tokens[:level]), set()).add(token)
    return {prefix: sorted(tokens) for prefix, tokens in following.items()}


def contestants(model) -> dict:
    """Returns functions that decode a batch, by their names."""
    trie = dict_trie(model)
    options = {"num_beams": BEAMS, "num_return_sequences": TOP_K, "length_penalty": 0.0}

    def with_dict(batch):
        return GenerationMixin.generate(
            model,
            **batch,
            **options,
            max_new_tokens=model.config.code_length,
            prefix_allowed_tokens_fn=lambda _, tokens: trie[tuple(tokens.tolist()[1:])],
        )

    return {
        "recommend": lambda batch: model.recommend(**batch, top_k=TOP_K, num_beams=BEAMS, max_batch_tokens=10**9),
        "generate, constrained by our trie": lambda batch: model.generate(**batch, **options),
        "generate, prefix_allowed_tokens_fn over a dict": with_dict,
    }


def users_a_second(decode, model, histories: list[torch.Tensor], size: int) -> float:
    """Returns how many users are decoded per second, in batches of similar length."""
    histories = sorted(histories, key=len)
    batches = [batch_of(model, histories[start : start + size]) for start in range(0, len(histories), size)]
    start = time.perf_counter()
    for batch in batches:
        decode(batch)
    return len(histories) / (time.perf_counter() - start)


def share(model, histories: list[torch.Tensor], dtype: torch.dtype) -> float:
    """Returns the best share over batch sizes; products and batches take turns, because a machine's speed drifts."""
    histories = sorted(histories, key=len)
    shares = []
    for size in (32, 64, 128):
        batches = [histories[start : start + size] for start in range(0, len(histories), size)]
        measured = []
        for few in batches:
            rate = matmul_rate(dtype, seconds=0.1)
            seconds = len(few) / users_a_second(contestants(model)["recommend"], model, few, size)
            measured.append(model_flops(model, few) / seconds / rate)
        shares.append(statistics.median(measured))
    return max(shares)


def speed(model, histories: list[torch.Tensor], dtype: torch.dtype, rounds: int) -> None:
    sample = {"recommend": histories[:512]}
    sizes = (32, 64, 128)
    best = {}
    for name, decode in contestants(model).items():
        few = sample.get(name, histories[:128])
        decode(batch_of(model, few[:8]))
        best[name] = max(sizes, key=lambda size: users_a_second(decode, model, few, size))
    rates: dict[str, list[float]] = {name: [] for name in best}
    for _ in range(rounds):
        for name, decode in contestants(model).items():
            few = sample.get(name, histories[:128])
            rates[name].append(users_a_second(decode, model, few, best[name]))
    own = rates["recommend"]
    for name, measured in rates.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(own, measured))
        print(f"{name:<48} batch {best[name]:<4} {statistics.median(measured):8.1f} users/s   {ratio:5.1f}x behind")
    print(f"recommend's model FLOPs per second are {share(model, histories, dtype):.0%} of a plain matrix product's")


def latency(model, histories: list[torch.Tensor]) -> None:
    times = []
    with torch.inference_mode():
        for history in histories[:120]:
            batch = batch_of(model, [history])
            start = time.perf_counter()
            model.recommend(**batch, top_k=TOP_K, num_beams=BEAMS)
            times.append(time.perf_counter() - start)
    print(f"one user, beam {BEAMS}: median {1000 * statistics.median(times[20:]):.1f} ms")


def options_of_a_search(name: str, model, histories: list[torch.Tensor]) -> None:
    """Prints the time that re-ranking and transition votes add to a search."""
    batches = [batch_of(model, sorted(histories, key=len)[start : start + 64]) for start in range(0, 512, 64)]
    added: dict[str, list[float]] = {"rerank_weight": [], "transition_weight": []}
    for batch in batches * 3:
        seconds = {}
        for option in (None, *added):
            weight = {option: 0.5} if option else {}
            start = time.perf_counter()
            for _ in range(2):
                model.recommend(**batch, top_k=TOP_K, num_beams=BEAMS, **weight)
            seconds[option] = time.perf_counter() - start
        for option, ratios in added.items():
            ratios.append(seconds[option] / seconds[None])
    for option, ratios in added.items():
        print(f"`{option}` adds {statistics.median(ratios) - 1:.1%} to a search of {name} (beam {BEAMS}, 64 users)")


def profile(model, histories: list[torch.Tensor]) -> None:
    """Prints the operations that take most of the time for 64 users, by torch's profiler (self time)."""
    batch = batch_of(model, sorted(histories, key=len)[480:544])
    groups = dict.fromkeys(("projections and feed-forward", "attention", "copies", "norms", "rest"), 0.0)
    with torch.profiler.profile(record_shapes=True) as profiler, torch.inference_mode():
        for _ in range(4):
            model.recommend(**batch, max_batch_tokens=10**9)
    for event in profiler.key_averages(group_by_input_shape=True):
        name, shapes = event.key.removeprefix("aten::"), event.input_shapes
        by_user = name == "bmm" and shapes[0][0] > model.config.num_heads
        if by_user or name in ("baddbmm", "baddbmm_", "_softmax"):
            group = "attention"
        elif name in ("bmm", "mm", "addmm", "relu_", "clamp_min_"):
            group = "projections and feed-forward"
        elif name in ("copy_", "cat", "clone"):
            group = "copies"
        elif name in ("linalg_vector_norm", "pow_", "div_", "rsqrt_", "mul", "mul_", "add_"):
            group = "norms"
        else:
            group = "rest"
        groups[group] += event.self_cpu_time_total
    total = sum(groups.values())
    print("where it goes: " + ", ".join(f"{group} {time / total:.0%}" for group, time in groups.items()))


def random_codes(n_items: int) -> torch.Tensor:
    """Returns distinct codes `[n_items, 4]` with 256 codes per level."""
    numbers = torch.randint(0, 256**4, (n_items + n_items // 100,), generator=torch.Generator().manual_seed(0))
    numbers = numbers.unique()
    numbers = numbers[torch.randperm(len(numbers))[:n_items]]
    return torch.stack([numbers >> shift & 255 for shift in (24, 16, 8, 0)], dim=1)


def search_with(trie: CodeTrie, model, batch: dict[str, torch.Tensor]) -> float:
    """Returns the seconds of a search for items of `trie`."""
    start = time.perf_counter()
    with torch.inference_mode():
        states = encode(model.encoder, batch["input_ids"], batch["attention_mask"])
        beam_search(BeamDecoder(model, EncodedBatch(**batch, states=states)), CodeDistribution(trie), BEAMS)
    return time.perf_counter() - start


def size(model, histories: list[torch.Tensor]) -> None:
    """Measures a trie of ten million items, and decoding with it compared with a trie of ten thousand."""
    small = CodeTrie.from_item_codes(random_codes(10_000), 256)
    codes = random_codes(10_000_000)
    start = time.perf_counter()
    large = CodeTrie.from_item_codes(codes, 256)
    built = time.perf_counter() - start
    held = sum(tensor.nbytes for tensor in vars(large).values() if isinstance(tensor, torch.Tensor))
    print(f"trie of 10,000,000 random items: built in {built:.1f} s, {held / 1e6:.0f} MB")
    batch = batch_of(model, histories[:64])
    ratios = [search_with(large, model, batch) / search_with(small, model, batch) for _ in range(20)]
    print(f"decoding among them takes {statistics.median(ratios):.2f} times as long as among 10,000")


def memory(model) -> None:
    """Measures the process's peak of memory while `recommend` decodes 1,024 random histories with beam 50."""
    histories = [torch.randint(1, model.config.n_items + 1, (50,)) for _ in range(1024)]
    batch = batch_of(model, histories)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak
    model.recommend(**batch, top_k=TOP_K, num_beams=50)
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 1e6
    print(f"1,024 users of 50 items each, beam 50: the whole process takes {peak:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("speed", "latency", "options", "profile", "size", "memory"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    model, histories = load(options.folder, dtype, 1024)
    if options.only in (None, "speed"):
        speed(model, histories, dtype, options.rounds)
    if options.only in (None, "latency"):
        latency(model, histories)
    if options.only in (None, "options"):
        options_of_a_search("the default model", model, histories)
        options_of_a_search("the recipe's", *load(options.folder, dtype, 1024, **RECIPE))
    if options.only in (None, "profile"):
        profile(model, histories)
    if options.only in (None, "size"):
        size(model, histories)
    if options.only in (None, "memory"):
        memory(model)


if __name__ == "__main__":
    main()
