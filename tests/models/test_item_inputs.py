"""Vectors of items that the encoder reads besides their codes."""

import copy

import pytest
import torch
from tiny_models import RECIPE, make_model, random_codes

from etegrec_hf import ETEGRecConfig, ETEGRecTokenizer


@pytest.fixture
def model(codes):
    return make_model(codes, 8, reads_items=True)


def logits(model, items: list[int], **options) -> torch.Tensor:
    return model(**model.catalogue.inputs_from_items(torch.tensor([items])), **options).logits


def test_all_codes_of_an_item_carry_its_vector(model):
    items = torch.tensor([[7, 3, 0]])
    inputs = model.catalogue.inputs_from_items(items)
    vectors = model.item_vectors(inputs["input_ids"])
    embedding = model.catalogue.semantic_embedding[[7, 3]]
    unit = embedding / embedding.norm(dim=1, keepdim=True) * 12**0.5
    expected = model.item_inputs.own.weight[[7, 3]] + unit @ model.item_inputs.projection.weight.T
    torch.testing.assert_close(vectors[0, :2], expected)
    assert torch.equal(vectors[0, 2], torch.zeros(16))
    embedded = model.encoder.embed(inputs["input_ids"], vectors)
    torch.testing.assert_close(embedded - model.shared(inputs["input_ids"]), vectors.repeat_interleave(3, dim=1))


def test_the_encoder_reads_the_first_of_several_vectors(codes):
    model = make_model(codes, 8, **RECIPE | {"item_ensemble": 2})
    items = model.catalogue.item_tokens[[7, 3]].view(1, -1)
    before = model.item_vectors(items)
    with torch.no_grad():
        model.item_inputs.own.weight[:, 16:] = 0
        assert torch.equal(model.item_vectors(items), before)
        model.item_inputs.own.weight[7, :16] += 1
    torch.testing.assert_close(model.item_vectors(items)[0, 0], before[0, 0] + model.config.item_gain)
    assert torch.equal(model.item_vectors(items)[0, 1], before[0, 1])


@pytest.mark.parametrize("part", ["own", "semantic"])
def test_each_part_matters(model, part):
    before, others = logits(model, [4, 9]), logits(model, [5, 9])
    with torch.no_grad():
        if part == "own":
            model.item_inputs.own.weight[4] += 1
        else:
            model.catalogue.semantic_embedding[4] = model.catalogue.semantic_embedding[4].flip(0)
    assert (logits(model, [4, 9]) - before).abs().max() > 1e-4
    assert torch.equal(logits(model, [5, 9]), others)


def test_only_the_direction_of_an_embedding_counts(model):
    before = logits(model, [4, 9])
    model.catalogue.semantic_embedding[4] *= 30
    torch.testing.assert_close(logits(model, [4, 9]), before)


def test_stored_vectors_are_multiplied_by_the_gain(model, codes):
    """With a gain of 10, a tenth of the vectors gives the same model, and updates move ten times as far."""
    gained = make_model(codes, 8, reads_items=True, item_gain=10)
    gained.load_state_dict(model.state_dict())
    with torch.no_grad():
        gained.item_inputs.own.weight /= 10
    torch.testing.assert_close(logits(gained, [4, 9]), logits(model, [4, 9]))
    for each in (model, gained):
        logits(each, [4, 9]).square().sum().backward()
    gradients = [each.item_inputs.own.weight.grad for each in (gained, model)]
    torch.testing.assert_close(gradients[0], 10 * gradients[1], rtol=1e-4, atol=1e-4)


def test_items_without_an_embedding_are_read_in_float16(model):
    """Padding too, whose embedding is 0."""
    model.catalogue.semantic_embedding[9] = 0
    halves = model.half().item_vectors(model.catalogue.item_tokens[torch.tensor([[4, 9, 0]])].flatten(1))
    assert halves.isfinite().all()
    assert not halves[0, 2].any()


@pytest.mark.parametrize("options", [{}, RECIPE])
def test_lengths_of_embeddings_beyond_float16_count_as_well(options):
    """Numbers fit into float16, and the square of their length doesn't."""
    model = make_model(random_codes(40, 3, 8), 8, **options | {"reads_items": True}).half()
    embeddings = model.catalogue.semantic_embedding
    inputs = model.catalogue.inputs_from_items(torch.tensor([[4, 9, 0], [9, 0, 0]]))
    expected = model.recommend(**inputs, top_k=40, num_beams=40)[1]
    for length in (20000, 1e-6):
        embeddings[9] *= length / embeddings[9].float().abs().max()
        scores = model.recommend(**inputs, top_k=40, num_beams=40)[1]
        torch.testing.assert_close(scores, expected, atol=0.3 if length < 1 else 0.05, rtol=0)


def test_vectors_belong_to_items_whatever_their_codes(model, codes):
    vectors = model.item_vectors(model.catalogue.item_tokens[[2]])
    model.set_item_codes(codes.roll(1, dims=0))
    torch.testing.assert_close(model.item_vectors(model.catalogue.item_tokens[[2]]), vectors)


def test_removed_items_are_read_as_before(model):
    before = logits(model, [4, 9])
    model.remove_items(torch.tensor([4]))
    assert torch.equal(logits(model, [4, 9]), before)
    assert 4 not in model.recommend(model.catalogue.item_tokens[[4]], top_k=39, num_beams=39)[0]


def test_items_that_join_are_known_by_their_embeddings(model, codes):
    tokenizer = ETEGRecTokenizer.from_item_codes([f"i{row}" for row in range(1, 41)], codes, 8)
    before = logits(model, [4, 9])
    twin = model.catalogue.semantic_embedding[4:5].clone()
    model.add_items(["new", "other"], torch.cat([twin, torch.randn(1, 12)]), tokenizer)
    assert torch.equal(logits(model, [4, 9]), before)
    assert model.item_inputs.own.weight.shape == (43, 16)
    assert model.item_inputs.own.weight.requires_grad
    own = model.item_inputs.own.weight[4]
    torch.testing.assert_close(
        model.item_vectors(model.catalogue.item_tokens[[41]]),
        model.item_vectors(model.catalogue.item_tokens[[4]]) - own,
    )


def test_both_parts_learn(model):
    inputs = model.catalogue.inputs_from_items(torch.tensor([[4, 9]]))
    model(**inputs, labels=model.catalogue.item_tokens[[2]]).loss.backward()
    assert model.item_inputs.projection.weight.grad.abs().max() > 0
    gradient = model.item_inputs.own.weight.grad
    assert gradient[[4, 9]].abs().amax(1).min() > 0
    assert not gradient[[0, 1, 2, 3]].any()


def test_a_copy_reads_its_own_catalogue(model):
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.item_inputs.own.weight.zero_()
    twin.set_item_codes(random_codes(40, 3, 8, seed=3))
    assert not torch.equal(logits(twin, [4, 9]), logits(model, [4, 9]))


def test_embeddings_must_be_kept():
    with pytest.raises(ValueError, match="`reads_items` is True and `has_semantic_embedding` is False"):
        ETEGRecConfig(reads_items=True, has_semantic_embedding=False)
