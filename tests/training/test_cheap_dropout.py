import pytest
import torch
from tiny_models import RECIPE, make_model, random_codes, random_histories
from torch import nn
from transformers.models.t5.modeling_t5 import T5Attention

from etegrec_hf.training.recommender.cheap_dropout import ATTENTION, CheapDropout, cheap_dropout, cheapen_dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_masks_are_independent_draws_of_the_rate(rate, dtype):
    torch.manual_seed(0)
    states = torch.ones(400, 1003, dtype=dtype)  # a number of elements that four don't divide
    dropped = cheap_dropout(states, rate)
    kept = dropped != 0
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / (1 - rate), dtype=dtype).item()}
    four_sigma = 4 * (rate * (1 - rate) / kept.numel()) ** 0.5
    assert kept.float().mean().item() == pytest.approx(1 - rate, abs=four_sigma + 2**-16)
    flat = kept.flatten().float() - (1 - rate)
    for distance in (1, 2, 3, 4, 1003):
        correlation = (flat[distance:] * flat[:-distance]).mean() / (rate * (1 - rate))
        assert abs(correlation) < 4 / kept.numel() ** 0.5


def test_gradients_pass_where_states_do():
    torch.manual_seed(0)
    states = torch.randn(50, 7, requires_grad=True)
    dropped = cheap_dropout(states, 0.3)
    dropped.sum().backward()
    torch.testing.assert_close(states.grad, dropped.detach() / states.detach())


def test_the_same_seed_drops_the_same():
    states = torch.ones(9, 9)
    torch.manual_seed(1)
    first = cheap_dropout(states, 0.5)
    torch.manual_seed(1)
    assert torch.equal(first, cheap_dropout(states, 0.5))
    assert not torch.equal(first, cheap_dropout(states, 0.5))


@pytest.mark.parametrize("options", [{}, {"encoder_attention": "causal"}, RECIPE])
def test_without_dropout_a_stack_computes_what_it_did(options):
    model = make_model(random_codes(40, 3, 8), 8, dropout_rate=0.2, **options)
    batch = model.catalogue.inputs_from_items(random_histories(model, [5, 2, 7]))
    labels = model.catalogue.item_tokens[torch.tensor([4, 9, 1])]
    before = model(**batch, labels=labels)
    generated = model.generate(**batch, num_beams=4)
    before.loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    cheapen_dropout(model.encoder), cheapen_dropout(model.decoder)
    after = model(**batch, labels=labels)
    torch.testing.assert_close(after.logits, before.logits)
    assert torch.equal(model.generate(**batch, num_beams=4), generated)
    after.loss.backward()
    for name, gradient in gradients.items():
        torch.testing.assert_close(dict(model.named_parameters())[name].grad, gradient)


@pytest.mark.parametrize(
    ("rates", "encoder", "decoder"),
    [
        ({}, {0.2}, {0.2}),
        ({"decoder_dropout_rate": 0.05}, {0.2}, {0.05}),
        ({"decoder_dropout_rate": 0.0}, {0.2}, {0.0}),
        ({"attention_dropout_rate": 0.4}, {0.2, 0.4}, {0.2, 0.4}),
        ({"attention_dropout_rate": 0.0}, {0.2, 0.0}, {0.2, 0.0}),
        ({"decoder_dropout_rate": 0.1, "attention_dropout_rate": 0.3}, {0.2, 0.3}, {0.1, 0.3}),
    ],
)
@pytest.mark.parametrize("is_cheap", [False, True])
def test_each_stack_has_the_rates_of_its_own(rates, encoder, decoder, is_cheap):
    model = make_model(random_codes(40, 3, 8), 8, dropout_rate=0.2, **rates)
    attention_rate = rates.get("attention_dropout_rate")
    for stack, expected in ((model.encoder, encoder), (model.decoder, decoder)):
        if is_cheap:
            cheapen_dropout(stack)
        of_states = {module.p for module in stack.modules() if isinstance(module, nn.Dropout)}
        of_weights = {module.dropout for module in stack.modules() if isinstance(module, T5Attention)}
        assert of_states | of_weights == expected
        assert of_weights == (of_states if attention_rate is None else {attention_rate})


@pytest.mark.parametrize("attention_rate", [0.0, 0.5])
@pytest.mark.parametrize("attention", ["eager", "sdpa", ATTENTION])
def test_attention_weights_are_dropped_where_their_rate_says(attention, attention_rate):
    """And nothing else is, at rates of 0."""
    rates = {"dropout_rate": 0.0, "attention_dropout_rate": attention_rate}
    model = make_model(random_codes(40, 3, 8), 8, **RECIPE | rates).train()
    model.encoder.set_attn_implementation(attention), model.decoder.set_attn_implementation(attention)
    batch = model.catalogue.inputs_from_items(random_histories(model, [5, 2]))
    labels = model.catalogue.item_tokens[torch.tensor([4, 9])]
    scored = model(**batch, labels=labels), model(**batch, labels=labels)
    states = [output.encoder_last_hidden_state for output in scored]
    assert torch.equal(*states) == (attention_rate == 0)
    one, other = (model(**batch, labels=labels, encoder_outputs=(states[0],)).loss for _ in range(2))
    assert torch.equal(one, other) == (attention_rate == 0)


def test_all_dropout_of_a_training_stack_is_drawn_this_way(monkeypatch):
    model = make_model(random_codes(40, 3, 8), 8, dropout_rate=0.2).train()
    cheapen_dropout(model.encoder), cheapen_dropout(model.decoder)
    kinds = {type(module) for module in model.modules() if isinstance(module, nn.Dropout)}
    assert kinds == {CheapDropout}
    monkeypatch.setattr(nn.functional, "dropout", None)  # would fail if it were called
    batch = model.catalogue.inputs_from_items(random_histories(model, [5, 2]))
    states = model.encoder(**batch)[0]
    assert not torch.equal(states, model.encoder(**batch)[0]), "dropped anew"
