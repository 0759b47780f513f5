"""How recent items are for the decoder: the recency bias, and the state at the last item."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import RECIPE, make_model, random_codes, random_histories

from etegrec_hf import ETEGRecConfig, ETEGRecForConditionalGeneration
from etegrec_hf.models.configuration_etegrec import ENCODER_INPUT
from etegrec_hf.models.histories import EncodedBatch
from etegrec_hf.models.recency_bias import RecencyBias

BIAS = {"encoder_attention": "causal", "recency_buckets": 6}


def tiny(**config):
    return make_model(random_codes(40, 3, 8), 8, **config)


def buckets_of(buckets: int, max_history: int, items_back: torch.Tensor) -> list[int]:
    config = ETEGRecConfig(n_items=3, recency_buckets=buckets, max_history=max_history)
    return RecencyBias(config).bucket(items_back).tolist()


def test_buckets_by_hand():
    """Of 8 buckets 4 are exact, and 4 to 64 are four times a factor of 2."""
    assert buckets_of(8, 64, torch.arange(4)) == [0, 1, 2, 3]
    assert buckets_of(8, 64, torch.tensor([4, 7, 9, 15, 17, 31, 33, 63, 64, 1000])) == [4, 4, 5, 5, 6, 6, 7, 7, 7, 7]


@settings(max_examples=60)
@given(buckets=st.integers(2, 40), max_history=st.integers(1, 300))
def test_buckets_grow_with_items_back(buckets, max_history):
    found = buckets_of(buckets, max_history, torch.arange(max_history + 50))
    exact = buckets // 2
    assert found[:exact] == list(range(exact))[: len(found)]
    assert sorted(found) == found
    assert found[0] == 0
    assert set(found[max(max_history, exact + 1) :]) == {buckets - 1}


def test_what_is_added_by_hand():
    model = tiny(**BIAS)
    bias = model.decoder.recency_bias
    found = bias(torch.tensor([[0, 2], [500, -7]]))
    expected = 10 * bias.weight[:, [0, 2, 5, 0]].view(2, 2, 2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("encoder_input", ENCODER_INPUT)
@pytest.mark.parametrize("side", ["left", "right", "between"])
def test_items_back_are_counted_from_the_last_item(encoder_input, side):
    """It holds wherever padding is, for the bias of one target and of all targets of a sequence."""
    model = tiny(**BIAS, encoder_input=encoder_input)
    places = {"left": [4, 3, 2, 1, 0], "right": [2, 1, 0, None, None], "between": [2, None, 1, 0, None]}[side]
    if side == "left":
        places = [None, None, 2, 1, 0]
    per_item = 3 if encoder_input == "codes" else 1
    mask = torch.tensor([[int(place is not None) for place in places for _ in range(3)]])
    encoded = EncodedBatch(None, mask, torch.zeros(1, 5 * per_item, 16))
    bias = model.decoder.cross_bias(encoded)
    assert bias.shape == (1, 2, 1, 5 * per_item)
    for place, items_back in enumerate(places):
        for position in range(place * per_item, (place + 1) * per_item):
            if items_back is None:
                assert (bias[0, :, 0, position] < -1e30).all()
            else:
                expected = model.decoder.recency_bias(torch.tensor(items_back))
                torch.testing.assert_close(bias[0, :, 0, position], expected)
    if side == "right":
        several = model.decoder.cross_bias_before(encoded, torch.tensor([[3, 1]]))
        torch.testing.assert_close(several[:, :, :1], bias)
        first = model.decoder.recency_bias(torch.tensor(0))
        torch.testing.assert_close(several[0, :, 1, :per_item], first.unsqueeze(1).expand(-1, per_item))
        assert (several[0, :, 1, per_item:] < -1e30).all()


@pytest.mark.parametrize("encoder_input", ENCODER_INPUT)
@pytest.mark.parametrize("recency", [0, 6])
def test_the_order_of_states_matters_to_a_decoder_with_it_alone(encoder_input, recency):
    """Cross-attention has no positions: the same states in another order are the same to it otherwise."""
    model = tiny(encoder_attention="causal", encoder_input=encoder_input, recency_buckets=recency)
    per_item = 3 if encoder_input == "codes" else 1
    states = torch.randn(1, 4 * per_item, 16, generator=torch.Generator().manual_seed(0))
    swapped = states.unflatten(1, (4, per_item))[:, [0, 3, 2, 1]].flatten(1, 2)
    labels = model.catalogue.item_tokens[[7]]
    one, other = (model(encoder_outputs=(each,), labels=labels).logits for each in (states, swapped))
    if recency:
        assert (one - other).abs().max() > 1e-3
    else:
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoder_input", ENCODER_INPUT)
def test_states_alone_are_as_recent_as_with_their_histories(encoder_input):
    """Encoder outputs without `input_ids`, with a mask of positions or without one."""
    model = tiny(**BIAS, encoder_input=encoder_input, starts_from_last_item=True)
    inputs, labels = model.catalogue.inputs_from_items(random_histories(model, [4, 4])), model.catalogue.item_tokens
    expected = model(**inputs, labels=labels[[3, 4]])
    states = expected.encoder_last_hidden_state
    for more in ({}, {"attention_mask": torch.ones(states.shape[:2])}, {"attention_mask": inputs["attention_mask"]}):
        found = model(encoder_outputs=(states,), labels=labels[[3, 4]], **more)
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=0)


def test_swapped_items_change_what_follows():
    model = tiny(**RECIPE)
    swapped = [model.recommend(**model.catalogue.inputs_from_items(torch.tensor([items])), top_k=40, num_beams=40)
               for items in ([5, 9, 2, 7], [5, 2, 9, 7], [5, 9, 7, 2])]  # fmt: skip
    by_item = [torch.zeros(1, 41).scatter_(1, items, scores) for items, scores in swapped]
    assert all((by_item[0] - other).abs().max() > 1e-2 for other in by_item[1:])


def test_the_start_carries_the_state_at_the_last_item():
    model = tiny(encoder_attention="causal", starts_from_last_item=True)
    states = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 6 + [0] * 3, [0] * 3 + [1] * 6])
    last = EncodedBatch(None, mask, states).last_states()
    torch.testing.assert_close(last[:, 0], torch.stack([states[0, 5], states[1, 8]]))
    tokens = torch.tensor([[0, 3], [0, 5]])
    expected = model.shared(tokens) + last @ model.decoder.start_projection.weight.T
    torch.testing.assert_close(model.decoder.embed(tokens, last), expected)


def fresh(**config) -> ETEGRecForConditionalGeneration:
    """A model as its constructor leaves it."""
    sizes = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
    tokenizer = {"input_size": 12, "hidden_sizes": [16], "latent_size": 8, "num_levels": 2, "codebook_size": 8}
    torch.manual_seed(0)
    return ETEGRecForConditionalGeneration(
        ETEGRecConfig(n_items=400, code_length=3, codebook_size=8, rqvae_config=tokenizer, **sizes, **config)
    )


def check_start(model) -> None:
    """Asserts that weights that start at 0, as the identity or small do so."""
    assert not model.decoder.recency_bias.weight.any()
    assert not model.item_logits.repeats.any()
    assert not model.repeat_bias.any()
    assert torch.equal(model.decoder.start_projection.weight, torch.eye(16))
    assert torch.equal(model.item_logits.members[0].query.weight, torch.eye(16))
    in_effect = model.item_inputs.own_vectors(torch.arange(1, 401)).std().item()
    assert in_effect == pytest.approx(0.1, rel=0.1), "1 / item_gain"
    assert model.item_inputs.projection.weight.std().item() == pytest.approx(12**-0.5, rel=0.2)
    assert model.item_logits.projection.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_how_it_starts():
    check_start(fresh(**RECIPE))
    plain = fresh(reads_items=True)
    assert plain.item_inputs.own_vectors(torch.arange(1, 401)).std().item() == pytest.approx(1, rel=0.1)


def test_a_folder_without_these_weights_starts_them(tmp_path):
    """New weights are initialised as in a new model, and saved weights are kept."""
    saved = fresh(encoder_attention="causal")
    saved.save_pretrained(tmp_path)
    loaded = ETEGRecForConditionalGeneration.from_pretrained(tmp_path, **RECIPE)
    check_start(loaded)
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
