"""A causal encoder: one pass over a sequence serves every prefix of it."""

import pytest
import torch
from tiny_models import RECIPE, make_model, random_codes, random_histories

KINDS = {
    "codes": {},
    "repeats": {"reads_items": True, "constrained_softmax": True, "has_repeat_bias": True},
    "items": {"encoder_input": "items"},
    "recency": {"recency_buckets": 6},
    "start": {"starts_from_last_item": True, "encoder_input": "items"},
    "item logits": {"reads_items": True, "constrained_softmax": True, "item_logits": "exact", "item_gain": 3},
    "recipe": RECIPE,
    "recipe of codes": RECIPE | {"encoder_input": "codes"},
}
LENGTHS = [5, 1, 3]  # items of each history; each is a target too, but the first


def causal(seed: int = 0, **config):
    return make_model(random_codes(40, 3, 8), 8, seed, **{"encoder_attention": "causal"} | config)


def whole_sequences(model) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Histories, their targets and how many items come before each: `[3, 5]` item indices, padded with 0."""
    items = random_histories(model, [length + 1 for length in LENGTHS])
    targets = items[:, 1:]
    return items[:, :-1] * (targets > 0), targets, torch.arange(1, 6) * (targets > 0)


def one_pass(model):
    history, targets, read = whole_sequences(model)
    inputs = model.catalogue.inputs_from_items(history)
    return model(**inputs, history_lengths=read, sequence_labels=model.catalogue.item_tokens[targets]), targets > 0


def prefix_by_prefix(model):
    history, targets, read = whole_sequences(model)
    rows, columns = (targets > 0).nonzero(as_tuple=True)
    prefixes = history[rows] * (torch.arange(5) < read[rows, columns].unsqueeze(1))
    return model(
        **model.catalogue.inputs_from_items(prefixes), labels=model.catalogue.item_tokens[targets[rows, columns]]
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_one_pass_equals_prefix_by_prefix(attention, kind):
    model = causal(**KINDS[kind])
    model.set_attn_implementation(attention)
    together, is_target = one_pass(model)
    apart = prefix_by_prefix(model)
    assert is_target.sum() == sum(LENGTHS)
    for name in ("logits", "sequence_latents", "sequence_projection", "preference_latents"):
        torch.testing.assert_close(together[name][is_target], apart[name], atol=1e-5, rtol=1e-5, msg=name)
    torch.testing.assert_close(together.loss, apart.loss)


@pytest.mark.parametrize("kind", ["codes", "recipe", "recipe of codes"])
def test_gradients_are_those_of_prefix_by_prefix(kind):
    gradients = []
    for scored in (one_pass, prefix_by_prefix):
        model = causal(**KINDS[kind])
        outputs = scored(model)
        outputs, is_target = outputs if scored is one_pass else (outputs, ...)
        (
            outputs.loss + outputs.sequence_projection[is_target].sum() + outputs.preference_latents[is_target].sum()
        ).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    together, apart = gradients
    assert together["encoder.block.0.layer.0.SelfAttention.q.weight"].abs().max() > 0
    for name, gradient in apart.items():
        torch.testing.assert_close(together[name], gradient, atol=1e-4, rtol=1e-4, msg=name)


def test_latents_need_no_labels():
    model = causal()
    history, _, read = whole_sequences(model)
    latents = model(**model.catalogue.inputs_from_items(history), history_lengths=read)
    assert latents.loss is latents.logits is None
    scored, is_target = one_pass(model)
    for name in ("sequence_projection", "preference_latents"):
        torch.testing.assert_close(latents[name][is_target], scored[name][is_target])


def test_later_items_change_nothing_earlier():
    model, other = causal(), make_model(random_codes(40, 3, 8), 8)
    longer = torch.tensor([[7, 3, 9, 4]])
    for encoder, equal in ((model, True), (other, False)):
        short, long = (encoder(**encoder.catalogue.inputs_from_items(items)).encoder_last_hidden_state
                       for items in (longer[:, :3], longer))  # fmt: skip
        assert torch.allclose(short, long[:, :9], atol=1e-5) == equal


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side):
    model = causal()
    history = random_histories(model, [4, 2, 1])
    padded = history if side == "right" else torch.stack([row.roll(int((row == 0).sum())) for row in history])
    items, scores = model.recommend(**model.catalogue.inputs_from_items(padded), top_k=5, num_beams=8)
    for row in range(3):
        alone = model.catalogue.inputs_from_items(history[row : row + 1, history[row] > 0])
        expected_items, expected_scores = model.recommend(**alone, top_k=5, num_beams=8)
        assert torch.equal(items[row : row + 1], expected_items)
        torch.testing.assert_close(scores[row : row + 1], expected_scores, atol=1e-5, rtol=1e-5)


def test_sequences_that_are_padded_left_are_an_error():
    model = causal()
    history, targets, read = whole_sequences(model)
    inputs = model.catalogue.inputs_from_items(history.flip(1))
    with pytest.raises(ValueError, match=r"row 1 of `attention_mask` has padding before an item.*; pad sequences on"):
        model(**inputs, history_lengths=read, sequence_labels=model.catalogue.item_tokens[targets])


@pytest.mark.parametrize("length", [0, -1, 4, 6])  # the third row has 3 of 5 items
@pytest.mark.parametrize("kind", ["codes", "recipe"])
def test_a_target_after_no_item_or_after_padding_is_an_error(kind, length):
    model = causal(**KINDS[kind])
    history, targets, read = whole_sequences(model)
    inputs, labels = model.catalogue.inputs_from_items(history), model.catalogue.item_tokens[targets]
    read[2, 1] = length
    message = rf"`history_lengths` is {length} for target 1 of row 2, which has 3 items; give the number .*from 1 to"
    with pytest.raises(ValueError, match=message):
        model(**inputs, history_lengths=read, sequence_labels=labels)
    labels[2, 1] = 0  # no target, so that its length doesn't count
    assert model(**inputs, history_lengths=read.clamp(0, 5), sequence_labels=labels).loss.isfinite()
    read[2, 1] = 99
    assert model(**inputs, history_lengths=read, sequence_labels=labels).loss.isfinite()


def test_a_bidirectional_encoder_has_no_one_pass():
    model = make_model(random_codes(40, 3, 8), 8)
    with pytest.raises(
        ValueError, match="`encoder_attention` is 'bidirectional', so that every item would see the whole"
    ):
        one_pass(model)


def test_an_unknown_attention_is_an_error():
    with pytest.raises(ValueError, match="`encoder_attention` is 'sideways'; choose one of bidirectional, causal"):
        make_model(random_codes(40, 3, 8), 8, encoder_attention="sideways")
