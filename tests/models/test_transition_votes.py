"""Transition counts that are kept in the model and mixed into its beam search."""

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import make_model, random_codes, random_histories

from etegrec_hf import ETEGRecConfig
from etegrec_hf.data.prepared import Split
from etegrec_hf.data.transitions import largest_of_rows, strongest_transitions, transition_weights
from etegrec_hf.evaluation.baselines import transitions
from etegrec_hf.models.code_trie import ItemSets
from etegrec_hf.models.repeat_bias import RepeatBias

KINDS = [{}, {"constrained_softmax": True}, {"constrained_softmax": True, "has_repeat_bias": True}]


class Log:
    """The parts of a prepared dataset that counting transitions needs."""

    def __init__(self, sequences: list[list[int]], n_items: int):
        self.train = split_of(sequences)
        self.n_items = n_items


def split_of(sequences: list[list[int]]) -> Split:
    offsets = np.cumsum([0, *map(len, sequences)])
    users = [str(user) for user in range(len(sequences))]
    return Split(users, np.concatenate([np.array(sequence) for sequence in sequences]), offsets)


def make_log(n_items: int, seed: int = 0) -> Log:
    random = np.random.default_rng(seed)
    return Log([list(random.integers(1, n_items + 1, random.integers(2, 9))) for _ in range(40)], n_items)


def with_transitions(codes, log: Log, count: int = 40, **kind):
    model = make_model(codes, 8, num_transitions=count, **kind)
    model.catalogue.set_transitions(*strongest_transitions(log, count))
    return model


def all_scores(model, inputs, **options) -> torch.Tensor:
    """Returns scores `[batch, n_items + 1]` of all items, -inf for those that weren't returned."""
    n_items = model.config.n_items
    items, scores = model.recommend(**inputs, top_k=n_items, num_beams=n_items, **options)
    return torch.full((len(items), n_items + 1), -torch.inf).scatter(1, items, scores)


def bias_of_items(model, history: list[int]) -> torch.Tensor:
    """`[n_items]`: the bias of the first level at which all items of an item's prefix were had, or 0."""
    codes = model.catalogue.item_codes.tolist()
    gained = torch.zeros(len(codes))
    for index, path in enumerate(codes):
        for level in range(len(path)):
            family = [other for other, theirs in enumerate(codes, 1) if theirs[: level + 1] == path[: level + 1]]
            if set(family) <= set(history):
                gained[index] = 10 * model.repeat_bias[level].detach()
                break
    return gained


def test_the_bias_changes_an_items_odds_by_that_of_one_level():
    """All items are scored with and without the bias, and compared with an item outside the history."""
    codes = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [2, 0, 0], [2, 0, 1], [3, 3, 3]])
    model = make_model(codes, 4, constrained_softmax=True, has_repeat_bias=True)
    history = [1, 4, 5, 6]  # item 1 shares its prefix with 2, item 4 is alone, and 5 and 6 are all under code 2
    inputs = model.catalogue.inputs_from_items(torch.tensor([history]))
    with_bias = all_scores(model, inputs)[0]
    expected = bias_of_items(model, history)
    assert expected[[0, 3, 4, 5]].tolist() == (10 * model.repeat_bias[[2, 0, 0, 0]]).tolist()
    leaves = model.catalogue.trie.walk(codes).unsqueeze(0)
    had = model.catalogue.leaves_of(inputs["input_ids"])
    repeats = RepeatBias(model.catalogue.trie, ItemSets(model.catalogue.trie, had), model.repeat_bias)
    torch.testing.assert_close(repeats.of_items(leaves)[0], expected)
    torch.nn.init.zeros_(model.repeat_bias)
    gained = (with_bias - all_scores(model, inputs)[0])[1:]
    torch.testing.assert_close(gained[3:6] - gained[6], expected[3:6], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gained[0] - gained[1], expected[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_mixture_of_model_and_votes(codes, kind):
    """Votes are computed by hand: the log's weights times 0.7 per newer item, with a sum of 1.

    Items of the history get fewer votes, by the factor by which the model's bias changes their odds.
    """
    log = make_log(40)
    model = with_transitions(codes, log, **kind)
    histories = [[3, 17, 5, 3], [22], list(range(1, 14))]
    weights = transition_weights(log).toarray()
    expected = []
    for history in histories:
        votes = sum(0.7**age * weights[item - 1] for age, item in enumerate(history[::-1][:10]))
        expected.append(votes / votes.sum())
    padded = torch.tensor([history + [0] * (13 - len(history)) for history in histories])
    inputs = model.catalogue.inputs_from_items(padded)
    expected = torch.tensor(np.array(expected)).float()
    own = all_scores(model, inputs)[:, 1:].exp()
    if model.repeat_bias is not None:
        expected *= torch.stack([bias_of_items(model, history) for history in histories]).exp().clamp(max=1)
        assert (expected.sum(1) < 1).all()
    mixed = all_scores(model, inputs, transition_weight=0.3)[:, 1:].exp()
    torch.testing.assert_close(mixed, 0.7 * own + 0.3 * expected, atol=1e-5, rtol=1e-4)


def test_a_share_of_almost_1_ranks_as_the_baseline_does(codes):
    """The baseline counts votes with sparse matrices; the model's scores only rank items without votes."""
    log = make_log(40)
    model = with_transitions(codes, log)
    histories = [[7, 3, 9], [12, 30], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]]
    ranked = transitions(log, split_of([[*history, 1] for history in histories]))
    for history, expected in zip(histories, ranked):
        inputs = model.catalogue.inputs_from_items(torch.tensor([history]))
        scores = all_scores(model, inputs, transition_weight=1 - 1e-9)[0]
        listed = torch.from_numpy(expected[:10].copy())
        assert (listed > 0).all()
        torch.testing.assert_close(scores[listed], scores.topk(10).values, atol=1e-4, rtol=1e-4)


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    share=st.floats(0.01, 0.95),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_a_wide_beam_finds_what_all_items_scored_one_by_one_would(lengths, share, seed):
    model = with_transitions(random_codes(40, 3, 8), make_log(40, seed), count=12, constrained_softmax=True)
    torch.manual_seed(seed)
    inputs = model.catalogue.inputs_from_items(random_histories(model, lengths))
    everything = all_scores(model, inputs, transition_weight=share)
    excluded = torch.randint(1, 41, (len(lengths), 6))
    items, scores = model.recommend(**inputs, top_k=10, num_beams=40, transition_weight=share, exclude=excluded)
    best = everything.scatter(1, excluded, -torch.inf).topk(10, dim=1)
    torch.testing.assert_close(scores, best.values, atol=1e-4, rtol=1e-4)
    assert not (items.unsqueeze(2) == excluded.unsqueeze(1)).any()
    allowed = torch.randperm(40)[:15] + 1
    _, scores = model.recommend(**inputs, top_k=10, num_beams=40, transition_weight=share, allowed=allowed)
    torch.testing.assert_close(scores, everything[:, allowed].topk(10, dim=1).values, atol=1e-4, rtol=1e-4)


def test_votes_of_excluded_items_take_no_place_on_the_beam(codes):
    """The one item that has votes is excluded; a beam of 1 must not be led into its branch by them."""
    model = make_model(codes, 8, num_transitions=1)
    items, weights = torch.zeros(40, 1, dtype=torch.long), torch.zeros(40, 1)
    inputs = model.catalogue.inputs_from_items(torch.tensor([[4]]))
    first, _ = model.recommend(**inputs, top_k=1, num_beams=1)
    other = next(item for item in range(1, 41) if codes[item - 1, 0] != codes[first.item() - 1, 0])
    items[3], weights[3] = other, 1.0
    model.catalogue.set_transitions(items, weights)
    assert model.recommend(**inputs, top_k=1, num_beams=1, transition_weight=0.9)[0].item() == other
    excluded = {"exclude": torch.tensor([[other]]), "transition_weight": 0.9}
    assert torch.equal(model.recommend(**inputs, top_k=1, num_beams=1, **excluded)[0], first)


def test_padding_and_encoded_histories_vote_alike(codes):
    model = with_transitions(codes, make_log(40), encoder_attention="causal", max_history=4)
    history = torch.tensor([[5, 9, 2, 8, 31, 7, 1], [6, 3, 0, 0, 0, 0, 0]])
    left = torch.tensor([[5, 9, 2, 8, 31, 7, 1], [0, 0, 0, 0, 0, 6, 3]])
    options = {"top_k": 10, "num_beams": 40, "transition_weight": 0.5}
    inputs = model.catalogue.inputs_from_items(history)
    expected = model.recommend(**inputs, **options)
    for found in (
        model.recommend(**model.catalogue.inputs_from_items(left), **options),
        model.recommend(encoded=model.encode_history(**inputs), **options),
    ):
        assert torch.equal(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=1e-5)


def test_they_are_saved_and_items_can_join_and_leave(codes, tmp_path):
    model = with_transitions(codes, make_log(40))
    inputs = model.catalogue.inputs_from_items(torch.tensor([[5, 9, 2]]))
    options = {"top_k": 10, "num_beams": 40, "transition_weight": 0.8}
    expected = model.recommend(**inputs, **options)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    found = loaded.recommend(**inputs, **options)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    loaded.remove_items(expected[0][0, :1])
    items, scores = loaded.recommend(**inputs, **options)
    torch.testing.assert_close(scores[:, :9], expected[1][:, 1:])
    assert items[0, :9].sort().values.equal(expected[0][0, 1:].sort().values), "two of them are as good as equal"


def test_reranking_goes_over_the_mixture(codes):
    model = with_transitions(codes, make_log(40))
    inputs = model.catalogue.inputs_from_items(torch.tensor([[5, 9, 2]]))
    mixed, own = all_scores(model, inputs, transition_weight=0.5), all_scores(model, inputs)
    cosines = all_scores(model, inputs, rerank_weight=2.0) - own
    both = all_scores(model, inputs, rerank_weight=2.0, transition_weight=0.5)
    torch.testing.assert_close(both[:, 1:], (mixed + cosines)[:, 1:], atol=1e-5, rtol=1e-5)


def test_two_items_that_only_came_next_to_each_other_are_not_voted_back(codes):
    """Nothing is left of such votes, and not all of them for what the user has."""
    model = with_transitions(codes, Log([[1, 2], [3, 4, 5]], 40), constrained_softmax=True, has_repeat_bias=True)
    with torch.no_grad():
        model.repeat_bias.fill_(-2)
    inputs = model.catalogue.inputs_from_items(torch.tensor([[1, 2]]))
    items, _ = model.recommend(**inputs, top_k=38, num_beams=40, transition_weight=0.5)
    assert not {1, 2} & set(items[0].tolist())


def test_a_removed_item_still_votes(codes):
    model = make_model(codes, 8, num_transitions=1)
    items, weights = torch.zeros(40, 1, dtype=torch.long), torch.zeros(40, 1)
    items[3], weights[3] = 20, 1.0
    model.catalogue.set_transitions(items, weights)
    model.remove_items(torch.tensor([4]))
    inputs = model.catalogue.inputs_from_items(torch.tensor([[4]]))
    assert model.recommend(**inputs, top_k=1, num_beams=1, transition_weight=0.9)[0].item() == 20


def test_a_history_without_votes_leaves_the_models_order(codes, tokenizer):
    """An item that joined has come next to none."""
    model = with_transitions(codes, make_log(40))
    (new,) = model.add_items(["new"], torch.randn(1, 12), tokenizer)
    inputs = model.catalogue.inputs_from_items(torch.tensor([[new]]))
    own, mixed = (all_scores(model, inputs, transition_weight=share) for share in (0.0, 0.5))
    torch.testing.assert_close(mixed.exp(), own.exp() / 2)
    known = model.catalogue.inputs_from_items(torch.tensor([[new, 5]]))
    assert not torch.allclose(
        all_scores(model, known, transition_weight=0.5).exp(), all_scores(model, known).exp() / 2
    )


def test_what_it_needs(codes):
    model = make_model(codes, 8, num_transitions=3)
    inputs = model.catalogue.inputs_from_items(torch.tensor([[1, 2]]))
    with pytest.raises(ValueError, match=r"`transition_weight` is 1\.0; give a share of at least 0 and below 1"):
        model.recommend(**inputs, transition_weight=1.0)
    with pytest.raises(
        ValueError, match=r"`transition_weight` is 0\.5, but the model keeps no transitions; train it with `num_trans"
    ):
        model.recommend(**inputs, transition_weight=0.5)
    for share in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=f"`transition_weight` is {share}; give a share"):
            model.recommend(**inputs, transition_weight=share)
    bare = make_model(codes, 8)
    with pytest.raises(ValueError, match=r"`transition_weight` is 0\.5, but the model keeps no transitions"):
        bare.recommend(**inputs, transition_weight=0.5)
    items, weights = torch.ones(40, 3, dtype=torch.long), torch.ones(40, 3)
    with pytest.raises(ValueError, match=r"`items` has shape \(40, 2\) and `weights` \(40, 3\).*\(40, 3\)"):
        model.catalogue.set_transitions(items[:, :2], weights)
    with pytest.raises(ValueError, match="`items` holds item indices from 1 to 41"):
        model.catalogue.set_transitions(items.masked_fill(torch.eye(40, 3) > 0, 41), weights)
    with pytest.raises(ValueError, match="`num_transitions` is 0; make or load the model with"):
        bare.catalogue.set_transitions(items, weights)
    for broken in (-weights, weights * float("nan"), weights * float("inf")):
        with pytest.raises(ValueError, match="`weights` holds negative numbers, NaN, infinity, numbers too large"):
            model.catalogue.set_transitions(items, broken)
    with pytest.raises(ValueError, match="or numbers where `items` is 0"):
        model.catalogue.set_transitions(items * 0, weights)
    model.catalogue.set_transitions(items, weights)
    model.recommend(**inputs, transition_weight=0.5)
    model.catalogue.set_transitions(items * 0, weights * 0)
    with pytest.raises(ValueError, match=r"`transition_weight` is 0\.5, but the model keeps no transitions"):
        model.recommend(**inputs, transition_weight=0.5)
    with pytest.raises(ValueError, match=r"NaN, infinity, numbers too large for torch\.float16"):
        model.half().catalogue.set_transitions(items, weights * 70000)
    with pytest.raises(ValueError, match="`num_transitions` is -1; give 0 for none"):
        ETEGRecConfig(num_transitions=-1)


def test_largest_of_rows_by_hand():
    weights = scipy.sparse.csr_array(np.array([[0, 2.0, 5, 2], [0, 0, 0, 0], [1, 0, 0, 3]]))
    items, kept = largest_of_rows(weights, 2)
    assert items.tolist() == [[3, 2], [0, 0], [4, 1]]
    assert kept.tolist() == [[5, 2], [0, 0], [3, 1]]
