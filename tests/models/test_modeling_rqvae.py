import pytest
import torch

from etegrec_hf import ETEGRecConfig, RQVAEConfig, RQVAEModel
from etegrec_hf.models.configuration_rqvae import DISTANCES
from etegrec_hf.models.model_card import card_text


def tiny(**config) -> RQVAEModel:
    torch.manual_seed(0)
    return RQVAEModel(RQVAEConfig(**({"input_size": 6, "hidden_sizes": [5], "latent_size": 2, "num_levels": 2,
                                      "codebook_size": 3} | config)))  # fmt: skip


CODEBOOKS = torch.tensor([[[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])


def with_codebooks(**config) -> RQVAEModel:
    model = tiny(**config)
    with torch.no_grad():
        model.quantizer.codebooks.copy_(CODEBOOKS)
    return model


def test_residual_quantisation_by_hand():
    output = with_codebooks().quantizer(torch.tensor([[3.0, 0.5]]))
    # (3, .5) is nearest to (4, 0); the rest (-1, .5) is nearest to (-1, 0)
    assert output.codes.tolist() == [[1, 2]]
    torch.testing.assert_close(output.quantized, torch.tensor([[3.0, 0.0]]))
    torch.testing.assert_close(output.code_logits[0, 0], -torch.tensor([9.25, 1.25, 21.25]))
    torch.testing.assert_close(output.code_logits[0, 1], -torch.tensor([4.25, 1.25, 0.25]))
    # mean squared error of each level: 1.25 / 2 and 0.25 / 2, weighted 1 + 0.25
    torch.testing.assert_close(output.loss, torch.tensor(1.25 * (1.25 / 2 + 0.25 / 2) / 2))


@pytest.mark.parametrize(("distance", "code"), [("l2", 1), ("cosine", 2), ("dot", 1)])
def test_distances_choose_by_their_own_measure(distance, code):
    model = tiny(distance=distance, num_levels=1)
    with torch.no_grad():
        model.quantizer.codebooks.copy_(torch.tensor([[[0.0, 1.0], [5.0, 1.0], [1.0, 0.3]]]))
    latents = torch.tensor([[4.0, 1.2]])
    assert model.quantizer(latents).codes.tolist() == [[code]]


def test_gradients_reach_only_whom_they_should():
    model = with_codebooks()
    latents = torch.tensor([[3.0, 0.5]], requires_grad=True)
    output = model.quantizer(latents)
    output.quantized.sum().backward()
    torch.testing.assert_close(latents.grad, torch.ones(1, 2)), "straight through"
    assert model.quantizer.codebooks.grad is None

    latents.grad = None
    model.quantizer(latents).loss.backward()
    used = model.quantizer.codebooks.grad.abs().sum(-1) > 0
    assert used.tolist() == [[False, True, False], [False, False, True]]
    # commitment of both levels: 0.25 * 2/2 * residual / 2 levels, residuals after each level (-1, .5) and (0, .5)
    torch.testing.assert_close(latents.grad, 0.125 * torch.tensor([[-1.0, 1.0]]))


def test_loss_is_reconstruction_plus_weighted_quantization():
    model = tiny(quantization_weight=0.5)
    embeddings = torch.randn(7, 6)
    output = model(embeddings)
    by_hand = (output.reconstruction - embeddings).square().mean()
    torch.testing.assert_close(output.reconstruction_loss, by_hand)
    torch.testing.assert_close(output.loss, by_hand + 0.5 * output.quantization_loss)
    torch.testing.assert_close(model(embeddings, return_dict=False)[0], output.loss)


def test_encoding_in_batches_changes_nothing():
    model = tiny()
    embeddings = torch.randn(11, 6)
    assert torch.equal(model.encode(embeddings, batch_size=4), model(embeddings).codes)


def test_round_trip_is_exact(tmp_path):
    model = tiny(distance="cosine")
    model.save_pretrained(tmp_path)
    copy = RQVAEModel.from_pretrained(tmp_path)
    assert copy.config.distance == "cosine"
    assert copy.config.hidden_sizes == [5]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, copy.state_dict()[name]), name
    assert (tmp_path / "modeling_rqvae.py").exists(), "the code ships with the weights"


def test_a_card_names_limits_of_recommenders_alone():
    of_tokenizer, of_recommender = (card_text(config, "me/model") for config in (tiny().config, ETEGRecConfig()))
    assert "The item tokenizer of an ETEGRec recommender" in of_tokenizer
    assert "## Limits" not in of_tokenizer
    assert "## Limits" in of_recommender


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"distance": "manhattan"}, "`distance` is 'manhattan'; choose one of l2, cosine, dot"),
        ({"codebook_size": 0}, "`codebook_size` is 0; it must be at least 1"),
        ({"hidden_sizes": (0,)}, r"`hidden_sizes` is \[0\]; each width must be at least 1"),
        ({"hidden_sizes": [5, -1]}, r"`hidden_sizes` is \[5, -1\]; each width"),
    ],
)
def test_impossible_sizes_are_an_error(config, message):
    with pytest.raises(ValueError, match=message):
        RQVAEConfig(**config)


def test_cosines_of_nothing_are_0_in_float16():
    model = with_codebooks(distance="cosine").half()
    latents = torch.tensor([[0.0, 0.0], [3e-5, 0.0], [6e4, 6e4]], dtype=torch.float16)
    logits = model.quantizer.closeness(latents, 0)  # of (0, 0), (4, 0) and (0, 4)
    half = 0.5**0.5
    expected = torch.tensor([[0, 0, 0], [0, 1, 0], [0, half, half]])
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("distance", DISTANCES)
def test_codes_under_autocast_are_those_of_float32(distance):
    model = tiny(distance=distance, latent_size=32, num_levels=3, codebook_size=64)
    latents = (3 + 0.2 * torch.randn(500, 32)).bfloat16()  # far from 0, so that squared distances cancel
    with torch.no_grad():
        model.quantizer.codebooks[0] += 3
    expected = model.quantizer(latents.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = model.quantizer(latents)
    assert torch.equal(found.codes, expected.codes)
    torch.testing.assert_close(found.code_logits, expected.code_logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_closeness_is_computed_in_float32_by_half_weights_too(dtype):
    quantizer = tiny(latent_size=32, codebook_size=64).to(dtype).quantizer
    latents = torch.randn(100, 32).to(dtype)
    expected = -torch.cdist(latents.float(), quantizer.codebooks[0].float()).square()
    torch.testing.assert_close(quantizer.closeness(latents, 0), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_embeddings_are_cast_to_the_weights(dtype):
    model, embeddings = tiny(), torch.randn(4, 6).to(dtype)
    torch.testing.assert_close(model(embeddings).loss, model(embeddings.float()).loss)
    assert model.to(dtype)(embeddings.float()).reconstruction.dtype == dtype
