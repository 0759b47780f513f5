"""`pipeline("sequential-recommendation")` in this process; tests/hub has it in a stranger's."""

import itertools
import math
import random

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from tiny_models import make_model, random_codes
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from etegrec_hf import SequentialRecommendationPipeline


@pytest.fixture
def recommend(model, tokenizer) -> SequentialRecommendationPipeline:
    tokenizer.item_titles = {f"i{row}": f"Title {row}" for row in range(1, 21)}
    return pipeline("sequential-recommendation", model=model, tokenizer=tokenizer)


def histories(count: int) -> list[list[str]]:
    generator = random.Random(0)
    return [[f"i{generator.randint(1, 40)}" for _ in range(generator.randint(1, 9))] for _ in range(count)]


def ids(lists: list[list[dict]]) -> list[list[str]]:
    return [[entry["item_id"] for entry in entries] for entries in lists]


def test_a_list_is_recommended_for_as_the_model_does(recommend, model, tokenizer):
    asked = histories(30)
    lists = recommend(asked, top_k=7)
    for history, entries in zip(asked, lists, strict=True):  # one by one, so that padding and order are tried too
        items, scores = model.recommend(**tokenizer([history], return_tensors="pt"), top_k=7)
        assert [entry["item_id"] for entry in entries] == tokenizer.ids_of(items[0])
        torch.testing.assert_close(torch.tensor([entry["score"] for entry in entries]), scores[0], atol=1e-5, rtol=0)
    for entry in itertools.chain(*lists):
        number = int(entry["item_id"][1:])
        assert entry.get("title") == (f"Title {number}" if number <= 20 else None)
        assert ("title" in entry) == (number <= 20)
        assert entry["codes"] == tokenizer.convert_ids_to_tokens(tokenizer.item_tokens[number].tolist())


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_streams_keep_order_and_are_not_read_ahead(recommend, batch_size):
    asked, read = histories(12), []

    def stream():
        for history in asked:
            read.append(history)
            yield history

    results = recommend(stream(), batch_size=batch_size, top_k=3)
    first = next(iter(results))
    assert len(read) <= batch_size + 1
    assert ids([first]) == ids([recommend(asked[0], top_k=3)])
    column = Dataset.from_dict({"history": asked})["history"]
    assert ids(list(recommend(column, batch_size=batch_size, top_k=3))) == ids(recommend(asked, top_k=3))


def test_arrays_series_tuples_and_datasets_are_read_too(recommend, tmp_path):
    asked = histories(6)
    expected = ids(recommend(asked, top_k=3))
    series = pd.Series(asked)
    for form in (series, [np.array(history) for history in asked], tuple(asked), series.map(np.array)):
        assert ids(recommend(form, top_k=3)) == expected
    table = Dataset.from_dict({"history": asked, "exclude": [[] for _ in asked]})
    for stream in (KeyDataset(table, "history"), table.with_format("numpy")["history"], iter(table.to_list())):
        assert ids(list(recommend(stream, top_k=3))) == expected
    assert ids([recommend(np.array(asked[0]), top_k=3)]) == expected[:1]
    assert ids([recommend(tuple(asked[0]), top_k=3)]) == expected[:1]
    first = expected[0][0]
    for banned in ({first}, np.array([first]), pd.Series([first]), (first,)):
        assert first not in ids([recommend(asked[0], exclude=banned)])[0]


def test_one_history_and_none(recommend):
    assert recommend([]) == []
    assert len(recommend(["i1"])) == 10
    assert ids([recommend({"history": ["i1"]})]) == ids([recommend(["i1"])]) == ids(recommend([["i1"]]))


def test_what_is_excluded_is_left_out_of_the_search(recommend):
    asked = histories(5)
    first = [entries[0]["item_id"] for entries in recommend(asked)]
    for entries in ids(recommend(asked, exclude=first)):
        assert len(entries) == 10
        assert not set(entries) & set(first)
    own = [[item_id] for item_id in first]
    streamed = ({"history": history, "exclude": ban} for history, ban in zip(asked, own))
    by_history = ids(recommend(asked, exclude=own))
    assert by_history == ids(list(recommend(streamed)))
    for entries, banned in zip(by_history, first):
        assert len(entries) == 10
        assert banned not in entries
    assert [set(entries) for entries in ids(recommend(asked, allowed=["i3", "i5"]))] == [{"i3", "i5"}] * 5


def test_exclude_history_means_all_of_it(model, tokenizer):
    recommend = pipeline("sequential-recommendation", model=model, tokenizer=tokenizer, exclude_history=True)
    history = [f"i{number}" for number in range(1, 36)]  # the tokenizer reads the last 10
    assert {entry["item_id"] for entry in recommend(history)} == {f"i{number}" for number in range(36, 41)}


def test_weights_reach_the_search(codes, tokenizer):
    model = make_model(codes, 8, num_transitions=1)
    model.catalogue.set_transitions(torch.arange(40).roll(1).add(1).unsqueeze(1), torch.ones(40, 1))
    recommend = pipeline("sequential-recommendation", model=model, tokenizer=tokenizer)
    (first,) = recommend(["i4"], top_k=1, transition_weight=0.9)
    assert first["item_id"] == "i3"
    weights = {"transition_weight": 0.9, "rerank_weight": 0.5}
    (again,) = recommend(["i4"], top_k=1, **weights)
    _, scores = model.recommend(**tokenizer([["i4"]], return_tensors="pt"), top_k=1, **weights)
    assert again["score"] == pytest.approx(scores.item(), abs=1e-5)
    assert abs(again["score"] - first["score"]) > 1e-3


def test_a_call_turns_off_a_weight_of_the_model_that_has_no_transitions_yet(codes, tokenizer):
    model = make_model(
        codes, 8, num_transitions=4, search_settings={"transition_weight": 0.2, "exclude_history": True}
    )
    recommend = pipeline("sequential-recommendation", model=model, tokenizer=tokenizer)
    found = {entry["item_id"] for entry in recommend(["i1", "i2"], top_k=38, transition_weight=0)}
    assert found == {f"i{number}" for number in range(3, 41)}
    with pytest.raises(ValueError, match=r"`transition_weight` is 0\.2, but the model keeps no transitions"):
        recommend(["i1", "i2"])


def test_defaults_can_be_given_beforehand(model, tokenizer):
    recommend = pipeline("sequential-recommendation", model=model, tokenizer=tokenizer, top_k=2, unknown="skip")
    assert len(recommend(["i1", "nothing"])) == 2
    assert len(recommend(["i1"], top_k=30)) == 30  # with beams to match
    assert [entry["item_id"] for entry in recommend(["i1"], allowed=["i5", "gone"])] == ["i5"]


@pytest.mark.parametrize(
    ("asked", "arguments", "message"),
    [
        (["i1", "gone"], {}, "item 'gone' is not in the catalogue"),
        ([["i1"], []], {}, "holds no item"),
        (["gone"], {"unknown": "skip"}, "holds no item"),
        ("i1", {}, "'i1' isn't a history"),
        ([["i1"], "i2"], {}, "'i2' isn't a history"),
        ([1, 2], {}, "item 1 is of type int, but item ids are strings; give strings"),
        ({"items": ["i1"]}, {}, "give `history`"),
        (["i1"], {"exclude": "i2"}, "`exclude` is 'i2'"),
        (["i1"], {"allowed": "i2"}, "`allowed` is 'i2'"),
        ({"history": ["i1"], "exclude": "i2"}, {}, "`exclude` is 'i2'"),
        ({"history": "i1"}, {}, "'i1' isn't a history"),
        (None, {}, "None isn't a history"),
        (5, {}, "5 isn't a history"),
        (b"i1", {}, "b'i1' isn't a history"),
        ({"i1"}, {}, r"\{'i1'\} has no order; give a list of item ids, oldest first"),
        ([["i2"], {"i1"}], {}, r"history 1: \{'i1'\} has no order"),
        ([["i2"], None], {}, "history 1: None isn't a history"),
        (["i2", ["i1"]], {}, "history 0: 'i2' isn't a history"),
        ([{"history": ["i2"]}, {"items": []}], {}, r"history 1: a history is a dict with the keys \['items'\]"),
        ([["i2"], [None]], {}, "history 1: item None is of type NoneType, but item ids are strings"),
        (["Title 3"], {}, r"item 'Title 3' is not in the catalogue of 40 items; did you mean 'i3' \(Title 3\)\?"),
        ([["i2"], ["title 3"]], {}, "history 1: item 'title 3' .* did you mean 'i3'"),
        (["Tittle 12"], {}, r"did you mean 'i12' \(Title 12\)\? Otherwise, leave it out"),
        (["i39x"], {}, r"did you mean 'i39'\?"),
        (["i1"], {"exclude": 5}, "`exclude` is 5; give a list"),
        (["i1"], {"exclude": {"i2": 1}}, "`exclude` is {'i2': 1}; give a list"),
        (["i1"], {"exclude": [2]}, "item 2 is of type int"),
        (["i1"], {"allowed": 5}, "`allowed` is 5; give a list"),
        (["i1"], {"allowed": [["i2"]]}, "isn't an item id; give a list of item ids, the same for all histories"),
        (["i1"], {"top_k": "5"}, "`top_k` is '5'; give a whole number"),
        (["i1"], {"top_k": 5.0}, "`top_k` is 5.0; give a whole number"),
        (["i1"], {"top_k": True}, "`top_k` is True; give a whole number"),
        (["i1"], {"top_k": None}, "`top_k` is None; give a whole number"),
        (["i1"], {"top_k": 0}, "`top_k` is 0; give 1 or more"),
        (["i1"], {"num_beams": "20"}, "`num_beams` is '20'; give a whole number"),
        (["i1"], {"rerank_weight": "1"}, "`rerank_weight` is '1'; give a number"),
        (["i1"], {"max_batch_tokens": 1e6}, "`max_batch_tokens` is 1000000.0; give a whole number"),
        (["i1"], {"exclude_history": "no"}, "`exclude_history` is 'no'; give True or False"),
        (["i1"], {"unknown": None}, "`unknown` is None; choose 'error' or 'skip'"),
        (["i1"], {"unknown": ["skip"]}, "choose 'error' or 'skip'"),
        (["i1"], {"on_empty": "skip"}, "`on_empty` is 'skip'; choose 'error' or 'empty' or 'popular'"),
        (["i1"], {"on_empty": "popular"}, "this model holds no counts of its items; finetune it, set counts"),
        (["i1"], {"batch_size": "4"}, "`batch_size` is '4'; give a whole number"),
        (["i1"], {"batch_size": 0}, "`batch_size` is 0; give 1 or more"),
        (["i1"], {"num_workers": -1}, "`num_workers` is -1; give 0 or more"),
        ([["i1"], ["i2"]], {"exclude": [["i3"], "i4"]}, "`exclude` is 'i4'"),
        ([["i1", ["i2"]]], {}, "holds \\['i2'\\], which isn't an item id"),
        (["i1"], {"exclude": ["gone"]}, "item 'gone' is not in the catalogue"),
        (["i1"], {"exclude": [["i2"]]}, "there is only one history"),
        ([["i1"], ["i2"]], {"exclude": [["i2"]]}, "1 list for 2 histories"),
        ([["i1"]], {"allowed": ["gone"]}, "item 'gone' is not in the catalogue"),
        ([["i1"]], {"top_k": 5, "num_beams": 3}, "`num_beams` is 3"),
    ],
)
def test_bad_input_is_an_error(recommend, asked, arguments, message):
    with pytest.raises(ValueError, match=message):
        recommend(asked, **arguments)


EMPTY = {"an empty history": ([], {}), "unknown items alone": (["gone"], {"unknown": "skip"})}
SEVERAL = {
    "a list": list,
    "a tuple": tuple,
    "dictionaries": lambda asked: [{"history": history} for history in asked],
    "a generator": iter,
    "a dataset": lambda asked: KeyDataset(Dataset.from_dict({"history": asked}), "history"),
}


@pytest.mark.parametrize("batch_size", [1, np.int64(3)])
@pytest.mark.parametrize("form", SEVERAL)
@pytest.mark.parametrize("empty", EMPTY)
def test_an_empty_history_among_many(recommend, empty, form, batch_size):
    none, arguments = EMPTY[empty]
    arguments = {"top_k": 3, "batch_size": batch_size, **arguments}
    asked = [*histories(3), none, ["i5"], none]
    with pytest.raises(ValueError, match=r"^history 3: the history holds no item .* pass on_empty='empty'"):
        list(recommend(SEVERAL[form](asked), **arguments))
    lists = list(recommend(SEVERAL[form](asked), on_empty="empty", **arguments))
    assert lists[3] == lists[5] == []
    assert ids(lists[:3] + lists[4:5]) == ids(recommend([*asked[:3], ["i5"]], top_k=3))


def test_nothing_but_empty_histories(recommend):
    assert recommend([[], []], on_empty="empty") == [[], []]
    assert recommend([["gone"], ["lost"]], on_empty="empty", unknown="skip") == [[], []]
    assert recommend({"history": ["gone"]}, on_empty="empty", unknown="skip", exclude_history=True) == []
    with pytest.raises(ValueError, match=r"^item 'gone' is not in the catalogue"):
        recommend(["gone"], on_empty="empty")


COUNTS = torch.arange(40) % 7  # of items 1 to 40: the largest, 6, of items 7, 14, 21, 28 and 35; ties by index


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("form", SEVERAL)
@pytest.mark.parametrize("empty", EMPTY)
def test_an_empty_history_among_many_gets_popular_items(recommend, empty, form, batch_size):
    none, arguments = EMPTY[empty]
    recommend.model.catalogue.set_item_counts(COUNTS)
    asked = [["i2"], none, ["i5"]]
    lists = list(recommend(SEVERAL[form](asked), on_empty="popular", top_k=6, batch_size=batch_size, **arguments))
    assert ids(lists[1:2]) == [["i7", "i14", "i21", "i28", "i35", "i6"]]
    assert [entry["popular"] for entry in lists[1]] == [True] * 6
    shares = [math.log(count / COUNTS.sum().item()) for count in (6, 6, 6, 6, 6, 5)]
    assert [entry["score"] for entry in lists[1]] == pytest.approx(shares)
    assert ids(lists[::2]) == ids(recommend([["i2"], ["i5"]], top_k=6))
    assert not any("popular" in entry for entry in lists[0] + lists[2])


def test_popular_items_are_those_that_may_come(recommend):
    recommend.model.catalogue.set_item_counts(COUNTS)
    recommend.model.remove_items(torch.tensor([21]))
    asked = [{"history": [], "exclude": ["i14"]}, []]
    lists = recommend(asked, on_empty="popular", exclude=["i35"], top_k=3)
    assert ids(lists) == [["i7", "i28", "i6"], ["i7", "i14", "i28"]]
    few = recommend(asked, on_empty="popular", allowed=["i8", "i9", "i14", "i21"])  # item 8 doesn't occur in training
    assert ids(few) == [["i9"], ["i14", "i9"]]
    alone = {"history": []}
    assert recommend(alone, on_empty="popular", allowed=["i8"]) == []
    assert ids([recommend(alone, on_empty="popular", allowed=["i8", "i9"])]) == [["i9"]]
    assert recommend([], on_empty="popular") == []  # no histories
    assert len(recommend(alone, on_empty="popular", top_k=100)) == 40 - 6 - 1


@pytest.mark.parametrize("form", SEVERAL)
def test_an_unknown_item_among_many(recommend, form):
    with pytest.raises(ValueError, match=r"^history 2: item 'gone' is not in the catalogue of 40 items"):
        list(recommend(SEVERAL[form]([["i1"], ["i2"], ["i3", "gone"]]), on_empty="empty", batch_size=2))


def test_an_item_that_its_own_list_excludes_among_many(recommend):
    with pytest.raises(ValueError, match=r"^history 1: item 'gone' is not in the catalogue"):
        recommend([["i1"], ["i2"]], exclude=[["i3"], ["gone"]])
    with pytest.raises(ValueError, match=r"^item 'gone' is not in the catalogue"):
        recommend([["i1"], ["i2"]], exclude=["gone"])


def test_nothing_that_is_allowed(recommend):
    """Lists are empty if no item is allowed, or all allowed items are excluded."""
    asked = histories(3)
    assert recommend(asked, allowed=[]) == [[], [], []]
    assert recommend(asked, allowed=["i3", "i5"], exclude=["i5", "i3"]) == [[], [], []]
    assert recommend(["i3"], allowed=["gone"], unknown="skip") == []
    assert recommend({"history": ["i3"]}, allowed=["i3"], exclude_history=True) == []
    mixed = recommend(asked, allowed=["i3"], exclude=[["i3"], [], ["i3"]])
    assert ids(mixed) == [[], ["i3"], []]
    recommend.model.remove_items(torch.tensor([3]))
    assert recommend(asked, allowed=["i3"]) == [[], [], []]


def test_empty_arrays_exclude_nothing(recommend):
    expected = ids(recommend([["i1"], ["i2"]]))
    arrays = [{"history": np.array([item_id]), "exclude": np.array([], dtype=str)} for item_id in ("i1", "i2")]
    assert ids(recommend(arrays)) == expected
    arrays[0]["exclude"] = np.array(["i3", "i4"])
    assert ids(recommend(arrays))[1:] == expected[1:]


def test_unknown_arguments_and_foreign_tokenizers_are_errors(recommend, tokenizer):
    with pytest.raises(TypeError, match=r"\['topk'\]; choose among .*top_k"):
        recommend(["i1"], topk=3)
    with pytest.raises(ValueError, match="the histories are a stream"):
        recommend((history for history in [["i1"]]), exclude=[["i2"]])
    with pytest.raises(ValueError, match="`tokenizer` is missing"):
        SequentialRecommendationPipeline(model=recommend.model)
    with pytest.raises(ValueError, match="which isn't an item id"):
        pipeline("sequential-recommendation", model=recommend.model, tokenizer=tokenizer, exclude=[["i2"]])
    other = make_model(random_codes(40, 3, 8, seed=1), 8)
    with pytest.raises(ValueError, match="tokenizer and model disagree"):
        pipeline("sequential-recommendation", model=other, tokenizer=tokenizer)
