"""Weights that are chosen on validation users, on data in which the last items say what comes next."""

from dataclasses import replace
from itertools import product

import pytest
from tiny_models import make_model, random_codes

from etegrec_hf import (
    ETEGRecTokenizer,
    EvaluateOptions,
    PreparedDataset,
    RecommendOptions,
    SearchOptions,
    SearchSettings,
    batch_recommend,
    choose_settings,
    evaluate,
    strongest_transitions,
)
from etegrec_hf.data.table_files import TABLE_ENDINGS
from etegrec_hf.evaluation.metrics import ranking_metrics
from etegrec_hf.evaluation.recommend_split import recommend_split
from etegrec_hf.evaluation.sample_recommendations import sample_recommendations

VALIDATION = EvaluateOptions(split="validation", num_beams=15, batch_size=50)
OWN = {"num_beams": 12, "exclude_history": True, "rerank_weight": 3.0, "transition_weight": 0.4}


def make_recommender(prepared, count: int = 10, **config):
    """An untrained recommender that keeps `count` transitions of the training log, and its tokenizer."""
    codes = random_codes(prepared.n_items, 3, 8)
    model = make_model(codes, 8, num_transitions=count, **config)
    if count:
        model.catalogue.set_transitions(*strongest_transitions(prepared, count))
    return model, ETEGRecTokenizer.from_item_codes(prepared.item_ids, codes, 8)


@pytest.mark.parametrize("encoder", ["bidirectional", "causal"])
def test_every_pair_of_weights_is_measured_as_a_search_of_its_own(prepared, encoder):
    model, tokenizer = make_recommender(prepared, encoder_attention=encoder)
    chosen = choose_settings(model, tokenizer, prepared, VALIDATION, [0.6, 0.2], [2.0])
    by_hand = {}
    for vote, weight in product((0.0, 0.2, 0.6), (0.0, 2.0)):
        options = SearchOptions(15, 15, rerank_weight=weight, transition_weight=vote)
        ranked = recommend_split(model, prepared.validation, options)
        by_hand[vote, weight] = ranking_metrics(ranked, prepared.validation.targets)
    assert [(one.pop("transition_weight"), one.pop("rerank_weight")) for one in chosen.tried] == list(by_hand)
    for one, metrics in zip(chosen.tried, by_hand.values()):
        assert one == pytest.approx(metrics)
    vote, weight = max(by_hand, key=lambda pair: by_hand[pair]["ndcg@10"])
    assert vote > 0, "an untrained model knows less than votes do"
    expected = SearchSettings(15, False, rerank_weight=weight, transition_weight=vote)
    assert SearchSettings.of(chosen.settings) == expected


def test_weight_0_stays_unless_another_is_better(prepared):
    recommender = make_recommender(prepared)
    chosen = choose_settings(*recommender, prepared, VALIDATION, [1e-12], [1e-12])
    assert len({one["ndcg@10"] for one in chosen.tried}) == 1, "weights that change no list"
    assert SearchSettings.of(chosen.settings) == SearchSettings(num_beams=15)


def test_only_what_a_model_can_follow_is_tried(prepared):
    bare = make_recommender(prepared, count=0, has_item_tokenizer=False)
    (one,) = choose_settings(*bare, prepared, VALIDATION).tried
    assert (one["transition_weight"], one["rerank_weight"]) == (0, 0)
    tried = choose_settings(*make_recommender(prepared), prepared, replace(VALIDATION, rerank_weight=3.0)).tried
    assert {one["rerank_weight"] for one in tried} == {3.0}, "a weight that is given isn't chosen"
    assert [one["transition_weight"] for one in tried] == [0, 0.1, 0.2, 0.3, 0.5, 0.7]


def test_test_users_are_neither_read_nor_asked_for(prepared, prepared_folder):
    recommender = make_recommender(prepared)
    without = PreparedDataset.load(prepared_folder, ("train", "validation"))
    chosen = choose_settings(*recommender, prepared, VALIDATION, [0.5], [])
    assert choose_settings(*recommender, without, VALIDATION, [0.5], []) == chosen
    with pytest.raises(ValueError, match="`split` is 'test', but weights must be chosen on 'validat"):
        choose_settings(*recommender, prepared, EvaluateOptions())
    with pytest.raises(ValueError, match="`num_beams` is 9, but weights are chosen by ndcg@10; give 10 or more"):
        choose_settings(*recommender, prepared, replace(VALIDATION, num_beams=9))


def test_an_evaluation_follows_the_model_that_it_is_of(prepared):
    """And so does the choice, in all settings but the weights."""
    own, tokenizer = make_recommender(prepared, search_settings=OWN)
    bare, _ = make_recommender(prepared)
    found = evaluate(own, tokenizer, prepared, EvaluateOptions(split="validation"))
    weights = {"rerank_weight": 3.0, "transition_weight": 0.4}
    given = EvaluateOptions(split="validation", num_beams=12, exclude_seen=True, **weights)
    expected = evaluate(bare, tokenizer, prepared, given)
    assert found.metrics == expected.metrics
    assert found.protocol == expected.protocol
    assert found.protocol["num_beams"] == 12
    assert found.protocol["seen_items"] == "left out"
    assert (found.rerank_weight, found.transition_weight) == (3.0, 0.4)
    off = EvaluateOptions(split="validation", num_beams=50, exclude_seen=False, rerank_weight=0, transition_weight=0)
    assert evaluate(own, tokenizer, prepared, off).metrics == evaluate(bare, tokenizer, prepared, off).metrics
    assert EvaluateOptions().settings(bare).num_beams == 50, "which it was before models had settings"
    chosen = choose_settings(own, tokenizer, prepared, EvaluateOptions(split="validation"), [0.4], [3.0])
    assert {name: chosen.settings[name] for name in ("num_beams", "exclude_history")} == {
        "num_beams": 12,
        "exclude_history": True,
    }
    assert chosen.tried[-1]["ndcg@10"] == pytest.approx(found.metrics["ndcg@10"])


def test_a_batch_of_users_follows_the_model(prepared, prepared_folder, tmp_path):
    own, tokenizer = make_recommender(prepared, search_settings=OWN)
    bare, _ = make_recommender(prepared)
    ending = TABLE_ENDINGS[-1]
    files = [tmp_path / f"{name}{ending}" for name in ("own", "bare", "off")]
    batch_recommend(own, tokenizer, prepared_folder, files[0], RecommendOptions(top_k=5))
    batch_recommend(bare, tokenizer, prepared_folder, files[1], RecommendOptions(top_k=5, **OWN))
    off = RecommendOptions(top_k=5, transition_weight=0, exclude_history=False)
    batch_recommend(own, tokenizer, prepared_folder, files[2], off)
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def test_training_judges_codes_alone(prepared):
    own, _ = make_recommender(prepared, search_settings=OWN)
    bare, _ = make_recommender(prepared)
    assert sample_recommendations(own, prepared.validation) == sample_recommendations(bare, prepared.validation)
