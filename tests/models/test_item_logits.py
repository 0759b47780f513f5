"""Logits of whole items, and what they add to those of codes, against loops and sums over items."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import RECIPE, make_model, random_codes

from etegrec_hf import ETEGRecTokenizer
from etegrec_hf.models.code_trie import CodeTrie, ItemSets
from etegrec_hf.models.histories import newest_items, newest_items_before
from etegrec_hf.models.item_logits import ItemEvidence

CODES = st.integers(2, 4).flatmap(
    lambda length: st.lists(st.tuples(*[st.integers(0, 4)] * length), min_size=1, max_size=25, unique=True)
)


def evidence(trie, logits: torch.Tensor, repeats: float = 0.0, had: torch.Tensor | None = None) -> ItemEvidence:
    """The term of item logits `[items, users]` by item index, and of items `had` `[users, n]`."""
    had = torch.zeros(logits.shape[1], 0, dtype=torch.long) if had is None else had
    by_leaf = logits[trie.leaf_items.long() - 1]
    return ItemEvidence(trie, [by_leaf], ItemSets(trie, trie.leaf(had)), torch.tensor(repeats / 10))


def below(trie, node: int) -> list[int]:
    """Items below a node, one by one."""
    inner = len(trie.inner_counts)
    children = range(1, len(trie.keys) + 1)
    if node >= inner:
        return [trie.leaf_items[node - inner].item() - 1]
    return [item for child in children if trie.parent(torch.tensor(child)) == node for item in below(trie, child)]


def levels_of(trie) -> list[torch.Tensor]:
    """The inner nodes of each level."""
    levels = [torch.zeros(1, dtype=torch.long)]
    for level in range(trie.layout.code_length - 1):
        child = trie.successors(levels[-1], level)[1]
        levels.append(child[child >= 0])
    return levels


@settings(max_examples=40)
@given(codes=CODES, users=st.integers(1, 3), seed=st.integers(0, 99), size=st.sampled_from([1.0, 20.0]))
def test_a_node_gains_the_log_sum_exp_of_the_items_below_it(codes, users, seed, size):
    """Whatever the shape of the trie: numbers, and gradients of item logits."""
    generator = torch.Generator().manual_seed(seed)
    trie = CodeTrie.from_item_codes(torch.tensor(codes), 5)
    logits = size * torch.randn(len(codes), users, generator=generator)
    mine, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    term, total, expected_total = evidence(trie, mine), 0, 0
    for level, nodes in enumerate(levels_of(trie)):
        beams = torch.cat([nodes, torch.tensor([-1])])[torch.randperm(len(nodes) + 1, generator=generator)]
        child = trie.successors(beams, level)[1].expand(users, -1, -1)
        exists = child >= 0
        expected = torch.zeros(child.shape)
        for place in exists.nonzero():
            user, *_ = place.tolist()
            items = below(trie, int(child[tuple(place)]))
            expected = expected.index_put(tuple(place), theirs[items, user].logsumexp(0))
        numbers = term(child, level)
        torch.testing.assert_close(numbers[exists], expected[exists], atol=1e-4, rtol=1e-5)
        weights = torch.randn(child.shape, generator=generator)
        total = total + (numbers * weights)[exists].sum()
        expected_total = expected_total + (expected * weights)[exists].sum()
    total.backward(), expected_total.backward()
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-4, rtol=1e-4)


@settings(max_examples=30)
@given(codes=CODES, seed=st.integers(0, 99))
def test_along_a_path_it_is_the_same_level_by_level(codes, seed):
    """For paths of items, and of codes that lead to none after the first, the second or the last code."""
    generator = torch.Generator().manual_seed(seed)
    trie = CodeTrie.from_item_codes(torch.tensor(codes), 5)
    term = evidence(trie, 5 * torch.randn(len(codes), 2, generator=generator))
    paths = torch.cat([torch.tensor(codes), torch.randint(0, 5, (9, len(codes[0])), generator=generator)])
    paths = paths[torch.randint(len(paths), (2, 12), generator=generator)]  # [users, n, L]
    node, children = torch.zeros(2, 12, dtype=torch.long), []
    for level in range(paths.shape[-1]):
        children.append(trie.successors(node, level)[1])
        node = trie.advance(node, paths[..., level])
    for level, (numbers, child) in enumerate(zip(term.along(children), children)):
        assert numbers.shape == child.shape
        assert numbers.isfinite().all()
        exists = child >= 0
        torch.testing.assert_close(numbers[exists], term(child, level)[exists], msg=f"level {level}")


def test_of_a_part_of_the_items_too():
    """Children of some codes alone, in any order."""
    trie = CodeTrie.from_item_codes(torch.tensor([[0, 0], [0, 3], [1, 2], [4, 1]]), 5)
    logits = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    term = evidence(trie, logits)
    of_4, of_0 = trie.walk(torch.tensor([[4], [0]])).tolist()
    pair = torch.tensor([1.0, 2.0]).logsumexp(0).item()
    assert term(torch.tensor([[[of_4, -1, of_0]]]), 0)[0, 0, [0, 2]].tolist() == pytest.approx([4.0, pair])
    last = trie.walk(torch.tensor([0, 3])).item()
    assert term(torch.tensor([[[-1, last]]]), 1)[0, 0, 1].item() == pytest.approx(2.0)


@pytest.mark.parametrize("size", [100.0, 500.0, 1e4])
def test_extreme_logits_stay_finite(size):
    """Items below one code also get different numbers, however far they are from the best item."""
    trie = CodeTrie.from_item_codes(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 3]]), 5)
    logits = torch.tensor([[size], [size - 1], [-size], [-size - 1]], requires_grad=True)
    term = evidence(trie, logits.clone())
    first = term(trie.successors(torch.zeros(1, 1, dtype=torch.long), 0)[1], 0)
    second = term(trie.successors(trie.walk(torch.tensor([[[1]]])), 1)[1], 1)
    assert first.isfinite().all()
    assert first[0, 0, 0].item() == pytest.approx(size + torch.tensor([0.0, -1.0]).logsumexp(0).item())
    assert first[0, 0, 1] < size - 80
    torch.testing.assert_close(second[0, 0, 0] - second[0, 0, 1], torch.tensor(1.0), atol=1e-2, rtol=0)
    (first.log_softmax(-1)[0, 0, 1] + second.log_softmax(-1)[0, 0, 1]).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[2:].any()


def test_items_of_the_history_gain_what_is_learned():
    trie = CodeTrie.from_item_codes(torch.tensor([[0, 0], [0, 3], [1, 2], [4, 1]]), 5)
    had = torch.tensor([[2, 2, 4], [3, 0, 0]])  # a repeated item counts once, and 0 is padding
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    term = evidence(trie, logits.clone(), repeats=-3.0, had=had)
    gained = logits.clone()
    gained[[1, 3], 0] -= 3
    gained[2, 1] -= 3
    root = trie.successors(torch.zeros(2, 1, dtype=torch.long), 0)[1]
    expected = torch.stack([gained[:2].logsumexp(0), gained[2], gained[3]])
    torch.testing.assert_close(term(root, 0)[:, 0], expected.T)
    leaves = trie.leaf(torch.tensor([[1, 2, 0, 4], [3, 3, 1, 0]]))
    assert term.of_items(leaves).tolist() == [[0, -3, 0, -3], [-3, -3, 0, 0]]


# In a model


KINDS = {
    "recipe": RECIPE,
    "codes": RECIPE | {"encoder_input": "codes"},
    "bidirectional": RECIPE | {"encoder_attention": "bidirectional"},
    "one vector per item": RECIPE | {"item_ensemble": 1},
    "by the state": RECIPE | {"recent_items": 0, "mixed_items": 0},
    "learned transitions": RECIPE | {"mixed_items": 0, "num_transitions": 4, "learns_transitions": True},
}


def without_code_logits(seed: int = 0, **kind):
    """A model whose code logits are all 0, as the vectors of codes are, and that has no other bias."""
    model = make_model(random_codes(40, 3, 8, seed), 8, seed, **kind)
    with torch.no_grad():
        model.shared.weight.zero_()
        model.repeat_bias.zero_()
    return model


def naive_logits(model, histories: list[list[int]], repeats: bool = True) -> torch.Tensor:
    """Item logits `[users, n_items]` by the formula, with what items of the history gain if `repeats`."""
    parts = torch.stack([naive_member(model, number, histories) for number in range(model.config.item_ensemble)])
    had = torch.zeros(parts.shape[1:])
    for row, history in zip(had, histories):
        row[torch.tensor(history) - 1] = 1
    return parts.softmax(2).mean(0).log() + 10 * model.item_logits.repeats * had * repeats


def naive_member(model, number: int, histories: list[list[int]]) -> torch.Tensor:
    """Item logits `[users, n_items]` of one member of the ensemble."""
    inner, rows, width = model.item_logits.members[number], [], model.config.d_model
    embeddings = model.catalogue.semantic_embedding[1:]
    directions = embeddings / embeddings.norm(dim=1, keepdim=True).clamp(min=1e-9)
    vectors = model.config.item_gain * model.item_inputs.own.weight[1:]
    vectors = vectors + directions @ model.item_logits.projection.weight.T
    vectors = vectors[:, number * width : (number + 1) * width]
    may_come = torch.full((len(vectors),), 0.0).masked_fill(model.catalogue.is_removed[1:], -torch.inf)
    for history in histories:
        inputs = model.catalogue.inputs_from_items(torch.tensor([history]))
        states = model(**inputs).encoder_last_hidden_state
        asking = states[0, -1]
        if inner.recency is not None:  # the newest items instead
            asking = sum(weight * vectors[item - 1] for weight, item in zip(inner.recency, reversed(history)))
        mixed = [] if inner.mixed is None else zip(inner.mixed, reversed(history))
        asked = [inner.query.weight @ asking, *(ask.weight @ vectors[item - 1] for ask, item in mixed)]
        shares = torch.ones(1)
        if len(asked) > 1:
            shares = (inner.shares.weight @ states[0, -1] + inner.shares.bias)[: len(asked)].softmax(0)
        parts = [share * (vectors @ query + may_come).softmax(0) for share, query in zip(shares, asked)]
        logits = torch.stack(parts).sum(0).log()
        if model.config.learns_transitions:
            transitions = model.catalogue.transitions
            for share, item in zip(transitions.gains.recency, reversed(history)):
                for follower, gain in zip(transitions.items[item].tolist(), transitions.gains.of_pairs[item]):
                    logits = logits.index_add(0, torch.tensor([follower - 1]), (50 * share * gain).view(1))
        rows.append(logits)
    return torch.stack(rows)


HISTORIES = [[3, 9, 7, 9], [12], [1, 40, 2]]


def inputs_of(model, histories=HISTORIES):
    width = max(map(len, histories))
    return model.catalogue.inputs_from_items(torch.tensor([row + [0] * (width - len(row)) for row in histories]))


def by_item(items: torch.Tensor, scores: torch.Tensor, n_items: int = 40) -> torch.Tensor:
    """Returns scores `[users, n_items]` of ranked items; -inf for items that weren't found."""
    return torch.full((len(items), n_items + 1), -torch.inf).scatter_(1, items, scores)[:, 1:]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_with_code_logits_of_0_items_share_a_softmax(kind):
    model = without_code_logits(**KINDS[kind])
    model.remove_items(torch.tensor([6, 12]))
    logits = naive_logits(model, HISTORIES)
    logits[:, [5, 11]] = -torch.inf
    log_p = logits.log_softmax(1)
    inputs = inputs_of(model)
    found = by_item(*model.recommend(**inputs, top_k=40, num_beams=40))
    torch.testing.assert_close(found, log_p, atol=1e-4, rtol=0)

    exclude, allowed = torch.tensor([[3, 4, 0], [1, 2, 5], [0, 0, 0]]), torch.arange(2, 30, 3)
    limited = by_item(*model.recommend(**inputs, top_k=40, num_beams=40, exclude=exclude, allowed=allowed))
    kept = torch.isin(torch.arange(1, 41), allowed).repeat(3, 1)
    kept[0, [2, 3]] = kept[1, [0, 1, 4]] = False
    torch.testing.assert_close(limited, log_p.masked_fill(~kept, -torch.inf), atol=1e-4, rtol=0)

    drawn = by_item(*model.sample_items(**inputs, num_samples=40, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(drawn, log_p, atol=1e-4, rtol=0)


def test_with_code_logits_of_0_gradients_are_those_of_a_softmax_over_items():
    model = without_code_logits(**RECIPE)
    model.shared.requires_grad_(False)
    targets = torch.tensor([3, 5, 12])  # the first is of its history
    model(**inputs_of(model), labels=model.catalogue.item_tokens[targets]).loss.backward()
    parts = ("item_inputs.own.weight", "item_inputs.projection.weight", "item_logits.projection.weight",
             "item_logits.repeats", "item_logits.members.0.query.weight", "item_logits.members.1.query.weight",
             "item_logits.members.1.recency", "item_logits.members.1.mixed.1.weight",
             "item_logits.members.0.shares.weight")  # fmt: skip
    found = {name: model.get_parameter(name).grad.clone() for name in parts}
    model.zero_grad()
    loss = torch.nn.functional.cross_entropy(naive_logits(model, HISTORIES), targets - 1) / 3  # per code
    loss.backward()
    for name in parts:
        expected = model.get_parameter(name).grad
        assert expected.abs().max() > 0
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-4, msg=name)


@torch.no_grad()
def test_with_item_logits_of_0_a_code_counts_by_its_items():
    """The model without them, whose logits gain the logarithm of how many items are below."""
    model = make_model(random_codes(40, 3, 8), 8, **RECIPE | {"mixed_items": 0, "item_ensemble": 1})
    plain = make_model(
        random_codes(40, 3, 8),
        8,
        **RECIPE | {"item_logits": "none", "recent_items": 0, "mixed_items": 0, "item_ensemble": 1},
    )
    plain.load_state_dict(model.state_dict(), strict=False)
    for member in model.item_logits.members:
        member.query.weight.zero_()
    model.item_logits.repeats.zero_()
    labels = model.catalogue.item_tokens[[3, 5, 12]]
    gained = model(**inputs_of(model), labels=labels).logits - plain(**inputs_of(plain), labels=labels).logits
    codes = model.catalogue.item_codes
    for user, target in enumerate(codes[[2, 4, 11]].tolist()):
        for level in range(3):
            for code in range(8):
                prefix = torch.tensor([*target[:level], code])
                count = (codes[:, : level + 1] == prefix).all(1).sum()
                expected = count.float().log() if count else torch.tensor(0.0)  # where nothing is, nothing is gained
                torch.testing.assert_close(gained[user, level, code], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_item_loss_lets_items_of_the_history_compete(kind):
    """It is that of a softmax over all items, without what the history's items gain, and without code logits."""
    model = make_model(random_codes(40, 3, 8), 8, **KINDS[kind])
    model.remove_items(torch.tensor([6, 12]))
    targets = torch.tensor([3, 5, 13])
    found = model(**inputs_of(model), labels=model.catalogue.item_tokens[targets]).item_loss
    members = [naive_member(model, number, HISTORIES) for number in range(model.config.item_ensemble)]
    losses = []
    for logits in members:
        logits[:, [5, 11]] = -torch.inf
        losses.append(torch.nn.functional.cross_entropy(logits, targets - 1) / 3)
    torch.testing.assert_close(found, torch.stack(losses).mean(), atol=1e-5, rtol=0)
    model.item_logits.repeats.add_(1)
    again = model(**inputs_of(model), labels=model.catalogue.item_tokens[targets])
    assert again.item_loss == found
    assert (again.loss - found).abs() > 0.01


@torch.no_grad()
def test_whatever_the_codes_of_items_are_their_logits_stay():
    model = without_code_logits(**RECIPE)
    before = by_item(*model.recommend(**inputs_of(model), top_k=40, num_beams=40))
    model.set_item_codes(random_codes(40, 3, 8, seed=7))
    after = by_item(*model.recommend(**inputs_of(model), top_k=40, num_beams=40))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)


@torch.no_grad()
def test_items_that_join_are_scored_by_their_embeddings():
    model = without_code_logits(
        **RECIPE | {"mixed_items": 0, "item_ensemble": 1}
    )  # in a mixture, each part would make room by itself
    tokenizer = ETEGRecTokenizer.from_item_codes([f"i{row}" for row in range(1, 41)], model.catalogue.item_codes, 8)
    before = by_item(*model.recommend(**inputs_of(model), top_k=40, num_beams=40))
    embeddings = torch.randn(2, 12, generator=torch.Generator().manual_seed(5))
    new = model.add_items(["new", "other"], embeddings, tokenizer)
    assert new.tolist() == [41, 42]
    assert not model.item_inputs.own.weight[[41, 42]].any()
    after = by_item(*model.recommend(**inputs_of(model), top_k=42, num_beams=42), n_items=42)
    torch.testing.assert_close(after, naive_logits(model, HISTORIES).log_softmax(1), atol=1e-4, rtol=0)
    lost = before - after[:, :40]  # old items lose alike to the new ones
    torch.testing.assert_close(lost, lost[:, :1].expand_as(lost), atol=1e-4, rtol=0)
    assert (lost > 0).all()
    read = model.recommend(**inputs_of(model, [[41, 3], [42]]), top_k=42, num_beams=42)[1]
    torch.testing.assert_close(read.exp().sum(1), torch.ones(2))


def test_a_removed_item_as_a_target_has_a_finite_loss():
    model = make_model(random_codes(40, 3, 8), 8, **RECIPE)
    model.remove_items(torch.tensor([5]))
    loss = model(**inputs_of(model), labels=model.catalogue.item_tokens[[5, 5, 9]]).loss
    loss.backward()
    assert loss.isfinite()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)


def test_it_learns_what_comes_after_what():
    """Pairs of items that follow each other: item vectors learn them with everything else frozen."""
    model = make_model(random_codes(40, 3, 8), 8, **RECIPE)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "item_inputs.own.weight" or "query" in name)
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=3e-3)
    items = torch.arange(1, 41)
    follows = items.roll(7)
    inputs = model.catalogue.inputs_from_items(items.unsqueeze(1))
    for _ in range(60):
        optimizer.zero_grad()
        model(**inputs, labels=model.catalogue.item_tokens[follows]).loss.backward()
        optimizer.step()
    best, _ = model.recommend(**inputs, top_k=1, num_beams=10)
    assert (best[:, 0] == follows).float().mean() > 0.9


LEARNED = ("item_inputs.own.weight", "item_logits.projection.weight", "item_logits.members.1.query.weight",
           "item_logits.members.1.recency", "item_logits.members.1.mixed.0.weight",
           "item_logits.members.1.shares.weight")  # fmt: skip


def gradients(model, loss) -> dict[str, bool]:
    """Returns by name whether a loss has a gradient for each weight."""
    model.zero_grad()
    loss.backward()
    return {name: weight.grad is not None and bool(weight.grad.any()) for name, weight in model.named_parameters()}


def ways_to_give_targets(model) -> dict[str, dict[str, torch.Tensor]]:
    sequences = model.catalogue.inputs_from_items(torch.tensor([[3, 9, 17], [8, 2, 30]]))
    after = torch.tensor([[1, 2, 3], [1, 2, 3]])
    targets = model.catalogue.item_tokens[torch.tensor([[4, 5, 6], [4, 7, 9]])]
    return {
        "a target per history": inputs_of(model) | {"labels": model.catalogue.item_tokens[[4, 5, 6]]},
        "whole sequences": sequences | {"history_lengths": after, "sequence_labels": targets},
    }


@pytest.mark.parametrize("way", ["a target per history", "whole sequences"])
def test_detached_item_logits_learn_from_the_item_loss_alone(way):
    codes = random_codes(40, 3, 8)
    exact, detached = (make_model(codes, 8, **RECIPE | {"item_logits": kind}) for kind in ("exact", "detached"))
    given = ways_to_give_targets(detached)[way]
    expected, found = exact(**given), detached(**given)
    torch.testing.assert_close(
        (found.loss, found.item_loss, found.logits), (expected.loss, expected.item_loss, expected.logits)
    )
    by_codes, by_items = gradients(detached, detached(**given).loss), gradients(detached, detached(**given).item_loss)
    assert not any(by_codes[name] for name in LEARNED)
    assert by_codes["item_logits.repeats"], "which the item loss doesn't know"
    assert all(by_codes[name] for name in ("item_inputs.projection.weight", "shared.weight", "repeat_bias"))
    assert all(by_items[name] for name in LEARNED)
    assert all(gradients(exact, exact(**given).loss)[name] for name in LEARNED)


@pytest.mark.parametrize("way", ["a target per history", "whole sequences"])
def test_pairs_learn_from_the_item_loss_alone(way):
    kind = {"item_logits": "detached", "mixed_items": 0, "num_transitions": 4, "learns_transitions": True}
    model = make_model(random_codes(40, 3, 8), 8, **RECIPE | kind)
    names = {"catalogue.transitions.gains.of_pairs", "catalogue.transitions.gains.recency"}
    given = ways_to_give_targets(model)[way]
    moved = gradients(model, model(**given).loss)
    assert not any(moved[name] for name in names)
    moved = gradients(model, model(**given).item_loss)
    assert all(moved[name] for name in names)
    rows = model.catalogue.transitions.gains.of_pairs.grad.any(1).nonzero().squeeze(1).tolist()
    assert 0 < len(rows) <= len(set(rows) & set(model.catalogue.items_of(given["input_ids"]).flatten().tolist()))


def test_rewards_reach_detached_item_logits():
    """GRPO scores candidates, and shapes all that they are scored by."""
    model = make_model(random_codes(40, 3, 8), 8, **RECIPE | {"item_logits": "detached"})
    candidates = model.catalogue.item_tokens[torch.tensor([[4, 5], [6, 7], [8, 9]])]
    moved = gradients(model, model(**inputs_of(model), candidates=candidates).loss)
    assert all(moved[name] for name in LEARNED)


def test_histories_are_asked_for():
    model = make_model(random_codes(40, 3, 8), 8, **RECIPE | {"has_repeat_bias": False})
    states = model(**inputs_of(model)).encoder_last_hidden_state
    with pytest.raises(ValueError, match="`input_ids` is missing; a model with a repeat bias or item logits"):
        model(encoder_outputs=(states,), labels=model.catalogue.item_tokens[[1, 2, 3]])
    with pytest.raises(ValueError, match="models with a repeat bias or item logits need the histories"):
        model.generate(encoder_outputs=(states,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_item_logits_are_float32_in_every_dtype(dtype):
    model = make_model(random_codes(40, 3, 8), 8, **RECIPE).to(dtype)
    inputs, labels = inputs_of(model), model.catalogue.item_tokens[[3, 5, 12]]
    for scored in (model(**inputs, labels=labels), model(**inputs, candidates=labels.unsqueeze(1))):
        assert scored.logits.dtype == torch.float32
        scored.loss.backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)
    for items, scores in (model.recommend(**inputs), model.sample_items(**inputs)):
        assert (items > 0).all()
        assert scores.isfinite().all()


@torch.no_grad()
def test_vectors_that_are_kept_follow_every_change():
    model = make_model(random_codes(40, 3, 8), 8, **RECIPE)
    inputs, seen = inputs_of(model), []

    def check() -> None:
        """The search, which keeps vectors, agrees with a forward pass that makes them."""
        scores = by_item(*model.recommend(**inputs, top_k=40, num_beams=40))
        with torch.enable_grad():
            logits = model(**inputs, candidates=model.catalogue.item_tokens[1:].expand(3, -1, -1)).logits
        codes = model.catalogue.item_codes.expand(3, -1, -1).unsqueeze(3)
        expected = logits.detach().log_softmax(-1).gather(3, codes).sum((2, 3))
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
        assert not any(torch.equal(scores, others) for others in seen)
        seen.append(scores)

    check()
    model.item_inputs.own.weight[4] += 1
    check()
    model.item_logits.projection.weight.mul_(3)
    check()
    model.catalogue.set_semantic_embedding(torch.randn(40, 12))
    check()
    model.item_logits.projection.weight.data = torch.randn_like(model.item_logits.projection.weight)
    check()
    other = make_model(random_codes(40, 3, 8), 8, seed=1, **RECIPE)
    model.load_state_dict(other.state_dict())
    check()
    model.set_item_codes(random_codes(40, 3, 8, seed=5))
    check()
    with torch.enable_grad():  # a fused optimizer doesn't count what it changes
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
        model.train()(**inputs, labels=model.catalogue.item_tokens[[3, 5, 12]]).item_loss.backward()
        optimizer.step()
    model.eval()
    check()


@torch.no_grad()
@pytest.mark.parametrize("name", ["item_logits.projection", "item_inputs.own"])
def test_vectors_of_layers_with_hooks_are_not_kept(name):
    model = make_model(random_codes(40, 3, 8), 8, **RECIPE)
    inputs = inputs_of(model)

    def scores() -> torch.Tensor:
        return by_item(*model.recommend(**inputs, top_k=40, num_beams=40))

    before = scores()
    for factor in (3.0, 0.5):
        hook = model.get_submodule(name).register_forward_hook(lambda layer, given, result, by=factor: by * result)
        found = scores()
        model.eval()  # after which nothing is kept
        assert torch.equal(found, scores())
        assert not torch.allclose(found, before)
        hook.remove()
        assert torch.equal(scores(), before)


@torch.no_grad()
def test_candidates_are_scored_without_dropout_in_training_too():
    model = make_model(random_codes(40, 3, 8), 8, **RECIPE | {"dropout_rate": 0.5})
    inputs = inputs_of(model)
    states = model(**inputs).encoder_last_hidden_state
    candidates = model.catalogue.item_tokens[[3, 5, 12]].expand(3, -1, -1)
    scored = [
        model.train(training)(**inputs, encoder_outputs=(states,), candidates=candidates).logits
        for training in (False, True)
    ]
    torch.testing.assert_close(scored[1], scored[0])
    labels = model.catalogue.item_tokens[[3, 5, 12]]
    of_targets = [model.train()(**inputs, encoder_outputs=(states,), labels=labels).item_loss for _ in range(2)]
    assert of_targets[0] != of_targets[1]


def test_the_newest_items_of_histories_padded_anywhere():
    items = torch.tensor([[3, 0, 5, 0, 4], [0, 0, 0, 0, 7], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0]])
    assert newest_items(items, 3).tolist() == [[4, 5, 3], [7, 0, 0], [5, 4, 3], [0, 0, 0]]
    assert newest_items(items, 0).shape == (4, 0)
    before = newest_items_before(torch.tensor([[8, 9, 6], [7, 0, 0]]), torch.tensor([[1, 3], [1, 0]]), 2)
    assert before.tolist() == [[[8, 0], [6, 9]], [[7, 0], [0, 0]]]
