"""The search of an export finds what `model.recommend` and the pipeline find."""

import numpy as np
import pytest
import torch
from exported import KINDS, N_ITEMS, exported_model, in_memory
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import RECIPE, random_histories
from transformers import pipeline

from etegrec_hf.models import item_transitions
from etegrec_hf.models.search_options import SearchOptions, SearchSettings
from etegrec_hf.runtime import RequestOptions, recommender, search
from etegrec_hf.runtime.trie import NodeSets

VARIANTS = {
    "causal": {"encoder_attention": "causal"},
    "items": {"encoder_input": "items"},
    "items and causal": {"encoder_input": "items", "encoder_attention": "causal", "recency_buckets": 4},
    "vectors beside codes": {"reads_items": True, "constrained_softmax": True},
    "repeat bias": {"has_repeat_bias": True, "constrained_softmax": True, "recency_buckets": 4},
    "item logits by the state": RECIPE | {"recent_items": 0, "mixed_items": 0},
    "item logits of codes": RECIPE | {"encoder_input": "codes", "mixed_items": 0},
    "more newest items than are read": RECIPE | {"max_history": 2, "recent_items": 4, "mixed_items": 3},
    "one item is read": RECIPE | {"max_history": 1},
    "more items than vote": {"max_history": 14},
    "learned transitions": RECIPE | {"mixed_items": 0, "learns_transitions": True},
    "learned transitions of fewer items than are mixed": RECIPE
    | {"recent_items": 1, "mixed_items": 2, "learns_transitions": True},
    "gated": {"feed_forward_proj": "gated-gelu", "scale_logits": False},
}


@pytest.fixture(scope="module", params=[*KINDS, *VARIANTS])
def pair(request):
    """The pipeline of a model, and the recommender of its export."""
    model, tokenizer = exported_model(**(KINDS | VARIANTS)[request.param])
    wanted = pipeline("sequential-recommendation", model=model, tokenizer=tokenizer)
    return wanted, in_memory(model, tokenizer)


def check_same(found: list, wanted: list) -> None:
    """Compares lists of dictionaries, whose scores may differ a little."""
    assert [[{**entry, "score": 0} for entry in row] for row in found] == [
        [{**entry, "score": 0} for entry in row] for row in wanted
    ]
    for row, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose([e["score"] for e in row], [e["score"] for e in other], atol=1e-4)


def ids(items) -> list[str]:
    return [f"i{item}" for item in items]


HISTORIES = [ids([1, 3, 5, 7, 5, 2]), ids([3]), ids(range(20, 40)), ids([4, 4, 9, 50])]


@pytest.mark.parametrize("weights", [{}, {"transition_weight": 0.4}, {"rerank_weight": 3.0, "transition_weight": 0.1}])
def test_items_and_scores_under_all_constraints(pair, weights):
    wanted, found = pair
    excluded = [ids(range(1, 60, 2)), [], ids(range(2, 61)), ids([4, 4, 50])]
    constraints = [
        {},
        {"exclude": ids([5, 6, 7]), "exclude_history": True},
        {"exclude": excluded, "allowed": ids(range(1, 20))},
        {"exclude": excluded, "exclude_history": True},
        {"allowed": ids([3, 5])},
    ]
    for given_constraints in constraints:
        options = given_constraints | weights | {"top_k": 12, "num_beams": 14}
        check_same(found.recommend(HISTORIES, **options), wanted(HISTORIES, **options))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    kind=st.sampled_from([*KINDS]),
    beams=st.integers(1, 70),
    weight=st.sampled_from([0.0, 0.3]),
)
def test_any_histories_and_beams(seed, kind, beams, weight):
    model, tokenizer = exported_model(seed % 3, **KINDS[kind])
    lengths = torch.randint(1, 9, (3,), generator=torch.Generator().manual_seed(seed)).tolist()
    histories = [ids(row[row > 0].tolist()) for row in random_histories(model, lengths, seed)]
    wanted = pipeline("sequential-recommendation", model=model, tokenizer=tokenizer)
    options = {"top_k": beams, "num_beams": beams, "transition_weight": weight, "exclude_history": True}
    check_same(in_memory(model, tokenizer).recommend(histories, **options), wanted(histories, **options))


def test_more_items_than_there_are(pair):
    wanted, found = pair
    rows = found.recommend(HISTORIES, top_k=100)
    assert [len(row) for row in rows] == [N_ITEMS - 2] * 4
    assert len({entry["item_id"] for entry in rows[0]}) == N_ITEMS - 2
    check_same(rows, wanted(HISTORIES, top_k=100))


def test_everything_excluded_gives_empty_lists(pair):
    _, found = pair
    assert found.recommend([["i1"], ["i2", "i4"]], exclude=ids(range(1, N_ITEMS + 1))) == [[], []]
    assert found.recommend(["i1"], allowed=["i3"]) == [], "i3 was removed"
    assert found.recommend([["i1"]], allowed=["i5"], exclude=["i5"]) == [[]]


def test_one_history_many_and_none(pair):
    wanted, found = pair
    check_same([found.recommend(HISTORIES[0])], [wanted(HISTORIES[0])])
    own = {"history": HISTORIES[0], "exclude": ["i6"]}
    check_same([found.recommend(own)], [wanted(own)])
    check_same(found.recommend([own, HISTORIES[1]]), wanted([own, HISTORIES[1]]))
    assert found.recommend([]) == []


def test_unknown_items_and_empty_histories(pair):
    wanted, found = pair
    histories = [["i1", "nobody"], ["nobody"], [], ["i2"]]
    for on_empty in ("empty", "popular"):
        options = {"unknown": "skip", "on_empty": on_empty, "exclude": ["i60", "who"], "allowed": ids(range(30, 61))}
        check_same(found.recommend(histories, **options), wanted(histories, **options))


def test_batches_change_nothing(pair, monkeypatch):
    _, found = pair
    together = found.recommend(HISTORIES)
    monkeypatch.setattr(recommender, "MAX_BATCH_TOKENS", 1)
    check_same(found.recommend(HISTORIES), together)


def test_the_models_own_settings():
    own = {"num_beams": 7, "exclude_history": True, "transition_weight": 0.3, "rerank_weight": 2.0}
    model, tokenizer = exported_model(search_settings=own)
    wanted, found = (
        pipeline("sequential-recommendation", model=model, tokenizer=tokenizer),
        in_memory(model, tokenizer),
    )
    check_same(found.recommend(HISTORIES, top_k=5), wanted(HISTORIES, top_k=5))
    check_same(found.recommend(HISTORIES, top_k=9), wanted(HISTORIES, top_k=9))
    changed = {"exclude_history": False, "transition_weight": 0.0, "rerank_weight": 0.0}
    check_same(found.recommend(HISTORIES, **changed), wanted(HISTORIES, **changed))


def test_defaults_are_those_of_the_package():
    """The runtime imports nothing from `models`, so that some numbers are written in both."""
    assert SearchSettings(**recommender.OWN) == SearchSettings()
    given = {name: getattr(RequestOptions(), name) for name in ("top_k", *recommender.OWN)}
    assert SearchOptions(**given) == SearchOptions()
    assert (search.RECENT, search.DECAY) == (item_transitions.RECENT, item_transitions.DECAY)


WRONG = [
    (["i1", 5], {}, "item 5 is of type int, but item ids are strings; give strings"),
    (["i1", "nobody"], {}, "'nobody' is not in the catalogue of 60 items"),
    ([["i1"], ["nobody"]], {}, "history 1: item 'nobody'"),
    ("i1", {}, "`histories` is 'i1'; give a list"),
    ([{"i1"}], {}, "has no order"),
    ({"items": ["i1"]}, {}, "a history is a dict with the keys"),
    ([[]], {}, "history 0: the history holds no item"),
    (["i1"], {"top_k": 0}, "`top_k` is 0"),
    (["i1"], {"top_k": True}, "`top_k` is True"),
    (["i1"], {"top_k": 30, "num_beams": 20}, "at least as wide as the list"),
    (["i1"], {"exclude_history": 1}, "`exclude_history` is 1"),
    (["i1"], {"rerank_weight": -1}, "`rerank_weight` is -1"),
    (["i1"], {"transition_weight": 1}, "`transition_weight` is 1"),
    (["i1"], {"unknown": "guess"}, "`unknown` is 'guess'"),
    (["i1"], {"exclude": "i2"}, "`exclude` is 'i2'"),
    (["i1"], {"exclude": [["i2"]]}, "one list per history, but there is only one history"),
    ([["i1"], ["i2"]], {"exclude": [["i2"]]}, "1 list for 2 histories; give one list per history"),
    (["i1"], {"allowed": "i2"}, "`allowed` is 'i2'"),
    (["i1"], {"allowed": [["i2"]]}, "holds ['i2'], which isn't an item id; give a list of item ids, the same for all"),
]


@pytest.fixture(scope="module")
def plain():
    return in_memory(*exported_model(num_transitions=0, has_item_tokenizer=False))


@pytest.mark.parametrize(("histories", "options", "message"), WRONG)
def test_what_is_refused(plain, histories, options, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        plain.recommend(histories, **options)


def test_what_the_model_lacks(plain):
    for name, value in {"rerank_weight": 1.0, "transition_weight": 0.5}.items():
        with pytest.raises(ValueError, match=f"`{name}` is {value}, but the exported model holds no"):
            plain.recommend(["i1"], **{name: value})
    with pytest.raises(TypeError, match=r"unknown arguments \['beams'\]; choose among exclude, allowed, top_k"):
        plain.recommend(["i1"], beams=3)
    model, tokenizer = exported_model()
    model.catalogue.set_item_counts(torch.zeros(N_ITEMS, dtype=torch.long))
    with pytest.raises(ValueError, match="holds no counts"):
        in_memory(model, tokenizer).recommend([], on_empty="popular")
    model.shared.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        in_memory(model, tokenizer).recommend(["i1"])


def test_node_sets_by_brute_force(plain):
    """A node is in a user's set if all items below it are in the set."""
    trie, tables = plain.tables.trie, plain.tables
    rows = np.stack([np.arange(1, 61) % 7 < 4, np.arange(1, 61) % 2 == 0]) * np.arange(1, 61)
    leaves = tables.leaf_of_item[rows]
    node = np.broadcast_to(np.arange(trie.n_nodes), (2, trie.n_nodes))
    found = NodeSets(trie, leaves).contain(node)
    for user, row in enumerate(rows):
        for one in range(1, trie.n_nodes):
            below = trie.leaf_items[trie.leaf_start[one] : trie.leaf_end[one]]
            assert found[user, one] == np.isin(below, row).all()
