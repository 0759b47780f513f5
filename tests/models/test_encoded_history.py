"""Histories that are encoded once and extended by new items."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import RECIPE, make_model, random_codes, random_histories

from etegrec_hf import EncodedHistory
from etegrec_hf.models.configuration_etegrec import ENCODER_ATTENTION
from etegrec_hf.models.encoded_history import BATCH_DIM, OF_TOKENS
from etegrec_hf.models.headwise_t5 import HeadwiseAttention

FIELDS = list(BATCH_DIM)
KINDS = [
    {},
    {"reads_items": True},
    {"constrained_softmax": True, "has_repeat_bias": True},
    {"encoder_input": "items"},
    {"recency_buckets": 6, "starts_from_last_item": True},
    RECIPE,
    RECIPE | {"encoder_input": "codes"},
]
INPUTS = pytest.mark.parametrize("kind", [{}, RECIPE])


def causal(seed: int = 0, **config):
    return make_model(random_codes(40, 3, 8), 8, seed, **{"encoder_attention": "causal"} | config)


def padded(rows: list[list[int]], left: bool = False, more: int = 0) -> torch.Tensor:
    """Item indices `[rows, longest + more]`, padded with 0 on one side."""
    width = max(map(len, rows)) + more
    padding = [[0] * (width - len(row)) for row in rows]
    return torch.tensor([[*zeros, *row] if left else [*row, *zeros] for row, zeros in zip(rows, padding)]).long()


def encode(model, rows: list[list[int]], past: EncodedHistory | None = None, **padding) -> EncodedHistory:
    return model.encode_history(**model.catalogue.inputs_from_items(padded(rows, **padding)), past=past)


def assert_same(actual: EncodedHistory, expected: EncodedHistory, atol: float = 1e-5):
    """Asserts equal shapes, and equal values except on padding."""
    for name, dim in BATCH_DIM.items():
        mine, theirs = getattr(actual, name), getattr(expected, name)
        assert mine.shape == theirs.shape, name
        mask = (expected.attention_mask if name in OF_TOKENS else expected.states_mask).bool()
        mask = mask.view(*(1,) * dim, *mask.shape, *(1,) * (theirs.ndim - dim - 2))
        torch.testing.assert_close(mine * mask, theirs * mask, atol=atol, rtol=0, msg=name)


def assert_recommends_like(model, encoded: EncodedHistory, rows: list[list[int]], atol: float = 1e-5, **options):
    options = {"top_k": 8, "num_beams": 40, **options}
    items, scores = model.recommend(encoded=encoded, **options)
    expected_items, expected_scores = model.recommend(**model.catalogue.inputs_from_items(padded(rows)), **options)
    torch.testing.assert_close(scores, expected_scores, atol=atol, rtol=0)
    if (expected_scores[:, :-1] - expected_scores[:, 1:]).min() > 2 * atol:
        assert torch.equal(items, expected_items)


def items_of(lengths: list[int], seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 41, (length,), generator=generator).tolist() for length in lengths]


@settings(max_examples=40)
@given(data=st.data(), users=st.integers(1, 4), seed=st.integers(0, 99), max_history=st.sampled_from([4, 50]))
def test_extended_equals_encoded_in_one_piece(data, users, seed, max_history):
    model = causal(seed, max_history=max_history, **data.draw(st.sampled_from(KINDS)))
    padding = st.fixed_dictionaries({"left": st.booleans(), "more": st.integers(0, 2)})
    rows = items_of(data.draw(st.lists(st.integers(1, 6), min_size=users, max_size=users)), seed)
    encoded = encode(model, rows, **data.draw(padding))
    for step in range(data.draw(st.integers(1, 3))):
        added = items_of(data.draw(st.lists(st.integers(0, 3), min_size=users, max_size=users)), seed + step + 1)
        encoded = encode(model, added, past=encoded, **data.draw(padding))
        rows = [[*row, *new] for row, new in zip(rows, added)]
        assert_same(encoded, encode(model, rows))
        assert_recommends_like(model, encoded, rows, exclude_history=data.draw(st.booleans()))


@INPUTS
def test_far_positions_are_those_of_one_piece(kind):
    """Beyond the buckets of single distances, and beyond the last bucket."""
    model = causal(max_history=80, relative_attention_max_distance=64, **kind)
    rows = items_of([70, 33, 1], seed=0)
    encoded = encode(model, [row[:-1] or row for row in rows])
    assert_same(encode(model, [row[len(row[:-1] or row) :] for row in rows], past=encoded), encode(model, rows))


def test_states_are_those_of_the_encoder():
    model = causal()
    inputs = model.catalogue.inputs_from_items(random_histories(model, [5, 1, 3]))
    encoded = model.encode_history(**inputs)
    read = inputs["attention_mask"].bool()
    expected = model.encoder(**inputs).last_hidden_state
    torch.testing.assert_close(encoded.states[read], expected[read], atol=1e-5, rtol=0)


def tokens_projected(monkeypatch, act) -> int:
    """Rows that the first query projection of the encoder sees, padding too, while `act` runs."""
    seen = []
    project = HeadwiseAttention.project

    def spy(self, states, weight):
        seen.append(states.shape[0] * states.shape[1])
        return project(self, states, weight)

    with monkeypatch.context() as patch:
        patch.setattr(HeadwiseAttention, "project", spy)
        act()
    return sum(seen) / (3 * 2)  # query, key and value of 2 layers


def test_nobody_is_recommended_nothing():
    model = make_model(random_codes(40, 3, 8), 8)
    nobody = model.encode_history(model.catalogue.item_tokens[[3]])[[]]
    items, scores = model.recommend(encoded=nobody, top_k=5)
    assert items.shape == scores.shape == (0, 5)


def test_only_new_items_are_computed(monkeypatch):
    model = causal(max_history=10)
    rows = items_of([9, 4, 7], seed=0)
    assert tokens_projected(monkeypatch, lambda: encode(model, rows)) == 3 * 9 * 3
    encoded = encode(model, rows)
    assert tokens_projected(monkeypatch, lambda: encode(model, [[1], [2], []], past=encoded, more=2)) == 3 * 1 * 3
    assert tokens_projected(monkeypatch, lambda: encode(model, [[], [], []], past=encoded, more=1)) == 0
    beyond = [[1, 2], [3], []]  # the first history alone is encoded again, the others are extended
    assert tokens_projected(monkeypatch, lambda: encode(model, beyond, past=encoded)) == 10 * 3 + 2 * 1 * 3
    full = encode(model, items_of([30, 2, 10], seed=1))  # nothing new in the long ones
    assert tokens_projected(monkeypatch, lambda: encode(model, [[], [1], []], past=full)) == 3 * 1 * 3


def test_what_is_given_stays_as_it_is():
    model = causal(max_history=4)
    encoded = encode(model, [[1, 2, 3], [4]])
    before = {name: getattr(encoded, name).clone() for name in FIELDS}
    encode(model, [[5], [6]], past=encoded)
    encode(model, [[5, 6], []], past=encoded)
    assert all(torch.equal(getattr(encoded, name), before[name]) for name in FIELDS)
    assert_same(encode(model, [[], [7]], past=encoded), encode(model, [[1, 2, 3], [4, 7]]))


@INPUTS
def test_of_long_histories_all_items_are_known_and_the_last_are_read(kind):
    model = causal(max_history=3, **kind)
    rows = items_of([2, 1, 6], seed=0)
    encoded = encode(model, rows)
    assert encoded.input_ids.shape == (3, 6 * 3)
    assert encoded.states.shape[:2] == (3, 3 * 3 // model.config.tokens_per_position)
    for added in ([[], [], [7]], [[8], [9], []], [[10], [], [11, 12, 13, 14, 15]]):
        encoded = encode(model, added, past=encoded)
        rows = [[*row, *new] for row, new in zip(rows, added)]
        assert_same(encoded, encode(model, rows))
        options = {"top_k": 40, "exclude_history": True}
        items, _ = model.recommend(encoded=encoded, num_beams=40, **options)
        for found, history in zip(items.tolist(), rows):
            assert sorted(filter(None, found)) == sorted(set(range(1, 41)) - set(history))
        assert_recommends_like(model, encoded, rows, **options)


@INPUTS
@pytest.mark.parametrize("encoder", ENCODER_ATTENTION)
def test_constraints_and_batches_hold_for_encoded_histories(encoder, kind):
    model = make_model(random_codes(40, 3, 8), 8, **kind | {"encoder_attention": encoder})
    rows = items_of([5, 1, 3, 5, 2], seed=0)
    encoded = encode(model, rows, left=True)
    exclude = torch.tensor([[1, 2], [3, 0], [4, 5], [0, 0], [6, 7]])
    limits = {"exclude": exclude, "allowed": torch.arange(1, 30), "exclude_history": True}
    for budget in (1, 100, None):
        assert_recommends_like(model, encoded, rows, max_batch_tokens=budget, **limits)
    with pytest.raises(ValueError, match=r"`exclude` has shape \(1, 2\); expected \(5, n\)"):
        model.recommend(encoded=encoded, exclude=exclude[:1])
    drawn, scores = model.sample_items(
        encoded=encoded, num_samples=6, generator=torch.Generator().manual_seed(0), **limits
    )
    expected = model.sample_items(
        **model.catalogue.inputs_from_items(padded(rows)),
        num_samples=6,
        generator=torch.Generator().manual_seed(0),
        **limits,
    )
    assert torch.equal(drawn, expected[0])
    torch.testing.assert_close(scores, expected[1], atol=1e-5, rtol=0)


@settings(max_examples=15)
@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5), seed=st.integers(0, 99), data=st.data())
def test_histories_of_a_batch_are_taken_apart_and_joined(lengths, seed, data):
    model = causal(seed, max_history=5, **data.draw(st.sampled_from([{}, RECIPE])))
    rows = items_of(lengths, seed)
    encoded = encode(model, rows)
    alone = list(encoded)
    assert len(alone) == len(encoded) == len(rows)
    for single, row in zip(alone, rows):
        assert_same(single, encode(model, [row]))
    order = data.draw(st.permutations(range(len(rows))))
    joined = EncodedHistory.join([alone[row] for row in order])
    assert_same(joined, encode(model, [rows[row] for row in order]))
    chosen = data.draw(st.lists(st.sampled_from(range(len(rows))), min_size=1, max_size=3))
    for index in (chosen, torch.tensor(chosen)):
        assert_same(encoded[index], encode(model, [rows[row] for row in chosen]))
    assert_same(encoded[-1:], encode(model, rows[-1:]))
    added = items_of([1] * len(rows), seed + 1)
    extended = encode(model, added, past=joined)
    assert_same(extended, encode(model, [[*rows[row], *new] for row, new in zip(order, added)]))


def test_a_history_taken_from_a_batch_does_not_keep_the_batch():
    encoded = encode(causal(), items_of([5, 1, 3], seed=0))
    for name in FIELDS:
        single = getattr(encoded[1:2], name)
        assert single.untyped_storage().nbytes() == single.numel() * single.element_size()


@INPUTS
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.bfloat16, 0.15)])
def test_other_dtypes(dtype, atol, kind):
    model = causal(**kind).to(dtype)
    rows = items_of([5, 2, 3], seed=0)
    encoded = encode(model, [row[:-1] for row in rows])
    assert encoded.states.dtype == encoded.keys.dtype == dtype
    extended = encode(model, [row[-1:] for row in rows], past=encoded)
    assert_same(extended, encode(model, rows), atol=atol)
    assert_recommends_like(model, extended, rows, atol=max(atol, 1e-5))
    with pytest.raises(
        ValueError, match=r"`encoded` was encoded with `dtype` torch\.\w+, but the model has torch.float32"
    ):
        causal(**kind).recommend(encoded=extended)


@INPUTS
def test_inference_mode_autocast_and_training_mode(kind):
    model = causal(**kind)
    rows = items_of([5, 2], seed=0)
    expected = encode(model, rows)
    with torch.inference_mode():
        past = encode(model, [row[:-1] for row in rows])
    assert_same(encode(model.train(), [row[-1:] for row in rows], past=past), expected)
    assert not encode(model, rows).states.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        extended = encode(model, [row[-1:] for row in rows], past=encode(model, [row[:-1] for row in rows]))
        items, scores = model.recommend(encoded=extended, top_k=10)
    assert (items > 0).all()
    torch.testing.assert_close(scores[:, 0], model.recommend(encoded=expected)[1][:, 0], atol=0.1, rtol=0)


def test_a_bidirectional_encoder_cannot_extend():
    model = make_model(random_codes(40, 3, 8), 8)
    encoded = encode(model, [[1, 2]])
    with pytest.raises(ValueError, match=r"`encoder_attention` is 'bidirectional'.*; encode whole histories"):
        encode(model, [[3]], past=encoded)


def test_what_does_not_fit_is_an_error():
    model = causal()
    encoded = encode(model, [[1, 2], [3]])
    with pytest.raises(
        ValueError, match="`past` holds 2 histories and `input_ids` has 1 row; give one row per history"
    ):
        encode(model, [[4]], past=encoded)
    with pytest.raises(ValueError, match="row 1 of `input_ids` is only padding"):
        encode(model, [[1], []])
    with pytest.raises(ValueError, match="row 0 of `input_ids` holds part of an item"):
        model.encode_history(torch.tensor([[1, 9, 0], [1, 9, 17]]), past=encoded)
    with pytest.raises(ValueError, match=r"`input_ids` range from 99 to 99, but the vocabulary is 0\.\.24"):
        model.encode_history(torch.full((2, 3), 99), past=encoded)
    for sizes in ({"num_layers": 3}, {"num_heads": 4}, {"d_model": 8}, {"d_kv": 4}):
        ((name, value),) = sizes.items()
        other = causal(**sizes)
        expected = rf"was encoded with `{name}` \d+, but the model has {value}; encode the histories with this model"
        for use in (
            lambda other=other: other.recommend(encoded=encoded),
            lambda other=other: encode(other, [[1], [2]], past=encoded),
        ):
            with pytest.raises(ValueError, match=expected):
                use()
        with pytest.raises(ValueError, match="encoded by models of different sizes"):
            EncodedHistory.join([encoded, encode(other, [[1]])])
    with pytest.raises(ValueError, match="`histories` is empty; give at least one"):
        EncodedHistory.join([])
    ids = model.catalogue.item_tokens[[1]]
    for histories in ({}, {"input_ids": ids, "encoded": encoded}, {"attention_mask": ids > 0, "encoded": encoded}):
        for decode in (model.recommend, model.sample_items):
            with pytest.raises(ValueError, match=r"give histories either as `input_ids`.* or as `encoded`"):
                decode(**histories)
