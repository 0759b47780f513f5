"""The bias for items that the user has taken before."""

import pytest
import torch
from tiny_models import RECIPE, make_model, random_codes, random_histories

from etegrec_hf import ETEGRecConfig

KIND = {"constrained_softmax": True, "has_repeat_bias": True}


@pytest.fixture
def model(codes):
    return make_model(codes, 8, **KIND)


def without(model):
    """The same model with a bias of 0."""
    plain = make_model(model.catalogue.item_codes, model.config.codebook_size, **KIND)
    plain.load_state_dict(model.state_dict())
    torch.nn.init.zeros_(plain.repeat_bias)
    return plain


def test_the_bias_falls_on_codes_that_lead_to_nothing_else():
    """Items 1 and 2 share their first code, item 3 is alone under its first one."""
    model = make_model(torch.tensor([[0, 1, 0], [0, 2, 1], [3, 0, 0], [2, 1, 1]]), 4, **KIND)
    bias = 10 * model.repeat_bias
    inputs = model.catalogue.inputs_from_items(torch.tensor([[1, 3]]))
    labels = model.catalogue.item_tokens[torch.tensor([[2, 3]])]
    gained = (model(**inputs, candidates=labels).logits - without(model)(**inputs, candidates=labels).logits)[0]
    expected = torch.zeros(2, 3, 4)
    expected[:, 0, 3] = bias[0]  # item 3 was had, and item 2 under code 0 wasn't
    expected[0, 1, 1] = bias[1]  # on the way to item 2: item 1
    expected[1, 1, 0], expected[1, 2, 0] = bias[1], bias[2]  # on the way to item 3
    torch.testing.assert_close(gained, expected, atol=1e-5, rtol=1e-5)


def test_a_low_bias_keeps_a_history_from_coming_again(model):
    history = random_histories(model, [6, 2])
    inputs = model.catalogue.inputs_from_items(history)
    with torch.no_grad():
        model.repeat_bias.fill_(-3)
    items, scores = model.recommend(**inputs, top_k=40, num_beams=40)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(2))
    for row in range(2):
        had = set(history[row].tolist()) - {0}
        assert set(items[row, -len(had) :].tolist()) == had, "all of them come last"
        drawn, _ = model.sample_items(**inputs, num_samples=10, generator=torch.Generator().manual_seed(0))
        assert not had & set(drawn[row].tolist())


def test_it_learns_that_items_come_once(model):
    """Whatever codes are like, a history's own items never follow here."""
    torch.nn.init.zeros_(model.repeat_bias)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is model.repeat_bias)
    optimizer = torch.optim.Adam([model.repeat_bias], lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        walks = torch.stack([torch.randperm(40, generator=generator)[:21] + 1 for _ in range(32)])
        loss = model(
            **model.catalogue.inputs_from_items(walks[:, :20]), labels=model.catalogue.item_tokens[walks[:, 20]]
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.repeat_bias[1] < -0.1


def test_what_is_read_is_what_was_had(codes):
    model = make_model(codes, 8, max_history=3, encoder_attention="causal", **KIND)
    with torch.no_grad():
        model.repeat_bias.fill_(-5)
    history = torch.arange(1, 11).unsqueeze(0)
    last, whole = model.catalogue.inputs_from_items(history[:, -3:]), model.catalogue.inputs_from_items(history)
    items, scores = model.recommend(**last, top_k=30, num_beams=40)
    assert not set(items[0].tolist()) & {8, 9, 10}
    assert set(items[0].tolist()) & set(range(1, 8)), "as the training knows them, and the tokenizer's inputs"
    for other in (
        model.recommend(**whole, top_k=30, num_beams=40),
        model.recommend(encoded=model.encode_history(**whole), top_k=30, num_beams=40),
    ):
        assert other[0].equal(items)
        torch.testing.assert_close(other[1], scores)
    generated = model.generate(**whole, num_beams=5)
    assert generated.equal(model.generate(**last, num_beams=5))


def test_masked_items_were_not_had(model):
    inputs, labels = model.catalogue.inputs_from_items(torch.tensor([[5, 9, 2]])), model.catalogue.item_tokens[[5]]
    masked = inputs["attention_mask"].clone()
    masked[:, : model.config.code_length] = 0
    ids = inputs["input_ids"]
    with torch.no_grad():
        of_ids, of_zeros = (model(ids, masked, labels).loss, model(ids * masked, masked, labels).loss)
    assert of_ids == of_zeros
    assert of_ids != model(**inputs, labels=labels).loss


@torch.no_grad()
@pytest.mark.parametrize("name", ["labels", "candidates"])
def test_masked_items_were_not_had_with_given_states_either(name):
    model = make_model(random_codes(40, 3, 8), 8, **RECIPE)
    inputs, labels = model.catalogue.inputs_from_items(torch.tensor([[5, 9, 2]])), model.catalogue.item_tokens[[5]]
    ids, mask = inputs["input_ids"], inputs["attention_mask"].clone()
    mask[:, :3] = 0
    asked = {name: labels if name == "labels" else labels.unsqueeze(1)}
    states = (model(ids, mask).encoder_last_hidden_state,)
    expected, found = (model(one, mask, encoder_outputs=states, **asked).loss for one in (ids * mask, ids))
    assert found == expected
    assert found == model(ids, mask, **asked).loss


def test_what_it_needs(model):
    with pytest.raises(ValueError, match="`has_repeat_bias` is True and `constrained_softmax` is False"):
        ETEGRecConfig(has_repeat_bias=True)
    inputs = model.catalogue.inputs_from_items(torch.tensor([[1, 2]]))
    encoded = model.encoder(**inputs)
    with pytest.raises(ValueError, match="`input_ids` is missing; a model with a repeat bias"):
        model(encoder_outputs=encoded, labels=model.catalogue.item_tokens[[3]])
    with pytest.raises(ValueError, match="models with a repeat bias or item logits need"):
        model.generate(encoder_outputs=encoded)


def test_scores_are_those_of_generate(model):
    inputs = model.catalogue.inputs_from_items(random_histories(model, [4, 2]))
    _, scores = model.recommend(**inputs, top_k=8, num_beams=8)
    output = model.generate(
        **inputs, num_beams=8, num_return_sequences=8, return_dict_in_generate=True, output_scores=True
    )
    torch.testing.assert_close(output.sequences_scores.view(2, 8), scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_bias_is_added_in_every_dtype(model, dtype):
    inputs, labels = model.catalogue.inputs_from_items(torch.tensor([[1, 3, 9]])), model.catalogue.item_tokens[[3]]
    expected = model(**inputs, labels=labels).loss
    model.to(dtype)
    for scored in (model(**inputs, labels=labels), model(**inputs, candidates=labels.unsqueeze(1))):
        torch.testing.assert_close(scored.loss, expected, atol=0.05 if dtype != torch.float64 else 1e-5, rtol=0)
    scored.loss.backward()
    assert model.repeat_bias.grad.isfinite().all()
