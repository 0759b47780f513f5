import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etegrec_hf import RQVAEConfig, RQVAEModel
from etegrec_hf.evaluation import code_diagnostics as module
from etegrec_hf.evaluation.code_diagnostics import (
    code_diagnostics,
    neighbour_sharing,
    prefix_sizes,
    tokenizer_diagnostics,
)


def draw_codes(seed: int, n: int, levels: int, codebook_size: int) -> torch.Tensor:
    return torch.randint(codebook_size, (n, levels), generator=torch.Generator().manual_seed(seed))


# Codes alone


@pytest.mark.parametrize(
    ("codes", "gini"),
    [
        ([0, 1, 2, 3], 0),
        ([2, 2, 2, 2, 2], 3 / 4),
        ([0, 0, 0, 1], 10 / 16),  # sorted 0, 0, 1, 3 with weights -3, -1, 1, 3
    ],
)
def test_gini_by_hand(codes, gini):
    assert code_diagnostics(torch.tensor(codes).unsqueeze(1), 4)["gini_0"] == gini


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 9))
def test_gini_is_the_relative_mean_difference(seed, n, codebook_size):
    codes = draw_codes(seed, n, 1, codebook_size)
    counts = [int((codes == code).sum()) for code in range(codebook_size)]
    differences = sum(abs(a - b) for a in counts for b in counts) / codebook_size**2
    assert code_diagnostics(codes, codebook_size)["gini_0"] == pytest.approx(differences / (2 * n / codebook_size))


def test_prefixes_by_hand():
    codes = torch.tensor([[3, 0, 1], [3, 0, 2], [1, 0, 1], [3, 1, 1], [3, 0, 2]])
    assert [sizes.tolist() for sizes in prefix_sizes(codes)] == [[4, 1], [3, 1, 1], [2, 1, 1, 1]]
    figures = code_diagnostics(codes, 4)
    assert [figures[f"prefixes_{level}"] for level in range(3)] == [2, 3, 4]
    assert figures["collision_rate"] == 2 / 5
    assert figures["largest_collision"] == 2


@given(st.integers(0, 1000), st.integers(1, 60), st.integers(1, 6), st.sampled_from([1, 2, 5, 1 << 16]))
def test_prefix_sizes_agree_with_a_counter(seed, n, levels, codebook_size):
    codes = draw_codes(seed, n, levels, codebook_size)[torch.arange(n) // 2]  # so that all depths have collisions
    for depth, sizes in enumerate(prefix_sizes(codes), start=1):
        counts = Counter(tuple(row[:depth]) for row in codes.tolist())
        assert sizes.tolist() == sorted(counts.values(), reverse=True)


# Codes beside embeddings


def test_neighbours_by_hand():
    angles = torch.tensor([0.0, 10, 90, 95]) * math.pi / 180
    lengths = torch.tensor([[1.0], [50], [2], [60]])  # by Euclid, 0 and 2 would be neighbours, and 1 and 3
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1) * lengths
    figures = neighbour_sharing(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 0]]), embeddings, neighbours=1)
    assert figures == pytest.approx(
        {
            "neighbours_share_1": 1,  # 0 and 1, and 2 and 3, are each other's neighbour
            "chance_share_1": 4 / 12,
            "neighbours_share_2": 1 / 2,
            "chance_share_2": 2 / 12,
        }
    )


def slow_sharing(codes: torch.Tensor, embeddings: torch.Tensor, neighbours: int) -> dict[str, float]:
    """All items asked, in plain loops."""
    items = [row for row in range(len(codes)) if embeddings[row].abs().sum() > 0]
    near, pairs = [], []
    for item in items:
        others = [other for other in items if other != item]
        cosine = {o: torch.cosine_similarity(embeddings[item].double(), embeddings[o].double(), dim=0) for o in others}
        near += [(item, other) for other in sorted(others, key=lambda o: -cosine[o])[:neighbours]]
        pairs += [(item, other) for other in others]
    figures = {}
    for depth in range(1, codes.shape[1] + 1):
        for name, listed in (("neighbours", near), ("chance", pairs)):
            same = [codes[a, :depth].tolist() == codes[b, :depth].tolist() for a, b in listed]
            figures[f"{name}_share_{depth}"] = sum(same) / len(same)
    return figures


@given(st.integers(0, 1000), st.integers(2, 16), st.integers(1, 12), st.integers(0, 3))
def test_sharing_agrees_with_plain_loops(seed, n, neighbours, without_embedding):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n + without_embedding, 4, generator=generator)
    embeddings[torch.randperm(len(embeddings), generator=generator)[:without_embedding]] = 0
    codes = draw_codes(seed, len(embeddings), 3, 2)
    expected = slow_sharing(codes, embeddings, neighbours)
    assert neighbour_sharing(codes, embeddings, neighbours) == pytest.approx(expected)


def test_where_all_others_are_neighbours_they_share_what_chance_gives():
    figures = neighbour_sharing(draw_codes(0, 9, 2, 2), torch.randn(9, 3), neighbours=10)
    assert figures["neighbours_share_1"] == pytest.approx(figures["chance_share_1"])
    assert figures["neighbours_share_2"] == pytest.approx(figures["chance_share_2"])


def test_no_item_is_its_own_neighbour_among_equals():
    figures = neighbour_sharing(torch.arange(40).unsqueeze(1), torch.ones(40, 3), neighbours=5)
    assert figures == {"neighbours_share_1": 0, "chance_share_1": 0}


def test_a_sample_is_fixed_by_its_seed():
    codes, embeddings = draw_codes(0, 200, 2, 3), torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    shares = [neighbour_sharing(codes, embeddings, 1, samples=7, seed=seed)["neighbours_share_1"] for seed in range(9)]
    assert shares[3] == neighbour_sharing(codes, embeddings, 1, samples=7, seed=3)["neighbours_share_1"]
    assert len(set(shares)) > 1
    assert [share * 7 for share in shares] == pytest.approx([round(share * 7) for share in shares]), "7 pairs each"


@pytest.mark.parametrize(
    ("embeddings", "options", "message"),
    [
        (
            torch.zeros(4, 2),
            {},
            "0 of 4 items have an embedding that is not all zero, but at least 2 are needed to find neighbours",
        ),
        (torch.eye(4)[:, :1], {}, "1 of 4 items has an embedding"),
        (torch.ones(3, 2), {}, "there are codes of 4 items and embeddings of 3; give both of the same items"),
        (torch.ones(4, 2), {"neighbours": 0}, "`neighbours` is 0 and `samples` is 2000; both must be at least 1"),
        (torch.ones(4, 2), {"samples": 0}, "`samples` is 0"),
    ],
)
def test_what_has_no_neighbours_is_an_error(embeddings, options, message):
    with pytest.raises(ValueError, match=message):
        neighbour_sharing(torch.zeros(4, 2, dtype=torch.long), embeddings, **options)


# A tokenizer


def make_tokenizer(seed: int = 0, **config) -> RQVAEModel:
    torch.manual_seed(seed)
    sizes = {"input_size": 6, "hidden_sizes": [8], "latent_size": 4, "num_levels": 2, "codebook_size": 5}
    return RQVAEModel(RQVAEConfig(**(sizes | config))).eval()


@torch.no_grad()
def test_a_perfect_reconstruction_leaves_nothing_unexplained():
    embeddings = torch.tensor([[0.0, 1], [2, 0], [3, 3], [0, 1]])
    model = make_tokenizer(input_size=2, hidden_sizes=[], latent_size=2, num_levels=1, codebook_size=4)
    for (layer,) in (model.encoder, model.decoder):
        layer.weight.copy_(torch.eye(2))
    model.quantizer.codebooks.copy_(embeddings.unsqueeze(0))
    figures = tokenizer_diagnostics(model, embeddings)
    assert figures["unexplained_variance"] == figures["reconstruction_loss"] == 0
    assert figures["prefixes_0"] == 3


@torch.no_grad()
@pytest.mark.parametrize("offset", [0, 1000])
def test_the_mean_explains_nothing(offset):
    embeddings = torch.randn(50, 6) * torch.tensor([1.0, 2, 3, 4, 5, 6]) + offset
    model = make_tokenizer()
    model.decoder[-1].weight.zero_()
    model.decoder[-1].bias.copy_(embeddings.mean(0))
    figures = tokenizer_diagnostics(model, embeddings)
    assert figures["unexplained_variance"] == pytest.approx(1, abs=1e-5)
    assert figures["reconstruction_loss"] == pytest.approx(embeddings.var(0, correction=0).mean().item(), rel=1e-5)


def test_a_tokenizer_is_told_of_batch_by_batch(monkeypatch):
    monkeypatch.setattr(module, "BATCH_SIZE", 7)
    model, embeddings = make_tokenizer(), torch.randn(30, 6)
    figures = tokenizer_diagnostics(model, embeddings)
    codes = model.encode(embeddings)
    assert figures["reconstruction_loss"] == pytest.approx(model(embeddings).reconstruction_loss.item())
    told = code_diagnostics(codes, 5) | neighbour_sharing(codes, embeddings)
    assert {name: figures[name] for name in told} == told
    assert set(figures) - set(told) == {"reconstruction_loss", "unexplained_variance"}


def test_items_that_are_all_alike_are_an_error():
    with pytest.raises(ValueError, match=r"all 4 items have the same embedding; give embeddings that tell items"):
        tokenizer_diagnostics(make_tokenizer(), torch.ones(4, 6))
