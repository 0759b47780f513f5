"""`pipeline("sequential-recommendation")` in this process; tests/hub has it in a stranger's."""

import itertools
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
        ("i1", {}, "'i1' is no history"),
        ([["i1"], "i2"], {}, "'i2' is no history"),
        ([1, 2], {}, "item 1 is not in the catalogue"),
        ({"items": ["i1"]}, {}, "give `history`"),
        (["i1"], {"exclude": "i2"}, "`exclude` is 'i2'"),
        (["i1"], {"allowed": "i2"}, "`allowed` is 'i2'"),
        ({"history": ["i1"], "exclude": "i2"}, {}, "`exclude` is 'i2'"),
        ({"history": "i1"}, {}, "`history` is 'i1'"),
        ([["i1"], ["i2"]], {"exclude": [["i3"], "i4"]}, "`exclude` is 'i4'"),
        ([["i1", ["i2"]]], {}, "holds \\['i2'\\] where an item id belongs"),
        (["i1"], {"exclude": ["gone"]}, "item 'gone' is not in the catalogue"),
        (["i1"], {"exclude": [["i2"]]}, "there is one history"),
        ([["i1"], ["i2"]], {"exclude": [["i2"]]}, "1 lists for 2 histories"),
        ([["i1"]], {"allowed": ["gone"]}, "item 'gone' is not in the catalogue"),
        ([["i1"]], {"top_k": 5, "num_beams": 3}, "`num_beams` is 3"),
    ],
)
def test_bad_input_is_an_error(recommend, asked, arguments, message):
    with pytest.raises(ValueError, match=message):
        recommend(asked, **arguments)


def test_unknown_arguments_and_foreign_tokenizers_are_errors(recommend, tokenizer):
    with pytest.raises(TypeError, match="topk"):
        recommend(["i1"], topk=3)
    with pytest.raises(ValueError, match="the histories are a stream"):
        recommend((history for history in [["i1"]]), exclude=[["i2"]])
    with pytest.raises(ValueError, match="`tokenizer` is missing"):
        SequentialRecommendationPipeline(model=recommend.model)
    with pytest.raises(ValueError, match="where an item id belongs"):
        pipeline("sequential-recommendation", model=recommend.model, tokenizer=tokenizer, exclude=[["i2"]])
    other = make_model(random_codes(40, 3, 8, seed=1), 8)
    with pytest.raises(ValueError, match="tokenizer and model disagree"):
        pipeline("sequential-recommendation", model=other, tokenizer=tokenizer)
