"""Encoders with one position per item, with each of the recommended model's options, in all uses of histories."""

import pytest
import torch
from tiny_models import RECIPE, make_model, random_codes, random_histories

from etegrec_hf import EncodedHistory

ITEMS = {"encoder_input": "items"}
CAUSAL = {"encoder_attention": "causal"}
SCORES_ITEMS = {"constrained_softmax": True, "reads_items": True, "item_logits": "exact"}
KINDS = {
    "items": ITEMS,
    "causal items": ITEMS | CAUSAL,
    "items and vectors": ITEMS | {"reads_items": True, "item_gain": 10},
    "recency": {"recency_buckets": 6},
    "recency of items": ITEMS | CAUSAL | {"recency_buckets": 6},
    "start": {"starts_from_last_item": True},
    "start from items": ITEMS | {"starts_from_last_item": True},
    "item logits": SCORES_ITEMS,
    "item logits of items": SCORES_ITEMS | ITEMS | CAUSAL,
    "recipe": RECIPE,
    "recipe of codes": RECIPE | {"encoder_input": "codes"},
    "bidirectional recipe": RECIPE | {"encoder_attention": "bidirectional"},
}


@pytest.fixture(params=KINDS)
def model(request):
    return make_model(random_codes(40, 3, 8), 8, **KINDS[request.param])


def everything(model, inputs) -> torch.Tensor:
    """Scores `[users, 41]` of all items."""
    items, scores = model.recommend(**inputs, top_k=40, num_beams=40)
    return torch.zeros(len(items), 41).scatter_(1, items, scores)


def test_a_position_is_the_sum_of_an_items_codes():
    model = make_model(random_codes(40, 3, 8), 8, **ITEMS, reads_items=True)
    inputs = model.catalogue.inputs_from_items(torch.tensor([[7, 3, 0]]))
    vectors = model.item_vectors(inputs["input_ids"])
    codes = model.shared(model.catalogue.item_tokens[[7, 3]]).sum(1)
    torch.testing.assert_close(model.encoder.embed(inputs["input_ids"])[0, :2], codes)
    torch.testing.assert_close(model.encoder.embed(inputs["input_ids"], vectors)[0, :2], codes + vectors[0, :2])
    output = model(**inputs)
    assert output.encoder_last_hidden_state.shape == (1, 3, 16)
    torch.testing.assert_close(output.sequence_latents, output.encoder_last_hidden_state[:, :2].mean(1))


@pytest.mark.parametrize("kind", [CAUSAL, {}])
def test_a_causal_encoder_sees_no_later_item(kind):
    model = make_model(random_codes(40, 3, 8), 8, **ITEMS, **kind)
    short, long = (model(**model.catalogue.inputs_from_items(torch.tensor([items]))).encoder_last_hidden_state
                   for items in ([7, 3, 9], [7, 3, 9, 4]))  # fmt: skip
    assert torch.allclose(short, long[:, :3], atol=1e-5) == bool(kind)


@torch.no_grad()
def test_padding_changes_nothing(model):
    lengths = [5, 2, 1]
    history = random_histories(model, lengths)
    left = torch.stack([row.roll(5 - length) for row, length in zip(history, lengths)])
    wide = torch.nn.functional.pad(history, (2, 2))
    between = torch.zeros(3, 9, dtype=torch.long).index_copy_(1, torch.arange(0, 9, 2), history)
    labels = model.catalogue.item_tokens[[7, 8, 9]]
    alone = [model.catalogue.inputs_from_items(row[:length].unsqueeze(0)) for row, length in zip(history, lengths)]
    expected = torch.cat([everything(model, inputs) for inputs in alone])
    losses = torch.stack([model(**inputs, labels=label.unsqueeze(0)).loss for inputs, label in zip(alone, labels)])
    for padded in (history, left, wide, between):
        inputs = model.catalogue.inputs_from_items(padded)
        if padded is not between:  # positions in the encoder are columns
            torch.testing.assert_close(model(**inputs, labels=labels).loss, losses.mean(), atol=1e-5, rtol=0)
            torch.testing.assert_close(everything(model, inputs), expected, atol=1e-5, rtol=0)
        encoded = model.encode_history(**inputs)
        torch.testing.assert_close(everything(model, {"encoded": encoded}), expected, atol=1e-5, rtol=0)
        apart = EncodedHistory.join(list(encoded))[[2, 0]]
        torch.testing.assert_close(everything(model, {"encoded": apart}), expected[[2, 0]], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_last_items_are_read_of_long_histories(model):
    model.config.max_history = 3
    history = random_histories(model, [7, 2, 5])
    cut = torch.stack([row[row > 0][-3:] if (row > 0).sum() > 2 else row[:3] for row in history])
    expected = everything(model, model.catalogue.inputs_from_items(cut))
    whole = model.catalogue.inputs_from_items(history)
    for inputs in (whole, {"encoded": model.encode_history(**whole)}):
        torch.testing.assert_close(everything(model, inputs), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_every_way_of_generating_agrees_with_the_search(model):
    inputs = model.catalogue.inputs_from_items(random_histories(model, [4, 2, 5]))
    scores = everything(model, inputs)
    asked = {"num_beams": 6, "num_return_sequences": 6, "return_dict_in_generate": True, "output_scores": True}
    states = model.encoder(**inputs, item_vectors=model.item_vectors(inputs["input_ids"]))
    for more in ({}, {"encoder_outputs": states}):
        found = model.generate(**inputs, **more, **asked)
        items = model.catalogue.items_of(found.sequences[:, 1:]).view(3, 6)
        torch.testing.assert_close(found.sequences_scores.view(3, 6), scores.gather(1, items), atol=1e-5, rtol=0)
        best = model.recommend(**inputs, top_k=6, num_beams=6)[1]
        torch.testing.assert_close(found.sequences_scores.view(3, 6), best, atol=1e-5, rtol=0)
    greedy = model.catalogue.items_of(model.generate(**inputs)[:, 1:])
    assert torch.equal(greedy, model.recommend(**inputs, top_k=1, num_beams=1)[0])
    torch.manual_seed(0)
    options = {"num_return_sequences": 5, "return_dict_in_generate": True, "output_scores": True}
    drawn = model.generate(**inputs, do_sample=True, **options)
    steps = torch.stack(drawn.scores, dim=1).log_softmax(-1)  # [rows, L, vocab]
    log_p = steps.gather(2, drawn.sequences[:, 1:].unsqueeze(2)).squeeze(2).sum(1).view(3, 5)
    items = model.catalogue.items_of(drawn.sequences[:, 1:]).view(3, 5)
    if model.config.constrained_softmax:  # otherwise codes that lead nowhere have a share of `recommend`'s
        torch.testing.assert_close(log_p, scores.gather(1, items), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("width", [5, 6])  # with a history of 5 items, and with no row that is full
def test_given_states_of_histories_that_are_padded_left_are_read_where_they_are(model, width):
    histories = torch.zeros(2, width, dtype=torch.long)
    histories[0, -5:], histories[1, -3:] = torch.tensor([3, 9, 17, 8, 2]), torch.tensor([30, 4, 11])
    inputs = model.catalogue.inputs_from_items(histories)
    states = model.get_encoder()(**inputs, item_vectors=model.item_vectors(inputs["input_ids"]))
    asked = {"num_beams": 6, "num_return_sequences": 6, "return_dict_in_generate": True, "output_scores": True}
    expected, found = model.generate(**inputs, **asked), model.generate(**inputs, encoder_outputs=states, **asked)
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, atol=1e-5, rtol=0)


@torch.no_grad()
def test_embedded_histories_are_generated_from(model):
    """Positions as the encoder's first block reads them, with a mask of positions."""
    inputs = model.catalogue.inputs_from_items(random_histories(model, [4, 2, 5]))
    embeds = model.encoder.embed(inputs["input_ids"], model.item_vectors(inputs["input_ids"]))
    mask = model.encoder.positions_mask(inputs["attention_mask"])
    if model.repeat_bias is not None or model.item_logits is not None:
        with pytest.raises(ValueError, match="need the histories; give `input_ids` too"):
            model.generate(inputs_embeds=embeds, attention_mask=mask)
        return
    asked = {"num_beams": 6, "num_return_sequences": 6, "return_dict_in_generate": True, "output_scores": True}
    expected = model.generate(**inputs, **asked)
    found = model.generate(inputs_embeds=embeds, attention_mask=mask, **asked)
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, atol=1e-5, rtol=0)


def test_states_of_another_length_are_an_error(model):
    model.config.max_history = 3
    inputs = model.catalogue.inputs_from_items(random_histories(model, [6, 6]))
    states = model(**inputs).encoder_last_hidden_state
    with pytest.raises(ValueError, match=rf"`encoder_outputs` hold {states.shape[1]} states .* 9 tokens"):
        model.generate(**inputs, encoder_outputs=(states,))
    with pytest.raises(
        ValueError, match=r"`encoder_outputs` hold .*; encode exactly the items of `input_ids`, at most `max_history`"
    ):
        model(inputs["input_ids"][:, :9], encoder_outputs=(states,), labels=model.catalogue.item_tokens[[1, 2]])


@pytest.mark.parametrize("kind", ["causal items", "recency of items"])
def test_one_pass_over_states_alone(kind):
    """Whose mask is one of positions, or missing."""
    model = make_model(random_codes(40, 3, 8), 8, **KINDS[kind])
    inputs = model.catalogue.inputs_from_items(random_histories(model, [4, 4]))
    scored = {"history_lengths": torch.tensor([[1, 4], [2, 3]])}
    scored["sequence_labels"] = model.catalogue.item_tokens[torch.tensor([[1, 2], [9, 40]])]
    expected = model(**inputs, **scored)
    states = expected.encoder_last_hidden_state
    for more in ({}, {"attention_mask": torch.ones(states.shape[:2], dtype=torch.long)}):
        found = model(encoder_outputs=(states,), **more, **scored)
        for name in ("logits", "sequence_latents", "preference_latents"):
            torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=0, msg=name)


def test_without_a_cache_it_generates_the_same(model):
    inputs = model.catalogue.inputs_from_items(random_histories(model, [4, 2]))
    assert torch.equal(*(model.generate(**inputs, num_beams=4, use_cache=cached) for cached in (True, False)))


def test_damaged_weights_are_an_error():
    for name in ("item_logits.members.1.query.weight", "item_logits.repeats", "decoder.recency_bias.weight",
                 "decoder.start_projection.weight", "item_inputs.own.weight"):  # fmt: skip
        model = make_model(random_codes(40, 3, 8), 8, **RECIPE)
        with torch.no_grad():
            model.get_parameter(name).fill_(torch.nan)
        for decode in (model.recommend, model.generate):
            with pytest.raises(ValueError, match="the scores are NaN; the model's weights are damaged"):
                decode(model.catalogue.item_tokens[[1]])


def test_candidates_are_scored_as_labels_are(model):
    inputs = model.catalogue.inputs_from_items(random_histories(model, [4, 2, 5]))
    candidates = model.catalogue.item_tokens[torch.tensor([[1, 2], [3, 3], [9, 40]])]
    together = model(**inputs, candidates=candidates)
    repeated = {name: tensor.repeat_interleave(2, dim=0) for name, tensor in inputs.items()}
    alone = model(**repeated, labels=candidates.flatten(0, 1))
    torch.testing.assert_close(together.logits.flatten(0, 1), alone.logits, atol=1e-5, rtol=1e-5)
    gradients = []
    for output in (together, alone):
        model.zero_grad()
        output.loss.backward()
        gradients.append({n: weight.grad for n, weight in model.named_parameters() if weight.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_training_is_finite_and_the_same_with_checkpoints(model, attention):
    """With attention of either kind, gradient checkpointing, and in bfloat16 by autocast."""
    model.set_attn_implementation(attention)
    model.train()
    inputs = model.catalogue.inputs_from_items(random_histories(model, [4, 2, 5]))
    if model.config.encoder_attention == "causal":
        inputs["history_lengths"] = torch.tensor([[1, 4], [2, 0], [3, 5]])
        inputs["sequence_labels"] = model.catalogue.item_tokens[torch.tensor([[1, 2], [3, 0], [9, 40]])]
    else:
        inputs["labels"] = model.catalogue.item_tokens[[1, 2, 9]]

    def learn() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        torch.manual_seed(0)
        model.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        return loss.detach(), {n: weight.grad for n, weight in model.named_parameters() if weight.grad is not None}

    loss, gradients = learn()
    model.activation_checkpointing_enable()
    again, checkpointed = learn()
    torch.testing.assert_close(again, loss)
    assert gradients.keys() == checkpointed.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    model.activation_checkpointing_disable()
    with torch.autocast("cpu", torch.bfloat16):
        rounded, found = learn()
    torch.testing.assert_close(rounded, loss, atol=0.1, rtol=0)
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert found.keys() == gradients.keys()


def test_encoded_histories_belong_to_models_of_their_kind():
    of_codes = make_model(random_codes(40, 3, 8), 8, **CAUSAL)
    of_items = make_model(random_codes(40, 3, 8), 8, **CAUSAL, **ITEMS)
    histories = of_codes.catalogue.item_tokens[[3]]
    for model, other in ((of_codes, of_items), (of_items, of_codes)):
        encoded = model.encode_history(histories)
        with pytest.raises(ValueError, match="was encoded with `tokens_per_position`"):
            other.recommend(encoded=encoded)
        with pytest.raises(ValueError, match="`past` was encoded with `tokens_per_position`"):
            other.encode_history(histories, past=encoded)
        with pytest.raises(ValueError, match="encoded by models of different sizes"):
            EncodedHistory.join([encoded, other.encode_history(histories)])
