import math

import numpy as np
import pytest
import torch
from tiny_models import make_model, random_codes

from etegrec_hf.evaluation.code_diagnostics import code_diagnostics
from etegrec_hf.evaluation.metrics import ranking_metrics, spread_metrics
from etegrec_hf.evaluation.recommend_split import recommend_split
from etegrec_hf.evaluation.seen import seen_items
from etegrec_hf.models.search_options import SearchOptions


def test_metrics_by_hand():
    ranked = np.array([[7, 3, 5], [1, 2, 3], [4, 6, 0]])
    metrics = ranking_metrics(ranked, np.array([3, 9, 4]), ks=(1, 3, 5))
    assert metrics == pytest.approx(
        {"recall@1": 1 / 3, "ndcg@1": 1 / 3, "recall@3": 2 / 3, "ndcg@3": (1 / math.log2(3) + 1) / 3}
    )


def test_the_spread_of_lists_is_told_for_a_length_that_they_have():
    ranked, counts = np.array([[3, 1, 2], [3, 0, 0]]), np.array([0, 4, 9, 7, 5])
    assert spread_metrics(ranked, counts, k=2) == {"coverage@2": 2 / 4, "popularity@2": (7 + 4 + 7) / 3}
    assert spread_metrics(ranked, counts, k=3) == {"coverage@3": 3 / 4, "popularity@3": (7 + 4 + 9 + 7) / 4}
    assert spread_metrics(ranked, counts, k=4) == {}


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
    ranked = recommend_split(model, prepared.test, SearchOptions(top_k=5, num_beams=8), batch_size=17)
    for row in (0, 57, 119):
        start, end = prepared.test.offsets[row : row + 2]
        history = torch.from_numpy(prepared.test.sequences[start : end - 1])
        alone, _ = model.recommend(model.catalogue.item_tokens[history].flatten().unsqueeze(0), top_k=5, num_beams=8)
        assert ranked[row].tolist() == alone[0].tolist()


def test_seen_items_are_left_out_if_asked_for(prepared):
    model = make_model(random_codes(prepared.n_items, 3, 8), 8)
    histories = [set(row[:-1].tolist()) for row in np.split(prepared.test.sequences, prepared.test.offsets[1:-1])]
    kept = recommend_split(model, prepared.test, SearchOptions(top_k=5, num_beams=8))
    seen = seen_items(prepared, prepared.test)
    left_out = recommend_split(model, prepared.test, SearchOptions(top_k=5, num_beams=8), batch_size=13, seen=seen)
    assert any(history & set(row.tolist()) for history, row in zip(histories, kept))
    assert not any(history & set(row.tolist()) for history, row in zip(histories, left_out))
