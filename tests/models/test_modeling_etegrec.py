import pytest
import torch
from tiny_models import RECIPE, make_model, random_codes, random_histories

from etegrec_hf import ETEGRecConfig


def test_logits_score_each_position_against_its_own_level(model):
    history = random_histories(model, [3, 2])
    labels = model.catalogue.item_tokens[[4, 9]]
    output = model(**model.catalogue.inputs_from_items(history), labels=labels)
    assert output.logits.shape == (2, 3, 8)
    start = torch.zeros(2, 1, dtype=torch.long)
    flat = model(
        **model.catalogue.inputs_from_items(history), decoder_input_ids=torch.cat([start, labels[:, :-1]], dim=1)
    ).logits
    assert flat.shape == (2, 3, 25)
    for level in range(3):
        torch.testing.assert_close(output.logits[:, level], flat[:, level, 1 + level * 8 : 9 + level * 8])
    raw = model.catalogue.item_codes[[3, 8]]
    by_hand = -torch.stack(
        [output.logits[b, level].log_softmax(-1)[raw[b, level]] for b in range(2) for level in range(3)]
    )
    torch.testing.assert_close(output.loss, by_hand.mean())


def test_candidates_of_a_history_are_scored_as_if_alone():
    """With gradients, and without dropout also in training: what encoder, decoder and both adapters give and get."""
    model = make_model(random_codes(40, 3, 8), 8, dropout_rate=0.3)
    inputs = model.catalogue.inputs_from_items(random_histories(model, [3, 5, 1]))
    labels = model.catalogue.item_tokens[torch.tensor([[1, 2, 3, 4], [5, 5, 6, 7], [8, 9, 9, 8]])]
    repeated = {name: tensor.repeat_interleave(4, dim=0) for name, tensor in inputs.items()}
    alone = model(**repeated, labels=labels.flatten(0, 1))
    alone.loss.backward()
    expected = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()

    states = model(**inputs).encoder_last_hidden_state
    together = model.train()(encoder_outputs=(states,), attention_mask=inputs["attention_mask"], candidates=labels)
    assert together.logits.shape == (3, 4, 3, 8)
    torch.testing.assert_close(
        together.logits.flatten(0, 1), model.eval()(**repeated, labels=labels.flatten(0, 1)).logits
    )
    torch.testing.assert_close(together.preference_latents, alone.preference_latents[::4])
    torch.testing.assert_close(together.loss, alone.loss)
    together.loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_logits_are_scaled_as_in_t5_unless_told_otherwise(model):
    history = random_histories(model, [3])
    scaled = model(**model.catalogue.inputs_from_items(history), labels=model.catalogue.item_tokens[[1]]).logits
    model.config.scale_logits = False
    plain = model(**model.catalogue.inputs_from_items(history), labels=model.catalogue.item_tokens[[1]]).logits
    torch.testing.assert_close(scaled * 4, plain)  # d_model 16


def test_sequence_latents_are_the_mean_of_unpadded_states(model):
    history = random_histories(model, [3, 1])
    output = model(**model.catalogue.inputs_from_items(history))
    states = output.encoder_last_hidden_state
    torch.testing.assert_close(output.sequence_latents[0], states[0].mean(0))
    torch.testing.assert_close(output.sequence_latents[1], states[1, :3].mean(0))
    assert output.sequence_projection.shape == (2, 8)
    assert output.preference_latents.shape == (2, 12)


def test_adapters_do_not_depend_on_labels(model):
    inputs = model.catalogue.inputs_from_items(random_histories(model, [3, 2]))
    with_labels, without = model(**inputs, labels=model.catalogue.item_tokens[[1, 2]]), model(**inputs)
    torch.testing.assert_close(with_labels.preference_latents, without.preference_latents)
    torch.testing.assert_close(with_labels.sequence_projection, without.sequence_projection)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model, tokenizer, side):
    histories = [["i1", "i2", "i3", "i4", "i5"], ["i9"], ["i7", "i8"]]
    batch = tokenizer(histories, padding=True, return_tensors="pt", padding_side=side)
    together = model(**batch, labels=model.catalogue.item_tokens[[1, 2, 3]])
    items, scores = model.recommend(**batch, top_k=8, num_beams=12)
    for row, history in enumerate(histories):
        alone = tokenizer([history], return_tensors="pt")
        output = model(**alone, labels=model.catalogue.item_tokens[[row + 1]])
        torch.testing.assert_close(output.logits[0], together.logits[row], atol=1e-5, rtol=0)
        torch.testing.assert_close(output.sequence_latents[0], together.sequence_latents[row], atol=1e-5, rtol=0)
        alone_items, alone_scores = model.recommend(**alone, top_k=8, num_beams=12)
        assert torch.equal(alone_items[0], items[row])
        torch.testing.assert_close(alone_scores[0], scores[row], atol=1e-5, rtol=0)


def test_padding_is_known_without_a_mask(model):
    batch = model.catalogue.inputs_from_items(random_histories(model, [3, 1]))
    labels = model.catalogue.item_tokens[[1, 2]]
    with_mask, without = model(**batch, labels=labels), model(batch["input_ids"], labels=labels)
    assert torch.equal(with_mask.logits, without.logits)
    assert torch.equal(with_mask.sequence_latents, without.sequence_latents)


def test_a_row_of_only_padding_spoils_no_loss(model):
    output = model(
        **model.catalogue.inputs_from_items(torch.tensor([[3, 4], [0, 0]])), labels=model.catalogue.item_tokens[[1, 2]]
    )
    for tensor in (output.loss, output.sequence_projection, output.preference_latents):
        assert tensor.isfinite().all()


def test_both_stacks_read_one_embedding(model):
    assert model.encoder.embed_tokens is model.shared
    assert model.decoder.embed_tokens is model.shared
    assert model.shared.weight.shape == (1 + 3 * 8, 16)


def test_new_codes_replace_the_old_everywhere(model):
    before = model.recommend(model.catalogue.item_tokens[[1]], top_k=5)[0]
    new = random_codes(40, 3, 8, seed=5)
    model.set_item_codes(new)
    assert torch.equal(model.catalogue.item_codes, new)
    assert torch.equal(model.catalogue.trie.item(model.catalogue.trie.walk(new)), torch.arange(1, 41))
    assert not torch.equal(model.recommend(model.catalogue.item_tokens[[1]], top_k=5)[0], before)


def test_loading_a_state_rebuilds_the_trie(model, codes):
    assert model.catalogue.trie.item(model.catalogue.trie.walk(codes[:1])).item() == 1
    other = make_model(random_codes(40, 3, 8, seed=7), 8)
    model.load_state_dict(other.state_dict())
    assert torch.equal(
        model.catalogue.trie.item(model.catalogue.trie.walk(other.catalogue.item_codes)), torch.arange(1, 41)
    )


def test_codes_that_do_not_fit_leave_the_model_as_it_was(model, codes):
    twice = codes.clone()
    twice[7] = twice[3]
    with pytest.raises(ValueError, match="items 4 and 8 share the codes"):
        model.set_item_codes(twice)
    with pytest.raises(ValueError, match=r"shape \(39, 3\); by `n_items` and `code_length` it must be \(40, 3\)"):
        model.set_item_codes(codes[1:])
    assert torch.equal(model.catalogue.item_codes, codes)


def test_embeddings_that_do_not_fit_are_an_error(model):
    with pytest.raises(ValueError, match=r"shape \(40, 11\); expected \(40, 12\)"):
        model.catalogue.set_semantic_embedding(torch.zeros(40, 11))
    broken = torch.zeros(40, 12)
    broken[4, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity, first at item index 5"):
        model.catalogue.set_semantic_embedding(broken)


def test_a_model_without_codes_says_so():
    model = make_model(random_codes(4, 2, 4), 4)
    model.catalogue.item_tokens = torch.zeros_like(model.catalogue.item_tokens)
    with pytest.raises(ValueError, match="give the model its catalogue with `set_item_codes`"):
        model.recommend(torch.ones(1, 2, dtype=torch.long), top_k=1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"code_length": 1}, "`code_length` is 1; an item needs at least 2 codes"),
        ({"n_items": 0}, "`n_items` is 0"),
        ({"rqvae_config": {"num_levels": 5}}, r"`rqvae_config.num_levels` is 5, .* need 3"),
        (
            {"codebook_size": 64, "rqvae_config": {"codebook_size": 32}},
            r"`rqvae_config.codebook_size` is 32, .* need 64",
        ),
        ({"encoder_input": "words"}, "`encoder_input` is 'words'; choose one of codes, items"),
        ({"item_logits": "some"}, "`item_logits` is 'some'; choose one of none, exact"),
        ({"item_logits": "exact", "reads_items": True}, "`item_logits` is 'exact' and `constrained_softmax` is False"),
        ({"item_logits": "exact", "constrained_softmax": True}, "`item_logits` is 'exact' and `reads_items` is False"),
        (
            {"item_logits": "exact"},
            "`item_logits` is 'exact' and `constrained_softmax` is False.*set `constrained_softmax` to True, or",
        ),
        ({"item_ensemble": 0}, "`item_ensemble` is 0; it must be at least 1"),
        ({"item_ensemble": 2}, "`item_ensemble` is 2 and `item_logits` is 'none'; give 1, or `item_logits` 'exact'"),
        ({"recency_buckets": 1}, "`recency_buckets` is 1; give 0 for no bias, or 2 or more"),
        ({"recency_buckets": -2}, "`recency_buckets` is -2"),
        ({"item_gain": 0}, "`item_gain` is 0; give a positive number"),
        ({"item_gain": float("inf")}, "`item_gain` is inf"),
        ({"item_gain": float("nan")}, "`item_gain` is nan"),
        ({"dropout_rate": 1.0}, r"`dropout_rate` is 1.0; give a share of at least 0 and below 1"),
        ({"decoder_dropout_rate": -0.1}, r"`decoder_dropout_rate` is -0\.1"),
        ({"attention_dropout_rate": float("nan")}, "`attention_dropout_rate` is nan"),
        ({"pad_token_id": 1}, "`pad_token_id` is 1, but token id 0 is padding and the decoder start of every model"),
        ({"pad_token_id": None}, "`pad_token_id` is None, but token id 0 is padding"),
        ({"decoder_start_token_id": 3}, "`decoder_start_token_id` is 3, but token id 0 is.*; leave it out"),
    ],
)
def test_configurations_that_cannot_be_are_an_error(config, message):
    with pytest.raises(ValueError, match=message):
        ETEGRecConfig(**config)


def test_tuple_output_is_the_same(model):
    inputs = model.catalogue.inputs_from_items(random_histories(model, [2]))
    labels = model.catalogue.item_tokens[[1]]
    assert torch.equal(model(**inputs, labels=labels, return_dict=False)[0], model(**inputs, labels=labels).loss)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": torch.ones(1, 2, dtype=torch.long)}, r"`labels` has shape \(1, 2\); expected \(1, 3\)"),
        (
            {"labels": torch.ones(1, 2, 3, dtype=torch.long)},
            r"`labels` has shape \(1, 2, 3\).* `candidates`",
        ),
        ({"candidates": torch.ones(1, 3, dtype=torch.long)}, r"`candidates` has shape \(1, 3\); expected \(1, n, 3\)"),
        ({"candidates": torch.ones(1, 4, 2, dtype=torch.long)}, r"`candidates` has shape \(1, 4, 2\)"),
        (
            {"labels": torch.ones(1, 3, dtype=torch.long), "decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)},
            "`labels` and `decoder_input_ids` are given, but each asks for a different result",
        ),
        (
            {"candidates": torch.ones(1, 1, 3, dtype=torch.long), "sequence_labels": torch.ones(1, 1, 3)},
            "`candidates` and `history_lengths` are given",
        ),
        ({"sequence_labels": torch.ones(1, 1, 3, dtype=torch.long)}, "`sequence_labels` are given without `history_l"),
        ({"history_lengths": torch.ones(1, 1, dtype=torch.long)}, "`encoder_attention` is 'bidirectional', so that"),
    ],
)
def test_what_forward_cannot_score_is_an_error(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model(**model.catalogue.inputs_from_items(torch.tensor([[1, 2]])), **arguments)


def test_forward_reads_something(model):
    with pytest.raises(ValueError, match="there is nothing to read; give histories as `input_ids`"):
        model(labels=model.catalogue.item_tokens[[1]])


@pytest.mark.parametrize(
    "name", ["decoder_attention_mask", "inputs_embeds", "decoder_inputs_embeds", "head_mask", "lables", "item_vectors",
             "num_items_in_batch", "past_key_values"]
)  # fmt: skip
def test_unknown_arguments_are_an_error(model, name):
    inputs = model.catalogue.inputs_from_items(torch.tensor([[1, 2]]))
    labels = model.catalogue.item_tokens[[3]]
    with pytest.raises(TypeError, match=rf"unexpected arguments {name}; see its documentation"):
        model(**inputs, labels=labels, **{name: labels})
    assert model(**inputs, labels=labels, **{name: None}).loss.isfinite()  # as PEFT gives those of T5


@pytest.mark.parametrize("options", [{}, RECIPE])
def test_hidden_states_and_attentions_are_returned(options):
    """By name and shape, and of what the encoder and T5's decoder make."""
    model = make_model(random_codes(40, 3, 8), 8, attn_implementation="eager", **options)
    inputs = model.catalogue.inputs_from_items(torch.tensor([[1, 2, 3], [4, 0, 0]]))
    labels, positions = model.catalogue.item_tokens[[5, 6]], 9 // model.config.tokens_per_position
    both = {"output_hidden_states": True, "output_attentions": True}
    plain, output = model(**inputs, labels=labels), model(**inputs, labels=labels, **both)
    assert not [name for name in plain if "hidden_states" in name or "attentions" in name]
    torch.testing.assert_close(output.loss, plain.loss)
    shapes = {
        "encoder_hidden_states": 3 * [(2, positions, 16)],
        "decoder_hidden_states": 3 * [(2, 3, 16)],
        "encoder_attentions": 2 * [(2, 2, positions, positions)],
        "decoder_attentions": 2 * [(2, 2, 3, 3)],
        "cross_attentions": 2 * [(2, 2, 3, positions)],
    }
    for name, expected in shapes.items():
        assert [tuple(layer.shape) for layer in output[name]] == expected, name
        if "attentions" in name:
            torch.testing.assert_close(output[name][1].sum(-1), torch.ones(expected[0][:3]))
    assert torch.equal(output.encoder_hidden_states[-1], output.encoder_last_hidden_state)
    last = model.level_logits(output.decoder_hidden_states[-1][:, 0], 0)
    if not options:
        torch.testing.assert_close(output.logits[:, 0], last)
    found = model.generate(**inputs, return_dict_in_generate=True, **both)
    assert [len(found[name]) for name in shapes] == [3, 3, 2, 3, 3]  # of the decoder: of each step
    torch.testing.assert_close(found.encoder_attentions, output.encoder_attentions)
    torch.testing.assert_close(found.decoder_hidden_states[0][-1][:, 0], output.decoder_hidden_states[-1][:, 0])
    model.config.output_hidden_states = True
    assert len(model(**inputs, labels=labels).decoder_hidden_states) == 3
    with pytest.raises(ValueError, match="attentions and hidden states of `candidates` can't be returned"):
        model(**inputs, candidates=labels.unsqueeze(1))


def test_a_whole_sequence_has_hidden_states_too():
    model = make_model(random_codes(40, 3, 8), 8, encoder_attention="causal", attn_implementation="eager")
    inputs, lengths = model.catalogue.inputs_from_items(torch.tensor([[1, 2]])), torch.tensor([[1, 2]])
    targets = model.catalogue.item_tokens[torch.tensor([[2, 5]])]
    both = {"output_hidden_states": True, "output_attentions": True}
    output = model(**inputs, history_lengths=lengths, sequence_labels=targets, **both)
    assert [tuple(layer.shape) for layer in output.decoder_hidden_states] == 3 * [(1, 6, 16)]
    alone = model(**inputs, labels=targets[:, 1], **both)
    torch.testing.assert_close(output.decoder_hidden_states[-1][:, 3:], alone.decoder_hidden_states[-1])
    torch.testing.assert_close(output.cross_attentions[1][:, :, 3:], alone.cross_attentions[1])


def test_the_vocabulary_keeps_its_size(model, tokenizer):
    before, inputs = model.shared, model.catalogue.inputs_from_items(torch.tensor([[1, 2]]))
    expected = model.recommend(**inputs)
    for size in (None, 25, len(tokenizer)):
        assert model.resize_token_embeddings(size) is before
    for asked in ({"new_num_tokens": 100}, {"new_num_tokens": 24}, {"pad_to_multiple_of": 8},
                  {"new_num_tokens": 25, "pad_to_multiple_of": 64}):  # fmt: skip
        with pytest.raises(ValueError, match="the vocabulary has 25 token ids, which follow from `code_length` and"):
            model.resize_token_embeddings(**asked)
    with pytest.raises(ValueError, match=r"embeddings of size \(26, 16\); .* must be \(25, 16\)"):
        model.set_input_embeddings(torch.nn.Embedding(26, 16))
    assert model.shared is model.encoder.embed_tokens is model.decoder.embed_tokens is before
    for found, wanted in zip(model.recommend(**inputs), expected):
        assert torch.equal(found, wanted)
    other = torch.nn.Embedding(25, 16)
    model.set_input_embeddings(other)
    assert model.shared is model.encoder.embed_tokens is model.decoder.embed_tokens is other
