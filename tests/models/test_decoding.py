import pytest
import torch
from conftest import make_model, random_codes, random_histories
from hypothesis import given, settings
from hypothesis import strategies as st


def all_scores(model, history: torch.Tensor) -> torch.Tensor:
    """Log-probability of every item `[batch, n_items]` by scoring each with the forward pass."""
    scores = []
    for item in range(1, model.config.n_items + 1):
        labels = model.item_tokens[[item]].expand(len(history), -1)
        logits = model(**model.inputs_from_items(history), labels=labels).logits
        raw = model.item_codes[item - 1].expand(len(history), -1)
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
)
def test_a_beam_as_wide_as_the_catalogue_is_brute_force(n_items, shape, lengths, seed):
    model = make_model(random_codes(n_items, *shape, seed=seed), shape[1], seed=seed)
    history = random_histories(model, lengths, seed)
    expected_scores, order = all_scores(model, history).sort(descending=True, dim=1)
    items, scores = model.recommend(**model.inputs_from_items(history), top_k=n_items, num_beams=n_items)
    assert_same_ranking(items, scores, order + 1, expected_scores)


@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    beams=st.integers(1, 12),
    seed=st.integers(0, 99),
    attention=st.sampled_from(["sdpa", "eager"]),
)
def test_generate_and_recommend_agree(lengths, beams, seed, attention):
    model = make_model(random_codes(50, 3, 8, seed=seed), 8, seed=seed, attn_implementation=attention)
    history = random_histories(model, lengths, seed)
    items, scores = model.recommend(**model.inputs_from_items(history), top_k=beams, num_beams=beams)
    output = model.generate(
        **model.inputs_from_items(history),
        num_beams=beams,
        num_return_sequences=beams,
        return_dict_in_generate=True,
        output_scores=True,
    )
    raw = output.sequences[:, 1:] - model._level_offsets()
    generated = model.code_trie.item(model.code_trie.walk(raw)).view(len(lengths), beams)
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


@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 99))
def test_excluded_items_and_all_but_allowed_ones_stay_out(data, seed):
    model = make_model(random_codes(20, 3, 4, seed=seed), 4, seed=seed)
    history = random_histories(model, [2, 3], seed)
    index = st.integers(0, 20)
    exclude = torch.tensor([data.draw(st.lists(index, min_size=6, max_size=6)) for _ in range(2)])
    allowed = data.draw(st.one_of(st.none(), st.sets(st.integers(1, 20), min_size=1)))
    possible = torch.tensor(sorted(allowed)) if allowed else None
    items, scores = model.recommend(
        **model.inputs_from_items(history), top_k=20, num_beams=20, exclude=exclude, allowed=possible
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
    favourites = model.recommend(**model.inputs_from_items(history), top_k=25, num_beams=30)[0]
    items, scores = model.recommend(**model.inputs_from_items(history), top_k=2, num_beams=2, exclude=favourites)
    assert (items > 0).all()
    assert scores.isfinite().all()
    assert not set(items[0].tolist()) & set(favourites[0].tolist())


def test_what_excludes_or_allows_must_fit(model):
    inputs = model.inputs_from_items(random_histories(model, [2, 1]))
    with pytest.raises(ValueError, match=r"`exclude` has shape \(3,\); expected \(2, n\): a row of item indices"):
        model.recommend(**inputs, exclude=torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match=r"`exclude` has shape \(1, 2\); expected \(2, n\)"):
        model.recommend(**inputs, exclude=torch.tensor([[1, 2]]))
    with pytest.raises(ValueError, match="`allowed` holds no item; give at least one"):
        model.recommend(**inputs, allowed=torch.tensor([], dtype=torch.long))
    with pytest.raises(ValueError, match=r"`allowed` holds item indices from 3 to 41; the catalogue has 1..40"):
        model.recommend(**inputs, allowed=torch.tensor([3, 41]))


def test_more_wanted_than_there_are(model):
    items, scores = model.recommend(model.item_tokens[[1]], top_k=60, num_beams=60)
    assert items.shape == scores.shape == (1, 60)
    assert sorted(items[0, :40].tolist()) == list(range(1, 41))
    assert (items[0, 40:] == 0).all()
    assert (scores[0, 40:] == -torch.inf).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_return_items(model, dtype):
    model.to(dtype)
    items, scores = model.recommend(**model.inputs_from_items(random_histories(model, [4, 2])), top_k=10)
    assert (items > 0).all()
    assert scores.dtype == torch.float32
    assert all(len(set(row)) == 10 for row in items.tolist())


def test_ten_thousand_users_get_items_and_no_item_twice():
    model = make_model(random_codes(500, 4, 6), 6, num_layers=1, num_decoder_layers=1)
    generator = torch.Generator().manual_seed(0)
    for batch in range(10):
        history = random_histories(model, torch.randint(1, 9, (1000,), generator=generator).tolist(), seed=batch)
        items, _ = model.recommend(**model.inputs_from_items(history), top_k=10, num_beams=10)
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
    history = model.item_tokens[[1]]
    with pytest.raises(ValueError, match="`num_beams` is 5 and `top_k` 10"):
        model.recommend(history, top_k=10, num_beams=5)
    with pytest.raises(ValueError, match=r"`exclude` holds item indices from 3 to 41; the catalogue has 1\.\.40"):
        model.recommend(history, exclude=torch.tensor([[3, 41]]))
    with pytest.raises(ValueError, match="`num_return_sequences` is 50, but the catalogue has 40 items"):
        model.generate(history, num_beams=50, num_return_sequences=50)
    with pytest.raises(ValueError, match="goes beyond the 3 codes of an item"):
        model.generate(history, max_new_tokens=5)


def test_damaged_weights_are_an_error(model):
    with torch.no_grad():
        model.decoder.final_layer_norm.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="the scores are NaN; the model's weights are damaged"):
        model.recommend(model.item_tokens[[1]])
