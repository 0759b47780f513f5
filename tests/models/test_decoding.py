import itertools
import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import RECIPE, make_model, random_codes, random_histories
from transformers import GenerationConfig

from etegrec_hf import CodeTrieLogitsProcessor, ETEGRecConfig, ETEGRecForConditionalGeneration
from etegrec_hf.models.beam_search import BeamDecoder
from etegrec_hf.models.code_distribution import CodeDistribution
from etegrec_hf.models.configuration_etegrec import ENCODER_ATTENTION
from etegrec_hf.models.search import preference_cosines

SOFTMAX = [{}, {"constrained_softmax": True}, {"constrained_softmax": True, "has_repeat_bias": True}, RECIPE]


def all_scores(model, history: torch.Tensor) -> torch.Tensor:
    """Log-probability of every item `[batch, n_items]` by scoring each with the forward pass."""
    scores = []
    for item in range(1, model.config.n_items + 1):
        labels = model.catalogue.item_tokens[[item]].expand(len(history), -1)
        logits = model(**model.catalogue.inputs_from_items(history), labels=labels).logits
        raw = model.catalogue.item_codes[item - 1].expand(len(history), -1)
        scores.append(logits.log_softmax(-1).gather(2, raw.unsqueeze(2)).sum((1, 2)))
    return torch.stack(scores, dim=1)


def assert_same_ranking(items, scores, expected_items, expected_scores):
    torch.testing.assert_close(scores, expected_scores, atol=1e-5, rtol=0)
    distinct = (expected_scores[:, :-1] - expected_scores[:, 1:]).abs().min() > 1e-5
    if distinct:
        assert torch.equal(items, expected_items)


@settings(max_examples=25)
@given(
    n_items=st.integers(2, 30),
    shape=st.sampled_from([(2, 6), (3, 4), (4, 3)]),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    seed=st.integers(0, 99),
    encoder=st.sampled_from(ENCODER_ATTENTION),
    softmax=st.sampled_from(SOFTMAX),
    reads_items=st.booleans(),
)
def test_a_beam_as_wide_as_the_catalogue_is_brute_force(n_items, shape, lengths, seed, encoder, softmax, reads_items):
    kinds = {"encoder_attention": encoder, "reads_items": reads_items, **softmax}
    model = make_model(random_codes(n_items, *shape, seed=seed), shape[1], seed=seed, **kinds)
    history = random_histories(model, lengths, seed)
    expected_scores, order = all_scores(model, history).sort(descending=True, dim=1)
    if softmax:
        torch.testing.assert_close(expected_scores.exp().sum(1), torch.ones(len(lengths)))
    items, scores = model.recommend(**model.catalogue.inputs_from_items(history), top_k=n_items, num_beams=n_items)
    assert_same_ranking(items, scores, order + 1, expected_scores)


@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    beams=st.integers(1, 12),
    seed=st.integers(0, 99),
    attention=st.sampled_from(["sdpa", "eager"]),
    encoder=st.sampled_from(ENCODER_ATTENTION),
    softmax=st.sampled_from(SOFTMAX),
    reads_items=st.booleans(),
)
def test_generate_and_recommend_agree(lengths, beams, seed, attention, encoder, softmax, reads_items):
    kinds = {
        "attn_implementation": attention,
        "encoder_attention": encoder,
        "reads_items": reads_items,
        **softmax,
    }
    model = make_model(random_codes(50, 3, 8, seed=seed), 8, seed=seed, **kinds)
    history = random_histories(model, lengths, seed)
    items, scores = model.recommend(**model.catalogue.inputs_from_items(history), top_k=beams, num_beams=beams)
    output = model.generate(
        **model.catalogue.inputs_from_items(history),
        num_beams=beams,
        num_return_sequences=beams,
        return_dict_in_generate=True,
        output_scores=True,
    )
    raw = model.config.layout.codes(output.sequences[:, 1:])
    generated = model.catalogue.trie.item(model.catalogue.trie.walk(raw)).view(len(lengths), beams)
    if beams == 1:  # greedy search has no sequence scores
        assert torch.equal(generated, items)
    else:
        assert_same_ranking(items, scores, generated, output.sequences_scores.view(len(lengths), beams))


@pytest.mark.parametrize("options", [{"do_sample": True}, {"do_sample": True, "temperature": 5.0}, {"num_beams": 7}])
def test_every_generated_sequence_is_an_item(model, tokenizer, options):
    torch.manual_seed(0)
    batch = tokenizer([["i1", "i2"], ["i3"]], padding=True, return_tensors="pt")
    sequences = model.generate(**batch, num_return_sequences=7, **options)
    assert sequences.shape == (14, 4)
    items = tokenizer.decode(sequences)
    assert all(item is not None for (item,) in items)
    if "num_beams" in options:
        assert len({item for (item,) in items[:7]}) == 7


def test_unconstrained_codes_keep_to_their_levels_but_may_be_nobodys(model, tokenizer):
    torch.manual_seed(0)
    batch = tokenizer([["i1", "i2"]], return_tensors="pt")
    sequences = model.generate(**batch, constrained=False, do_sample=True, temperature=9.0, num_return_sequences=200)
    assert ((sequences[:, 1:] - 1) // 8 == torch.arange(3)).all()
    items = [item for (item,) in tokenizer.decode(sequences)]
    assert None in items
    assert any(item is not None for item in items)


def test_sampling_follows_the_models_distribution(model, tokenizer):
    torch.manual_seed(0)
    batch = tokenizer([["i1", "i2"]], return_tensors="pt")
    first = model.generate(**batch, constrained=False, do_sample=True, num_return_sequences=4000)[:, 1] - 1
    expected = model(**batch).logits[0, 0, 1:9].softmax(-1)
    torch.testing.assert_close(first.bincount(minlength=8) / 4000, expected, atol=0.03, rtol=0)


def test_constrained_softmax_leaves_out_codes_that_no_item_has():
    model = make_model(torch.tensor([[0, 1, 0], [0, 1, 2], [0, 2, 1], [3, 0, 0]]), 4, constrained_softmax=True)
    inputs = model.catalogue.inputs_from_items(torch.tensor([[1, 2]]))
    plain = make_model(model.catalogue.item_codes, 4)
    plain.load_state_dict(model.state_dict())
    logits = plain(**inputs, labels=model.catalogue.item_tokens[[2]]).logits[0]
    first, second, third = logits[0, [0, 3]], logits[1, [1, 2]], logits[2, [0, 2]]
    expected = first.log_softmax(0)[0] + second.log_softmax(0)[0] + third.log_softmax(0)[1]
    output = model(**inputs, labels=model.catalogue.item_tokens[[2]])
    torch.testing.assert_close(-3 * output.loss, expected)
    items, scores = model.recommend(**inputs, top_k=4)
    torch.testing.assert_close(scores[items == 2], expected.unsqueeze(0))


@pytest.mark.parametrize("kinds", SOFTMAX[1:])
def test_a_removed_item_can_still_be_a_label_of_constrained_softmax(kinds):
    model = make_model(random_codes(20, 3, 4), 4, **kinds | {"item_ensemble": 1})
    inputs = model.catalogue.inputs_from_items(torch.tensor([[1, 2], [3, 4]]))
    labels = model.catalogue.item_tokens[[5, 6]]
    before = model(**inputs, labels=labels).logits
    model.remove_items(torch.tensor([5]))
    output = model(**inputs, labels=labels)
    assert output.loss.isfinite()
    without = {
        "constrained_softmax": False,
        "has_repeat_bias": False,
        "item_logits": "none",
        "recent_items": 0,
        "mixed_items": 0,
        "item_ensemble": 1,
    }
    plain = make_model(model.catalogue.item_codes, 4, **kinds | without)
    plain.load_state_dict(model.state_dict(), strict=False)
    unlimited = plain(**inputs, labels=labels).logits
    assert torch.equal(output.logits[0], unlimited[0])
    assert not torch.equal(before[0], unlimited[0])


@cache
def model_of_20_items(place: int):
    """One for all examples: what differs is what they draw."""
    return make_model(random_codes(20, 3, 4), 4, **SOFTMAX[place])


@pytest.mark.parametrize("place", range(len(SOFTMAX)))
@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 99))
def test_excluded_items_and_all_but_allowed_ones_stay_out(place, data, seed):
    model = model_of_20_items(place)
    history = random_histories(model, [2, 3], seed)
    index = st.integers(0, 20)
    exclude = torch.tensor([data.draw(st.lists(index, min_size=6, max_size=6)) for _ in range(2)])
    allowed = data.draw(st.one_of(st.none(), st.sets(st.integers(1, 20), min_size=1)))
    possible = torch.tensor(sorted(allowed)) if allowed else None
    items, scores = model.recommend(
        **model.catalogue.inputs_from_items(history), top_k=20, num_beams=20, exclude=exclude, allowed=possible
    )
    expected = all_scores(model, history)
    for row in range(2):
        banned = set(exclude[row].tolist()) | (set(range(1, 21)) - allowed if allowed else set())
        wanted = [item for item in expected[row].argsort(descending=True).add(1).tolist() if item not in banned]
        found = items[row][items[row] > 0].tolist()
        assert sorted(found) == sorted(wanted)
        best = expected[row][[item - 1 for item in wanted]]
        torch.testing.assert_close(scores[row, : len(wanted)], best, atol=1e-5, rtol=0)
        assert (scores[row, len(wanted) :] == -torch.inf).all()


def test_a_narrow_beam_finds_what_remains_behind_excluded_favourites():
    """Excluding is part of the search: a beam must not die on prefixes whose items are all excluded."""
    model = make_model(random_codes(30, 3, 4), 4)
    history = random_histories(model, [3])
    favourites = model.recommend(**model.catalogue.inputs_from_items(history), top_k=25, num_beams=30)[0]
    items, scores = model.recommend(
        **model.catalogue.inputs_from_items(history), top_k=2, num_beams=2, exclude=favourites
    )
    assert (items > 0).all()
    assert scores.isfinite().all()
    assert not set(items[0].tolist()) & set(favourites[0].tolist())


def test_what_excludes_or_allows_must_fit(model):
    inputs = model.catalogue.inputs_from_items(random_histories(model, [2, 1]))
    with pytest.raises(ValueError, match=r"`exclude` has shape \(3,\); expected \(2, n\): one row of item indices"):
        model.recommend(**inputs, exclude=torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match=r"`exclude` has shape \(1, 2\); expected \(2, n\)"):
        model.recommend(**inputs, exclude=torch.tensor([[1, 2]]))
    with pytest.raises(ValueError, match="`allowed` holds no item that can be recommended; give one"):
        model.recommend(**inputs, allowed=torch.tensor([], dtype=torch.long))
    with pytest.raises(ValueError, match=r"`allowed` holds item indices from 3 to 41; the catalogue has 1..40"):
        model.recommend(**inputs, allowed=torch.tensor([3, 41]))
    with pytest.raises(ValueError, match=r"`allowed` has shape \(2, 2\); expected \(n,\), one list for all users"):
        model.recommend(**inputs, allowed=torch.tensor([[1, 2], [3, 4]]))
    with pytest.raises(ValueError, match=r"`exclude` isn't a tensor of item indices: .*; pad all rows with 0"):
        model.recommend(**inputs, exclude=[[1], [2, 3]])
    with pytest.raises(ValueError, match=r"`allowed` isn't .* turn ids into indices with `tokenizer.index_of\(ids\)`"):
        model.recommend(**inputs, allowed=["i1", "i2"])
    with pytest.raises(ValueError, match=r"`exclude` holds torch.float32; give item indices"):
        model.recommend(**inputs, exclude=torch.ones(2, 1))
    plain = model.recommend(**inputs)
    assert torch.equal(model.recommend(**inputs, exclude=[[], []])[0], plain[0]), "nothing to exclude"
    model.remove_items(torch.tensor([5]))
    with pytest.raises(ValueError, match="`allowed` holds no item that can be recommended"):
        model.recommend(**inputs, allowed=torch.tensor([5]))


def test_histories_that_are_none_are_an_error(model):
    ids = model.catalogue.inputs_from_items(torch.tensor([[3, 4]]))["input_ids"]
    for decode in (model.recommend, model.generate, model.sample_items):
        with pytest.raises(ValueError, match=r"`attention_mask` has shape \(1, 3\) and `input_ids` \(1, 6\)"):
            decode(ids, attention_mask=torch.ones(1, 3))
        with pytest.raises(ValueError, match=r"`input_ids` range from \d+ to 99, but the vocabulary is 0..24"):
            decode(ids.clone().fill_(99))
        with pytest.raises(ValueError, match="row 0 of `input_ids` holds part of an item"):
            decode(torch.nn.functional.pad(ids[:, :3], (1, 2)))
    floats = model.recommend(ids, attention_mask=torch.ones(1, 6))
    assert torch.equal(floats[0], model.recommend(ids)[0])
    masked = torch.tensor([[0, 0, 0, 1, 1, 1]])
    items, _ = model.recommend(ids, attention_mask=masked, top_k=39, num_beams=39, exclude_history=True)
    assert 3 in items[0], "masked tokens aren't part of the history"
    assert 4 not in items[0]


def test_sampling_within_beams_returns_items_or_says_why(model):
    torch.manual_seed(0)
    options = {"do_sample": True, "num_beams": 4, "num_return_sequences": 4}
    assert (items_of(model, model.generate(model.catalogue.item_tokens[[1]], **options)) > 0).all()
    history = model.catalogue.item_tokens[[1] * 50]
    with pytest.raises(ValueError, match=r"drew beams of probability 0; .*`sample_items`"):
        model.generate(history, temperature=0.01, **options)


def test_the_models_own_generation_settings_count():
    model = make_model(random_codes(300, 2, 200), 200)
    history = model.catalogue.item_tokens[[1]]
    items, scores = model.recommend(history, top_k=5, num_beams=5)
    model.generation_config.num_beams = model.generation_config.num_return_sequences = 5
    output = model.generate(history, return_dict_in_generate=True, output_scores=True)
    assert_same_ranking(items, scores, items_of(model, output.sequences)[None], output.sequences_scores[None])
    with pytest.raises(ValueError, match="asks for 5 items, but for some user only 2 may be returned"):
        model.generate(history, allowed=torch.tensor([1, 2]))
    model.generation_config.num_beams = model.generation_config.num_return_sequences = 1
    model.generation_config.do_sample = True
    torch.manual_seed(0)
    drawn = model.generate(history.expand(3000, -1))
    assert len(drawn[:, 1].unique()) > 60, "no top-k of 50 behind the caller's back"
    model.generation_config.top_k = 1
    assert len(model.generate(history.expand(100, -1)).unique(dim=0)) == 1
    model.generation_config = GenerationConfig(num_beams=5, length_penalty=1.0, decoder_start_token_id=0)
    best = model.generate(history, return_dict_in_generate=True, output_scores=True)
    torch.testing.assert_close(best.sequences_scores, scores[0, :1] / 2)  # by the 2 codes of an item


def test_max_batch_tokens_bounds_a_batch(model, monkeypatch):
    rows = []
    step = BeamDecoder.step

    def spy(self, tokens, *parent):
        rows.append(len(tokens))
        return step(self, tokens, *parent)

    monkeypatch.setattr(BeamDecoder, "step", spy)
    inputs = model.catalogue.inputs_from_items(random_histories(model, [4] * 10))
    model.recommend(**inputs, num_beams=20, max_batch_tokens=100)
    assert max(rows) == 3, "100 tokens hold 3 users of 12 + 20"
    assert sum(rows) == 10 * 3


def test_more_wanted_than_there_are(model):
    items, scores = model.recommend(model.catalogue.item_tokens[[1]], top_k=60, num_beams=60)
    assert items.shape == scores.shape == (1, 60)
    assert sorted(items[0, :40].tolist()) == list(range(1, 41))
    assert (items[0, 40:] == 0).all()
    assert (scores[0, 40:] == -torch.inf).all()


@settings(max_examples=20)
@given(data=st.data(), seed=st.integers(0, 99))
def test_generate_obeys_what_recommend_obeys(data, seed):
    model = make_model(random_codes(30, 3, 5, seed=seed), 5, seed=seed, **data.draw(st.sampled_from(SOFTMAX)))
    inputs = model.catalogue.inputs_from_items(random_histories(model, [2, 4], seed))
    exclude = torch.tensor([data.draw(st.lists(st.integers(0, 30), min_size=4, max_size=4)) for _ in range(2)])
    allowed = data.draw(st.one_of(st.none(), st.sets(st.integers(1, 30), min_size=15)))
    limits = {"exclude": exclude, "allowed": torch.tensor(sorted(allowed)) if allowed else None}
    limits["exclude_history"] = data.draw(st.booleans())
    items, scores = model.recommend(**inputs, top_k=5, num_beams=5, **limits)
    output = model.generate(
        **inputs, num_beams=5, num_return_sequences=5, return_dict_in_generate=True, output_scores=True, **limits
    )
    generated = items_of(model, output.sequences).view(2, 5)
    assert_same_ranking(items, scores, generated, output.sequences_scores.view(2, 5))
    torch.manual_seed(seed)
    sampled = items_of(model, model.generate(**inputs, do_sample=True, num_return_sequences=20, **limits)).view(2, 20)
    for row in range(2):
        banned = set(exclude[row].tolist()) | (set(range(1, 31)) - allowed if allowed else set())
        if limits["exclude_history"]:
            banned |= set(history_of(model, inputs, row))
        for found in (items[row], generated[row], sampled[row]):
            assert not set(found.tolist()) & (banned | {0})


def items_of(model, sequences: torch.Tensor) -> torch.Tensor:
    """Item index of each generated sequence `[rows, 1 + code_length]`."""
    return model.catalogue.trie.item(model.catalogue.trie.walk(model.config.layout.codes(sequences[:, 1:])))


def history_of(model, inputs, row: int) -> list[int]:
    codes = model.config.layout.codes(inputs["input_ids"][row].view(-1, model.config.code_length))
    return [item for item in model.catalogue.trie.item(model.catalogue.trie.walk(codes)).tolist() if item]


@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=7),
    budget=st.integers(1, 200),
    side=st.sampled_from(["left", "right", "between"]),
    seed=st.integers(0, 99),
    kind=st.sampled_from([{}, RECIPE, {"max_history": 8}]),
)
def test_batches_and_padding_change_nothing(lengths, budget, side, seed, kind):
    model = make_model(random_codes(50, 3, 8, seed=seed), 8, seed=seed, **kind)
    history = random_histories(model, lengths, seed)
    whole = model.recommend(**model.catalogue.inputs_from_items(history), top_k=6, num_beams=8, exclude_history=True)
    if side == "left":
        history = torch.stack([row.roll(len(row) - length) for row, length in zip(history, lengths)])
    if side == "between":
        history = torch.cat([history[:, :1], torch.zeros_like(history), history[:, 1:]], dim=1)
    padded = torch.nn.functional.pad(history, (2, 1))  # columns that nobody uses
    parts = model.recommend(
        **model.catalogue.inputs_from_items(padded),
        top_k=6,
        num_beams=8,
        exclude_history=True,
        max_batch_tokens=budget,
    )
    assert_same_ranking(*parts, *whole)


@pytest.mark.parametrize("side", ["left", "right"])
def test_of_long_histories_the_last_items_are_read(side):
    model = make_model(random_codes(40, 3, 8), 8, max_history=4)
    lengths = [9, 3, 6]
    history = random_histories(model, lengths)
    last = torch.zeros(3, 4, dtype=torch.long)
    for row, length in enumerate(lengths):
        kept = history[row, :length][-4:]
        last[row, : len(kept)] = kept
    if side == "left":
        history = torch.stack([row.roll(len(row) - length) for row, length in zip(history, lengths)])
    expected = model.recommend(**model.catalogue.inputs_from_items(last), top_k=5, exclude=history)
    for mine, theirs in zip(
        model.recommend(**model.catalogue.inputs_from_items(history), top_k=5, exclude_history=True), expected
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    generated = model.generate(**model.catalogue.inputs_from_items(history), num_beams=20, exclude_history=True)
    assert torch.equal(items_of(model, generated), expected[0][:, 0])


def log_probabilities(model, history: torch.Tensor, temperature: float, items: list[int]) -> dict[int, float]:
    """Log-probability of each of `items` when every code is drawn among those that lead to one of them."""
    result = {}
    paths = {item: model.catalogue.item_codes[item - 1].tolist() for item in items}
    for item, path in paths.items():
        logits = (
            model(**model.catalogue.inputs_from_items(history), labels=model.catalogue.item_tokens[[item]]).logits[0]
            / temperature
        )
        total = 0.0
        for level, code in enumerate(path):
            possible = sorted({other[level] for other in paths.values() if other[:level] == path[:level]})
            total += logits[level, possible].log_softmax(-1)[possible.index(code)].item()
        result[item] = total
    return result


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_sample_is_drawn_in_turn_and_without_replacement(temperature):
    """P(first i, then j) is p_i * p_j / (1 - p_i)."""
    model = make_model(random_codes(6, 3, 3), 3)
    history = torch.tensor([[2, 5]])
    allowed = [1, 2, 3, 4, 6]
    log_p = log_probabilities(model, history, temperature, allowed)
    p = {item: math.exp(value) for item, value in log_p.items()}
    assert sum(p.values()) == pytest.approx(1, abs=1e-5)
    draws = 20_000
    inputs = model.catalogue.inputs_from_items(history.expand(draws, -1))
    options = {"temperature": temperature, "allowed": torch.tensor(allowed), "max_batch_tokens": 10**6}
    items, scores = model.sample_items(**inputs, num_samples=2, generator=torch.Generator().manual_seed(0), **options)
    for item in allowed:
        torch.testing.assert_close(
            scores[items == item], torch.full_like(scores[items == item], log_p[item]), atol=1e-4, rtol=0
        )
    pairs = {pair: 0 for pair in itertools.permutations(allowed, 2)}
    for first, second in items.tolist():
        pairs[first, second] += 1
    for (first, second), count in pairs.items():
        expected = p[first] * p[second] / (1 - p[first])
        assert count / draws == pytest.approx(expected, abs=4 * math.sqrt(expected / draws) + 1e-4)


def test_a_sample_of_everything_is_everything(model):
    inputs = model.catalogue.inputs_from_items(random_histories(model, [3, 1]))
    items, scores = model.sample_items(**inputs, num_samples=45, generator=torch.Generator().manual_seed(1))
    assert [sorted(row) for row in items[:, :40].tolist()] == [list(range(1, 41))] * 2
    torch.testing.assert_close(scores[:, :40].exp().sum(1), torch.ones(2))
    assert (items[:, 40:] == 0).all()
    assert (scores[:, 40:] == -torch.inf).all()
    again = model.sample_items(**inputs, num_samples=45, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again[0], items), "the generator decides"
    with pytest.raises(ValueError, match=r"`num_samples` is 0 and `temperature` is 1.0; `num_samples` must be"):
        model.sample_items(**inputs, num_samples=0)
    for temperature in (0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"`temperature` is {temperature}; `num_samples` must be"):
            model.sample_items(**inputs, temperature=temperature)
    with pytest.raises(ValueError, match="`num_samples` is '5'; give a whole number"):
        model.sample_items(**inputs, num_samples="5")
    with pytest.raises(ValueError, match="`temperature` is '1'; give a number"):
        model.sample_items(**inputs, temperature="1")
    with pytest.raises(ValueError, match="`exclude_history` is 1; give True or False"):
        model.sample_items(**inputs, exclude_history=1)
    with pytest.raises(ValueError, match="`top_k` is '5'; give a whole number"):
        model.recommend(**inputs, top_k="5")


def test_generate_reads_embedded_histories_too(model):
    inputs = model.catalogue.inputs_from_items(random_histories(model, [4, 2]))
    embeds, mask = model.shared(inputs["input_ids"]), inputs["attention_mask"]
    generated = model.generate(inputs_embeds=embeds, attention_mask=mask, num_beams=3)
    assert generated.equal(model.generate(**inputs, num_beams=3))
    with pytest.raises(ValueError, match="there is nothing to generate from; give histories"):
        model.generate(num_beams=3)


def test_inference_mode_and_autocast_return_items(model):
    inputs = model.catalogue.inputs_from_items(random_histories(model, [4, 2]))
    expected = model.recommend(**inputs, top_k=10)
    with torch.inference_mode():
        assert torch.equal(model.recommend(**inputs, top_k=10)[0], expected[0])
    with torch.autocast("cpu", torch.bfloat16):
        items, scores = model.recommend(**inputs, top_k=10, exclude_history=True)
    assert (items > 0).all()
    torch.testing.assert_close(scores[:, 0], expected[1][:, 0], atol=0.1, rtol=0)


def test_a_trie_of_another_model_is_an_error(model):
    other = make_model(random_codes(40, 4, 8), 8)
    processor = CodeTrieLogitsProcessor(CodeDistribution(other.catalogue.trie))
    with pytest.raises(
        ValueError, match=r"the trie has 4 codes per item out of 8, a vocabulary of 33.* scores for 25"
    ):
        model.generate(model.catalogue.item_tokens[[3]], logits_processor=[processor])


@settings(max_examples=25)
@given(
    data=st.data(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    seed=st.integers(0, 99),
    kind=st.sampled_from([{}, RECIPE]),
)
def test_nothing_invalid_excluded_or_doubled_in_any_dtype(data, dtype, lengths, seed, kind):
    n_items = data.draw(st.integers(3, 40))
    model = make_model(random_codes(n_items, 3, 5, seed=seed), 5, seed=seed, **kind).to(dtype)
    history = random_histories(model, lengths, seed)
    exclude = torch.randint(0, n_items + 1, (len(lengths), 3), generator=torch.Generator().manual_seed(seed))
    limits = {"exclude": exclude, "exclude_history": True}
    beams = data.draw(st.integers(1, n_items))
    inputs = model.catalogue.inputs_from_items(history)
    found = model.recommend(**inputs, top_k=beams, num_beams=beams, **limits)
    drawn = model.sample_items(**inputs, num_samples=beams, **limits)
    for items, scores in (found, drawn):
        for row in range(len(lengths)):
            banned = set(history[row].tolist()) | set(exclude[row].tolist()) | {0}
            listed = items[row][items[row] > 0].tolist()
            assert len(set(listed)) == len(listed) == min(beams, n_items - len(banned - {0}))
            assert not set(listed) & banned
            assert max(listed, default=1) <= n_items
            assert (scores[row].isfinite() == (items[row] > 0)).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_what_the_cpu_finds(model):
    inputs = model.catalogue.inputs_from_items(random_histories(model, [4, 2, 3]))
    exclude = torch.tensor([[1, 2], [3, 0], [4, 5]])
    options = {"top_k": 8, "exclude_history": True, "allowed": torch.arange(1, 35)}
    expected = model.recommend(**inputs, exclude=exclude, **options)
    model.to("cuda")
    on_gpu = {name: tensor.to("cuda") for name, tensor in inputs.items()}
    options["allowed"] = options["allowed"].to("cuda")
    items, scores = model.recommend(**on_gpu, exclude=exclude.to("cuda"), **options)
    assert_same_ranking(items.cpu(), scores.cpu(), *expected)
    assert (model.sample_items(**on_gpu, num_samples=5)[0] > 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_return_items(model, dtype):
    expected = model.recommend(**model.catalogue.inputs_from_items(random_histories(model, [4, 2])), top_k=10)[1]
    model.to(dtype)
    items, scores = model.recommend(**model.catalogue.inputs_from_items(random_histories(model, [4, 2])), top_k=10)
    assert (items > 0).all()
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, atol=0.15 if dtype == torch.bfloat16 else 1e-5, rtol=0)
    assert all(len(set(row)) == 10 for row in items.tolist())


def test_ten_thousand_users_get_items_and_no_item_twice():
    model = make_model(random_codes(500, 4, 6), 6, num_layers=1, num_decoder_layers=1)
    generator = torch.Generator().manual_seed(0)
    for batch in range(10):
        history = random_histories(model, torch.randint(1, 9, (1000,), generator=generator).tolist(), seed=batch)
        items, _ = model.recommend(**model.catalogue.inputs_from_items(history), top_k=10, num_beams=10)
        assert (items > 0).all()
        assert (items.sort(dim=1).values.diff(dim=1) > 0).all()


def test_histories_that_cannot_be_read_are_an_error(model):
    with pytest.raises(ValueError, match="row 1 of `input_ids` is only padding; a history needs at least one item"):
        model.recommend(torch.tensor([[1, 9, 17], [0, 0, 0]]))
    with pytest.raises(ValueError, match="row 0 of `input_ids` is only padding"):
        model.generate(torch.tensor([[0, 0, 0]]))
    with pytest.raises(ValueError, match=r"shape \(1, 4\); it must be \(batch, items \* 3\)"):
        model.recommend(torch.tensor([[1, 9, 17, 2]]))


def test_impossible_wishes_are_an_error(model):
    history = model.catalogue.item_tokens[[1]]
    with pytest.raises(ValueError, match="`num_beams` is 5 and `top_k` is 10"):
        model.recommend(history, top_k=10, num_beams=5)
    with pytest.raises(ValueError, match=r"`exclude` holds item indices from 3 to 41; the catalogue has 1\.\.40"):
        model.recommend(history, exclude=torch.tensor([[3, 41]]))
    with pytest.raises(
        ValueError, match="`num_return_sequences` asks for 50 items, but for some user only 40 may be returned"
    ):
        model.generate(history, num_beams=50, num_return_sequences=50)
    with pytest.raises(ValueError, match="asks for 50 items, but for some user only 40 may be returned"):
        model.generate(history, GenerationConfig(num_beams=50, num_return_sequences=50, max_new_tokens=3))
    with pytest.raises(
        ValueError, match="asks for 3 items, but for some user only 2 may be returned; ask for fewer, or use"
    ):
        model.generate(
            history, num_beams=3, num_return_sequences=3, allowed=torch.tensor([4, 9, 1]), exclude_history=True
        )
    with pytest.raises(ValueError, match="asks for 1 item, but for some user only 0 may be returned"):
        model.generate(history, do_sample=True, allowed=torch.tensor([1]), exclude_history=True)
    with pytest.raises(ValueError, match="need `constrained=True`"):
        model.generate(history, constrained=False, exclude_history=True)
    with pytest.raises(ValueError, match="goes beyond the 3 codes of an item"):
        model.generate(history, max_new_tokens=5)


@pytest.mark.parametrize(
    ("argument", "processor"),
    [
        ({"prefix_allowed_tokens_fn": lambda user, prefix: [3]}, "PrefixConstrainedLogitsProcessor"),
        ({"suppress_tokens": list(range(1, 25))}, "SuppressTokensLogitsProcessor"),
        ({"begin_suppress_tokens": [3]}, "SuppressTokensAtBeginLogitsProcessor"),
        ({"bad_words_ids": [[3]]}, "NoBadWordsLogitsProcessor"),
        ({"sequence_bias": [[[3], -5.0]]}, "SequenceBiasLogitsProcessor"),
        ({"repetition_penalty": 1.2}, "RepetitionPenaltyLogitsProcessor"),
        ({"encoder_repetition_penalty": 1.2}, "EncoderRepetitionPenaltyLogitsProcessor"),
        ({"no_repeat_ngram_size": 1}, "NoRepeatNGramLogitsProcessor"),
        ({"encoder_no_repeat_ngram_size": 1}, "EncoderNoRepeatNGramLogitsProcessor"),
        ({"forced_bos_token_id": 3}, "ForcedBOSTokenLogitsProcessor"),
        ({"forced_eos_token_id": 3}, "ForcedEOSTokenLogitsProcessor"),
        ({"remove_invalid_values": True}, "InfNanRemoveLogitsProcessor"),
        ({"guidance_scale": 2.0}, "UnbatchedClassifierFreeGuidanceLogitsProcessor"),
    ],
)
@pytest.mark.parametrize("beams", [1, 4])
def test_what_would_change_scores_before_the_catalogue_does_is_an_error(model, argument, processor, beams):
    history = model.catalogue.item_tokens[[1]]
    message = (
        rf"^{processor} would change the scores before they are restricted .* Choose items with `allowed`, `exclude`"
    )
    with pytest.raises(ValueError, match=message):
        model.generate(history, num_beams=beams, **argument)
    if "prefix_allowed_tokens_fn" not in argument:
        with pytest.raises(ValueError, match=message):
            model.generate(history, GenerationConfig(num_beams=beams, max_new_tokens=3, **argument))


def test_other_decoder_starts_are_an_error(model):
    with pytest.raises(ValueError, match="`decoder_start_token_id` is 4, but all items start from 0; leave it out"):
        model.generate(model.catalogue.item_tokens[[1]], decoder_start_token_id=4)
    settings = GenerationConfig(max_new_tokens=3, decoder_start_token_id=4)
    with pytest.raises(ValueError, match="`decoder_start_token_id` is 4, but all items start from 0; leave it out"):
        model.generate(model.catalogue.item_tokens[[1]], generation_config=settings)


@pytest.mark.parametrize("beams", [1, 4])
def test_nothing_left_is_an_error_that_blames_no_weights(model, beams):
    def nothing(ids, scores):
        return torch.full_like(scores, -torch.inf)

    with pytest.raises(
        ValueError, match=r"aren't items: .* leave out arguments that mask all items .*`logits_processor`"
    ):
        model.generate(model.catalogue.item_tokens[[1]], logits_processor=[nothing], num_beams=beams)


@pytest.mark.parametrize("options", [{}, RECIPE])
def test_generating_while_checkpointing_is_generating(options):
    """Layers that are checkpointed keep no cache, so that earlier codes would be forgotten."""
    model = make_model(random_codes(40, 3, 8), 8, dropout_rate=0.0, **options | {"attention_dropout_rate": 0.0})
    inputs = model.catalogue.inputs_from_items(random_histories(model, [4, 2]))
    expected = model.generate(**inputs, num_beams=6, num_return_sequences=6)
    model.train().gradient_checkpointing_enable()
    for more in ({}, {"use_cache": True}):
        assert torch.equal(model.generate(**inputs, num_beams=6, num_return_sequences=6, **more), expected)
    settings = GenerationConfig(num_beams=6, num_return_sequences=6, max_new_tokens=3, length_penalty=0.0)
    assert torch.equal(model.generate(**inputs, generation_config=settings), expected)


@pytest.mark.parametrize("options", [{}, RECIPE])
def test_a_static_cache_changes_nothing(options):
    model = make_model(random_codes(40, 3, 8), 8, **options)
    inputs = model.catalogue.inputs_from_items(random_histories(model, [4, 2]))
    expected = model.generate(**inputs, num_beams=4)
    assert torch.equal(model.generate(**inputs, num_beams=4, cache_implementation="static"), expected)


def test_an_assistant_that_must_know_histories_is_an_error(model):
    history = model.catalogue.item_tokens[[1]]
    assert torch.equal(model.generate(history, assistant_model=model), model.generate(history))
    kinds = {"constrained_softmax": True}
    for more in ({"has_repeat_bias": True}, {"reads_items": True, "item_logits": "exact"}):
        other = make_model(random_codes(40, 3, 8), 8, **kinds, **more)
        with pytest.raises(ValueError, match="`assistant_model` has a repeat bias or item logits, but assisted"):
            other.generate(history, assistant_model=other)


def test_histories_that_are_no_tensors_are_an_error(model, tokenizer):
    batch = tokenizer([["i1", "i2"], ["i3", "i4"]])
    tensors = tokenizer([["i1", "i2"], ["i3", "i4"]], return_tensors="pt")
    advice = r"; give a tensor of whole numbers, for example with `\*\*tokenizer\("
    for act in (model.generate, model.recommend, model.sample_items, model.encode_history, model):
        with pytest.raises(ValueError, match="`input_ids` is BatchEncoding" + advice):
            act(tensors)
        with pytest.raises(ValueError, match="`input_ids` is list" + advice):
            act(batch["input_ids"])
        with pytest.raises(ValueError, match=r"`input_ids` is torch\.float32" + advice):
            act(tensors["input_ids"].float())
        with pytest.raises(ValueError, match="`attention_mask` is list" + advice):
            act(tensors["input_ids"], attention_mask=batch["attention_mask"])


def test_damaged_weights_are_an_error(model):
    with torch.no_grad():
        model.decoder.final_layer_norm.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="the scores are NaN; the model's weights are damaged"):
        model.recommend(model.catalogue.item_tokens[[1]])
    with pytest.raises(ValueError, match="the scores are NaN; the model's weights are damaged"):
        model.generate(model.catalogue.item_tokens[[1]])


def test_reranking_adds_the_cosine_of_preference_and_embedding(model):
    history = random_histories(model, [3, 5, 1])
    inputs = model.catalogue.inputs_from_items(history)
    items, scores = model.recommend(**inputs, top_k=40, num_beams=40)
    preference = model(**inputs).preference_latents
    cosine = torch.cosine_similarity(preference.unsqueeze(1), model.catalogue.semantic_embedding[items], dim=-1)
    expected, order = (scores + 2.5 * cosine).sort(dim=1, descending=True)
    again = model.recommend(**inputs, top_k=40, num_beams=40, rerank_weight=2.5)
    assert_same_ranking(*again, items.gather(1, order), expected)
    assert not torch.equal(again[0], items)
    torch.testing.assert_close(again[1], expected, atol=1e-5, rtol=0)


def test_autocast_doesnt_round_the_cosines(model):
    states, items = torch.randn(2, 1, model.config.d_model), torch.arange(1, 9).view(2, 4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        preference = model.preference_adapter(states)  # which it does round
        rounded = preference_cosines(model, states, items)
    expected = torch.cosine_similarity(preference.float(), model.catalogue.semantic_embedding[items], dim=-1)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, expected, atol=1e-6, rtol=0)


def test_all_that_the_beam_found_is_ranked_again_before_the_list_is_cut(model):
    inputs = model.catalogue.inputs_from_items(random_histories(model, [3, 5]))
    all_of_it = model.recommend(**inputs, top_k=12, num_beams=12, rerank_weight=9.0)
    first = model.recommend(**inputs, top_k=3, num_beams=12, rerank_weight=9.0)
    for part, whole in zip(first, all_of_it):
        assert torch.equal(part, whole[:, :3])


def test_reranking_keeps_what_is_left_out_out(model):
    inputs = model.catalogue.inputs_from_items(random_histories(model, [3]))
    items, scores = model.recommend(**inputs, top_k=5, allowed=torch.tensor([4, 7]), rerank_weight=1.0)
    assert sorted(items[0].tolist()) == [0, 0, 0, 4, 7]
    assert (scores[0, 2:] == -torch.inf).all()


def test_what_reranking_needs():
    codes = random_codes(20, 3, 4)
    inputs = {"input_ids": torch.tensor([[1, 5, 9]])}
    with pytest.raises(ValueError, match=r"`rerank_weight` is -1\.0; give a weight of 0 or more"):
        make_model(codes, 4).recommend(**inputs, rerank_weight=-1.0)
    with pytest.raises(ValueError, match=r"`rerank_weight` is nan"):
        make_model(codes, 4).recommend(**inputs, rerank_weight=math.nan)
    bare = ETEGRecForConditionalGeneration(
        ETEGRecConfig(n_items=20, codebook_size=4, code_length=3, has_item_tokenizer=False)
    )
    bare.set_item_codes(codes)
    with pytest.raises(ValueError, match="the model's `has_item_tokenizer` is False"):
        bare.recommend(**inputs, rerank_weight=1.0)
    light = ETEGRecForConditionalGeneration(
        ETEGRecConfig(n_items=20, codebook_size=4, code_length=3, has_semantic_embedding=False)
    )
    light.set_item_codes(codes)
    with pytest.raises(ValueError, match="the model's `has_semantic_embedding` is False"):
        light.recommend(**inputs, rerank_weight=1.0)
