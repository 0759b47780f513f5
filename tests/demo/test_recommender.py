"""The recommender of the demo: lists, beams, searches, histories, similar and popular items."""

import math

import pytest
import torch
from tiny_models import make_model, random_codes

from etegrec_hf import ETEGRecTokenizer
from etegrec_hf.demo.recommender import DemoRecommender, SimilarItems


@pytest.fixture
def demo(model, tokenizer) -> DemoRecommender:
    tokenizer.item_titles = {"i3": "Amber guitar", "i14": "Green Guitar", "i5": "Guitar strings", "i30": "i1 of many"}
    return DemoRecommender(model, tokenizer)


@pytest.fixture
def with_data(prepared) -> DemoRecommender:
    codes = random_codes(prepared.n_items, 3, 8)
    backwards = prepared.item_ids[::-1]  # the model's order need not be the dataset's
    return DemoRecommender(make_model(codes, 8), ETEGRecTokenizer.from_item_codes(backwards, codes, 8), prepared)


def test_the_list_is_that_of_recommend(demo):
    history = ["i4", "i9", "i9"]
    found = demo.recommend(history, top_k=5, num_beams=12)
    items, scores = demo.model.recommend(**demo.tokenizer([history], return_tensors="pt"), top_k=5, num_beams=12)
    assert found.item_ids == demo.tokenizer.ids_of(items[0])
    assert found.scores == scores[0].tolist()


def test_the_models_own_settings_are_those_of_the_list(demo):
    before = demo.recommend(["i4", "i9"], top_k=5, num_beams=30)
    demo.model.config.search_settings = {"num_beams": 30, "exclude_history": True, "rerank_weight": 3.0}
    assert (demo.settings.num_beams, demo.settings.exclude_history) == (30, True)
    found = demo.recommend(["i4", "i9"], top_k=5, num_beams=30)
    items, scores = demo.model.recommend(**demo.tokenizer([["i4", "i9"]], return_tensors="pt"), top_k=5)
    assert (found.item_ids, found.scores) == (demo.tokenizer.ids_of(items[0]), scores[0].tolist())
    assert found.item_ids != before.item_ids
    assert (before.is_reranked, found.is_reranked) == (False, True)
    drawn = demo.recommend(["i4", "i9"], top_k=40, num_beams=40, temperature=1.0)
    assert not drawn.is_reranked
    assert not {"i4", "i9"} & set(drawn.item_ids)
    assert "i4" in demo.recommend(["i4", "i9"], top_k=40, num_beams=40, exclude_history=False).item_ids


def test_the_beam_holds_the_kept_prefixes_with_the_models_probabilities(demo):
    history = ["i4", "i9"]
    found = demo.recommend(history, top_k=5, num_beams=12)
    assert [len(level) for level in found.beam] == [8, 12, 12]
    batch = demo.tokenizer([history], return_tensors="pt")
    tokens = demo.tokenizer.item_tokens
    for leaf in found.beam[2]:
        prefix = found.beam[1][leaf.parent]
        path = [found.beam[0][prefix.parent], prefix, leaf]
        assert [step.token for step in path] == demo.codes(leaf.item_id)
        labels = tokens[demo.tokenizer.index_of([leaf.item_id])]  # [1, 3]
        with torch.no_grad():
            steps = demo.model(**batch, labels=labels).logits.log_softmax(-1)[0]  # [3, K]
        log_p = steps.gather(1, ((labels[0] - 1) % 8).unsqueeze(1)).squeeze(1).cumsum(0).tolist()
        for level, (step, wanted) in enumerate(zip(path, log_p), start=1):
            assert step.probability == pytest.approx(math.exp(wanted), rel=1e-4)
            below = (tokens[1:, :level] == labels[:, :level]).all(1).sum().item()
            assert step.n_items == below
    leaves = sorted(found.beam[2], key=lambda leaf: -leaf.probability)
    assert [leaf.item_id for leaf in leaves[:5]] == found.item_ids


def test_excluded_items_are_in_neither_list_nor_beam(demo):
    history = ["i4", "i9"]
    first = demo.recommend(history, top_k=5, num_beams=40).item_ids
    found = demo.recommend(history, top_k=5, num_beams=40, exclude=first[:2], exclude_history=True)
    left_out = {*first[:2], *history}
    assert len(found.item_ids) == 5
    assert left_out.isdisjoint(found.item_ids)
    assert {leaf.item_id for leaf in found.beam[-1]} == set(demo.tokenizer.item_ids) - left_out


def test_the_whole_history_is_left_out_though_its_last_items_are_read(demo):
    history = [f"i{row}" for row in range(1, 31)]  # max_history is 10
    found = demo.recommend(history, top_k=20, num_beams=40, exclude_history=True)
    assert sorted(found.item_ids) == sorted(f"i{row}" for row in range(31, 41))


def test_nothing_is_left(demo):
    found = demo.recommend(["i4"], top_k=5, num_beams=12, exclude=demo.tokenizer.item_ids)
    assert found.item_ids == found.scores == found.beam[-1] == []


def test_a_temperature_draws_from_the_softened_distribution(demo):
    torch.manual_seed(0)
    draws = [demo.recommend(["i4"], top_k=40, num_beams=40, temperature=1.7) for _ in range(2)]
    assert draws[0].item_ids != draws[1].item_ids
    assert sum(map(math.exp, draws[0].scores)) == pytest.approx(1, rel=1e-4)  # all items of the distribution
    batch = demo.tokenizer([["i4"]], return_tensors="pt")
    items, scores = demo.model.sample_items(**batch, num_samples=40, temperature=1.7)
    wanted = dict(zip(demo.tokenizer.ids_of(items[0]), scores[0].tolist()))
    for item_id, score in zip(draws[1].item_ids, draws[1].scores):
        assert score == pytest.approx(wanted[item_id], abs=1e-4)


def test_a_beam_narrower_than_the_list_is_refused(demo):
    with pytest.raises(ValueError, match="`num_beams` is 4 and `top_k` is 5"):
        demo.recommend(["i4"], top_k=5, num_beams=4)


def test_items_are_found_by_words_of_title_and_id(demo):
    assert demo.find("guitar", 10) == (["i5", "i3", "i14"], 3)  # first the title that begins so
    assert demo.find("GUITAR green", 10) == (["i14"], 1)
    assert demo.find("i1", 3) == (["i1", "i10", "i11"], 12)  # also i12 to i19, and "i1 of many"
    assert demo.find(" i14 ", 10) == (["i14"], 1)
    assert demo.find("  ", 10) == ([], 0)
    assert demo.find("nothing of that", 10) == ([], 0)


def test_words_with_typing_errors_find_titles_with_words_like_them(demo):
    assert demo.near("gutar", 10) == ["i3", "i5", "i14"]
    assert demo.near("ambr guittar", 10) == ["i3"]  # each word
    assert demo.near("gren guitar", 10) == ["i14"]
    assert demo.near("gutar", 2) == ["i3", "i5"]
    assert demo.near("strngs i5", 10) == ["i5"]
    assert demo.near("nothing", 10) == []
    assert demo.near(" ", 10) == []


def test_choices_are_told_apart(demo):
    demo.titles |= {"i6": "Amber guitar"}
    wanted = [("Amber guitar (i3)", "i3"), ("i4", "i4"), ("Amber guitar (i6)", "i6"), ("Green Guitar", "i14")]
    assert demo.choices(["i3", "i4", "i3", "i6", "i14"]) == wanted


def test_a_history_is_read_from_lines_and_commas(demo):
    assert demo.read_history(" i3\n\ni4, i5,\n") == ["i3", "i4", "i5"]
    assert demo.read_history(" \n,") == []
    with pytest.raises(ValueError, match=r"names 'i99', 'x y', not in the catalogue of 40 items; correct or remove"):
        demo.read_history("i3\ni99,i4\nx y")


def test_an_id_may_hold_a_comma(codes):
    ids = ["a,b", *(f"i{row}" for row in range(2, 41))]
    demo = DemoRecommender(make_model(codes, 8), ETEGRecTokenizer.from_item_codes(ids, codes, 8))
    assert demo.read_history("a,b\ni2,i3") == ["a,b", "i2", "i3"]
    assert demo.read_history('["a,b", "i2"]\ni3') == ["a,b", "i2", "i3"]
    with pytest.raises(ValueError, match=r"names 'a', 'b'.*written as a JSON list"):
        demo.read_history("i2,a,b")


def test_similar_items_share_the_longest_prefix():
    codes = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 2], [2, 2, 2]])
    tokenizer = ETEGRecTokenizer.from_item_codes([f"i{row}" for row in range(1, 7)], codes, 8)
    demo = DemoRecommender(make_model(codes, 8), tokenizer)
    assert demo.similar("i1", 10) == SimilarItems(["i2", "i5"], 2, 2)
    assert demo.similar("i1", 1) == SimilarItems(["i2"], 2, 2)
    assert demo.similar("i3", 10) == SimilarItems(["i1", "i2", "i5"], 1, 3)
    assert demo.similar("i6", 10) == SimilarItems([], 0, 0)
    demo.model.remove_items(torch.tensor([2, 5]))
    assert demo.similar("i1", 10) == SimilarItems(["i3"], 1, 1)


def test_popular_items_are_counted_in_training(with_data, prepared):
    item_ids, counts = with_data.popular(3, exclude=[])
    taken = [prepared.item_ids[index - 1] for index in prepared.train.sequences]
    by_count = sorted(set(taken), key=taken.count, reverse=True)
    assert counts == [taken.count(item_id) for item_id in by_count[:3]] == [taken.count(i) for i in item_ids]
    assert item_ids[0] not in with_data.popular(3, exclude=item_ids[:1])[0]
    with_data.model.remove_items(with_data.tokenizer.index_of(item_ids[:1]))
    assert with_data.popular(2, exclude=[])[0] == item_ids[1:]


def test_popular_items_need_counts(demo):
    with pytest.raises(ValueError, match="The history is empty: add an item to it"):
        demo.popular(3, exclude=[])
    demo.model.catalogue.set_item_counts(torch.arange(40).fmod(13))
    for _ in range(2):  # what is excluded counts again the next time
        assert demo.popular(2, exclude=["i13"]) == (["i26", "i39"], [12, 12])
    assert demo.popular(2, exclude=[]) == (["i13", "i26"], [12, 12])
    demo.model.remove_items([13])
    assert demo.popular(2, exclude=[]) == (["i26", "i39"], [12, 12])


def test_a_random_user_is_one_of_the_test_split(with_data, prepared):
    drawn = with_data.random_history()
    row = prepared.test.user_ids.index(drawn.user_id)
    start, end = prepared.test.offsets[row : row + 2]
    ids = [prepared.item_ids[index - 1] for index in prepared.test.sequences[start:end]]
    assert [*drawn.item_ids, drawn.next_id] == ids


def test_the_example_is_a_short_history_and_always_the_same(with_data, prepared, demo):
    example = with_data.example_history()
    assert example == with_data.example_history()
    row = prepared.test.user_ids.index(example.user_id)
    ids = [prepared.item_ids[index - 1] for index in prepared.test.row(row)]
    assert [*example.item_ids, example.next_id] == ids
    others = [abs(len(prepared.test.row(other)) - 1 - 4) for other in range(100)]
    assert abs(len(example.item_ids) - 4) == min(others)
    assert demo.example_history().item_ids == ["i1", "i2", "i3", "i4"]
    assert demo.example_history().user_id is None


def test_random_items_without_data(demo):
    drawn = demo.random_history()
    assert 3 <= len(set(drawn.item_ids)) == len(drawn.item_ids) <= 8
    assert set(drawn.item_ids) <= set(demo.tokenizer.item_ids)
    assert drawn.user_id is None
    assert drawn.next_id is None


def test_titles_of_the_dataset_fill_in_for_the_models(with_data, prepared, demo):
    assert with_data.titles == prepared.title_of
    assert demo.label("i3") == "Amber guitar"
    assert demo.label("i4") == "i4"


def test_a_dataset_with_items_that_the_model_lacks_is_refused(model, tokenizer, prepared):
    with pytest.raises(ValueError, match="60 of the dataset's 60 items are not in the catalogue of 40"):
        DemoRecommender(model, tokenizer, prepared)
