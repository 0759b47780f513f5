import math

import numpy as np
import pytest
import torch
from conftest import make_model, random_codes

from etegrec_hf.data.prepared import PreparedDataset, Split
from etegrec_hf.evaluation.baselines import baselines, popularity, transitions
from etegrec_hf.evaluation.code_diagnostics import code_diagnostics
from etegrec_hf.evaluation.evaluate import recommend_split
from etegrec_hf.evaluation.metrics import ranking_metrics


def test_metrics_by_hand():
    ranked = np.array([[7, 3, 5], [1, 2, 3], [4, 6, 0]])
    metrics = ranking_metrics(ranked, np.array([3, 9, 4]), ks=(1, 3, 5))
    assert metrics == pytest.approx(
        {"recall@1": 1 / 3, "ndcg@1": 1 / 3, "recall@3": 2 / 3, "ndcg@3": (1 / math.log2(3) + 1) / 3}
    )


def data_of(train: list[list[int]], test: list[list[int]], n_items: int) -> PreparedDataset:
    def split(rows):
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        return Split([str(row) for row in range(len(rows))], np.concatenate(rows), offsets)

    ids = [str(item) for item in range(1, n_items + 1)]
    return PreparedDataset(ids, [""] * n_items, None, split(train), split(test), split(test), {})


def slow_transitions(data: PreparedDataset, split: Split) -> list[list[int]]:
    """The heuristic in plain loops."""
    n = data.n_items
    counts = np.zeros((n + 1, n + 1))
    for start, end in zip(data.train.offsets, data.train.offsets[1:]):
        row = data.train.sequences[start:end]
        for a in range(len(row)):
            for d in (1, 2, 3):
                if a + d < len(row):
                    counts[row[a], row[a + d]] += 1 / d
                    counts[row[a + d], row[a]] += 0.3 / d
    totals = np.sqrt(counts.sum(axis=1, keepdims=True))
    normed = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    lists = []
    for start, end in zip(split.offsets, split.offsets[1:]):
        history = split.sequences[start : end - 1][::-1][:10]
        votes = sum(normed[item] * 0.7**k for k, item in enumerate(history))
        lists.append(
            sorted((item for item in range(1, n + 1) if votes[item] > 0), key=lambda item: (-votes[item], item))
        )
    return lists


def test_transitions_agree_with_plain_loops():
    random = np.random.default_rng(0)
    rows = [random.integers(1, 31, random.integers(2, 15)).tolist() for _ in range(60)]
    data = data_of(rows[:50], rows, 30)
    lists = slow_transitions(data, data.test)
    for k in (1, 5, 10):
        hits = [target in ranked[:k] for ranked, target in zip(lists, data.test.targets)]
        assert transitions(data, data.test)[f"recall@{k}"] == pytest.approx(np.mean(hits))


def test_popularity_counts_training_alone():
    data = data_of([[1, 2, 2], [2, 3]], [[1, 3, 3], [2, 1, 2]], 4)
    metrics = popularity(data, data.test)
    assert metrics["recall@1"] == 0.5, "2 is the most frequent in training, though 3 is in test"
    assert set(baselines(data, data.test)) == {"popularity", "transitions"}


def test_diagnostics_by_hand():
    codes = torch.tensor([[0, 1], [0, 1], [1, 2], [3, 2], [3, 3], [3, 3]])
    figures = code_diagnostics(codes, 4)
    assert figures["usage_0"] == 0.75
    assert figures["usage_1"] == 0.75
    shares = [2 / 6, 1 / 6, 3 / 6]
    assert figures["perplexity_0"] == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))
    assert figures["collision_rate"] == pytest.approx(4 / 6)
    assert figures["largest_collision"] == 2


def test_a_split_is_ranked_in_its_own_order(prepared):
    model = make_model(random_codes(prepared.n_items, 3, 8), 8)
    ranked = recommend_split(model, prepared.test, top_k=5, num_beams=8, batch_size=17)
    for row in (0, 57, 119):
        start, end = prepared.test.offsets[row : row + 2]
        history = torch.from_numpy(prepared.test.sequences[start : end - 1])
        alone, _ = model.recommend(model.item_tokens[history].flatten().unsqueeze(0), top_k=5, num_beams=8)
        assert ranked[row].tolist() == alone[0].tolist()
