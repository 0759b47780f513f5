"""Gains of pairs that are learned: they stay with their pairs, and need what they are learned with."""

import pytest
import torch
from tiny_models import RECIPE, make_model, random_codes

from etegrec_hf import ETEGRecConfig, ETEGRecTokenizer

LEARNED = RECIPE | {"mixed_items": 0, "num_transitions": 4, "learns_transitions": True}


def pairs_of(model) -> dict[tuple[int, int], float]:
    """Each pair's gain."""
    transitions = model.catalogue.transitions
    items, gains = transitions.items.tolist(), transitions.gains.of_pairs.tolist()
    return {
        (item, follower): gain
        for item, (followers, row) in enumerate(zip(items, gains))
        for follower, gain in zip(followers, row)
        if follower
    }


def test_gains_stay_with_their_pairs_when_transitions_are_counted_anew():
    model = make_model(random_codes(30, 3, 8), 8, **LEARNED)
    before = pairs_of(model)
    generator = torch.Generator().manual_seed(1)
    kept = model.catalogue.transitions.items[1:].long()
    order = torch.rand(kept.shape, generator=generator).argsort(1)
    items = kept.gather(1, order)
    items[::2, 1] = 0  # an item with fewer
    items[1::2, 2] = 31 - items[1::2, 2]
    items[1::2, 2] *= (items[1::2] == items[1::2, 2:3]).sum(1) == 1  # none twice
    model.catalogue.set_transitions(items, torch.rand(items.shape) * (items > 0))
    after = pairs_of(model)
    stayed = before.keys() & after.keys()
    assert 60 < len(stayed) < len(before)
    assert {pair: after[pair] for pair in stayed} == {pair: before[pair] for pair in stayed}
    assert all(after[pair] == 0 for pair in after.keys() - before.keys())
    assert after.keys() - before.keys()


@torch.no_grad()
def test_nothing_gains_after_an_item_that_joined_and_the_others_keep_theirs():
    codes = random_codes(30, 3, 8)
    model = make_model(codes, 8, **LEARNED)
    tokenizer = ETEGRecTokenizer.from_item_codes([f"i{item}" for item in range(1, 31)], codes, 8)
    before = pairs_of(model)
    model.add_items(["new"], torch.randn(1, 12), tokenizer)
    assert pairs_of(model) == before
    assert model.catalogue.transitions.gains.of_pairs.shape == (32, 4)
    logits = torch.zeros(31, 1)
    recent = torch.tensor([[31, 0, 0]])
    assert not model.catalogue.transitions.add_gains(logits, recent, model.catalogue.trie).any()


@torch.no_grad()
@pytest.mark.parametrize(("recent", "mixed"), [(1, 2), (2, 3)])
def test_only_recent_items_gain_where_more_items_are_mixed(recent, mixed):
    kind = LEARNED | {"recent_items": recent, "mixed_items": mixed}
    model = make_model(random_codes(30, 3, 8), 8, **kind)
    transitions, trie = model.catalogue.transitions, model.catalogue.trie
    newest = torch.tensor([[5, 9, 12][:mixed], [7, 0, 0][:mixed]])
    expected = torch.zeros(30, 2)
    for user, items in enumerate(newest[:, :recent].tolist()):
        for place, item in enumerate(items):
            for follower, gain in zip(transitions.items[item].tolist(), transitions.gains.of_pairs[item]):
                if follower:
                    expected[trie.leaf_items == follower, user] += 50 * gain * transitions.gains.recency[place]
    torch.testing.assert_close(transitions.add_gains(torch.zeros(30, 2), newest, trie), expected)
    assert model.recommend(**model.catalogue.inputs_from_items(newest.flip(1)))[1].isfinite().all()


@torch.no_grad()
def test_an_untrained_model_gains_nothing():
    kind = LEARNED | {"has_item_tokenizer": False}
    model = make_model(random_codes(30, 3, 8), 8, **kind)
    model.catalogue.transitions.gains.init_weights()
    fresh = type(model)(ETEGRecConfig(n_items=30, code_length=3, codebook_size=8, **kind))
    assert not fresh.catalogue.transitions.gains.of_pairs.any()
    torch.testing.assert_close(fresh.catalogue.transitions.gains.recency, torch.tensor([1.0, 0.7, 0.49]))


@pytest.mark.parametrize("name", ["num_transitions", "recent_items"])
def test_pairs_need_transitions_and_recent_items(name):
    with pytest.raises(ValueError, match=f"`learns_transitions` is True and `{name}` is 0"):
        ETEGRecConfig(n_items=30, **LEARNED | {name: 0})
