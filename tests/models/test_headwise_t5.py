import pytest
import torch
from accelerate import cpu_offload, disk_offload
from tiny_models import RECIPE, make_model, random_codes, random_histories
from torch import nn

from etegrec_hf import ETEGRecForConditionalGeneration
from etegrec_hf.models.headwise_t5 import encode

WITHOUT_BIAS = RECIPE | {"has_repeat_bias": False}


def searched(model, history: torch.Tensor, beams: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """The 5 items that `recommend` finds and their scores, both `[batch, 5]`."""
    return model.recommend(**model.catalogue.inputs_from_items(history), top_k=5, num_beams=beams)


def generated(model, history: torch.Tensor, beams: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by `generate`, which calls all modules."""
    output = model.generate(
        **model.catalogue.inputs_from_items(history),
        num_beams=beams,
        num_return_sequences=5,
        return_dict_in_generate=True,
        output_scores=True,
    )
    items = model.catalogue.items_of(output.sequences[:, 1:].flatten().view(len(output.sequences), -1))
    return items.view(len(history), 5), output.sequences_scores.view(len(history), 5)


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_states_are_those_of_transformers(kind, attention):
    model = make_model(random_codes(40, 3, 8), 8, feed_forward_proj=kind, attn_implementation=attention)
    inputs = model.catalogue.inputs_from_items(random_histories(model, [7, 1, 4]))
    expected = model.encoder(**inputs).last_hidden_state
    states = encode(model.encoder, **inputs)
    read = inputs["attention_mask"].bool()
    torch.testing.assert_close(states[read], expected[read], atol=1e-5, rtol=1e-5)


class Adapted(nn.Module):
    """A module like those by which adapter libraries replace a linear layer."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.linear, self.change = linear, nn.Parameter(torch.randn_like(linear.weight))
        self.in_features, self.weight = linear.in_features, linear.weight

    def forward(self, states):
        return self.linear(states) + states @ self.change.T


def test_adapters_around_linear_layers_count(model):
    history = random_histories(model, [3, 2])
    plain = model.recommend(**model.catalogue.inputs_from_items(history), top_k=5)[1]
    for block in model.decoder.block:
        block.layer[0].SelfAttention.v = Adapted(block.layer[0].SelfAttention.v)
        block.layer[1].EncDecAttention.o = Adapted(block.layer[1].EncDecAttention.o)
        block.layer[2].DenseReluDense.wo = Adapted(block.layer[2].DenseReluDense.wo)
    items, scores = model.recommend(**model.catalogue.inputs_from_items(history), top_k=5, num_beams=40)
    assert (scores - plain).abs().max() > 0.01
    labels = model.catalogue.item_tokens[items[:, 0]]
    logits = model(**model.catalogue.inputs_from_items(history), labels=labels).logits.log_softmax(-1)
    raw = model.config.layout.codes(labels).unsqueeze(2)
    torch.testing.assert_close(scores[:, 0], logits.gather(2, raw).sum((1, 2)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [{}, {"feed_forward_proj": "gated-gelu", "encoder_attention": "causal"}, RECIPE])
def test_a_model_loaded_in_float16_searches_as_it_generates(kind, tmp_path):
    """transformers keeps T5's `wo` in float32 there, and the residual from then on."""
    model = make_model(random_codes(40, 3, 8), 8, **kind)
    history = random_histories(model, [3, 5, 1])
    exact = searched(model, history)[1]
    model.half().save_pretrained(tmp_path)
    for dtype in (torch.float16, "auto"):
        loaded = ETEGRecForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype).eval()
        assert loaded.decoder.block[0].layer[2].DenseReluDense.wo.weight.dtype == torch.float32
        assert loaded.dtype == torch.float16
        scores = searched(loaded, history)[1]
        torch.testing.assert_close(scores, exact, atol=0.05, rtol=0)
        torch.testing.assert_close(scores, generated(loaded, history)[1], atol=0.02, rtol=0)
        inputs = loaded.catalogue.inputs_from_items(history)
        assert loaded.encode_history(**inputs).states.dtype == torch.float16
        again = loaded.recommend(encoded=loaded.encode_history(**inputs), top_k=5, num_beams=40)
        torch.testing.assert_close(again[1], scores, atol=0.02, rtol=0)
        assert (loaded.sample_items(**inputs, num_samples=9)[0] > 0).all()


@pytest.mark.parametrize("kind", [{}, {"feed_forward_proj": "gated-gelu"}, RECIPE])
def test_dynamically_quantised_layers_are_called(kind):
    model = make_model(random_codes(40, 3, 8), 8, **kind)
    history = random_histories(model, [3, 5, 1])
    exact = searched(model, history)[1]
    with torch.no_grad():
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        for found in (searched(quantised, history)[1], generated(quantised, history)[1]):
            assert not torch.equal(found, exact)
            torch.testing.assert_close(found, exact, atol=0.2, rtol=0)  # 8 bits
        inputs = quantised.catalogue.inputs_from_items(history)
        assert (quantised.sample_items(**inputs, num_samples=9)[0] > 0).all()
        assert quantised.encode_history(**inputs).states.isfinite().all()


class EightBits(nn.Linear):
    """A layer whose weight isn't what states are multiplied by, as those of bitsandbytes."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None)
        self.scale = linear.weight.detach().abs().max() / 127
        self.weight = nn.Parameter((linear.weight.detach() / self.scale).round().char(), requires_grad=False)
        self.bias = linear.bias

    def forward(self, states):
        return nn.functional.linear(states, self.weight.to(states.dtype) * self.scale, self.bias)


@pytest.mark.parametrize("kind", [{}, RECIPE])
def test_weights_of_whole_numbers_are_no_matrices(kind):
    model = make_model(random_codes(40, 3, 8), 8, **kind)
    history = random_histories(model, [3, 5, 1])
    exact = searched(model, history)[1]
    linear = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    for name in linear:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, EightBits(model.get_submodule(name)))
    items, scores = searched(model, history)
    torch.testing.assert_close(scores, exact, atol=0.2, rtol=0)
    expected_items, expected = generated(model, history)
    assert torch.equal(items, expected_items)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [{}, WITHOUT_BIAS])
@pytest.mark.parametrize("way", ["cpu", "disk", "device_map"])
def test_offloaded_weights_are_fetched(kind, way, tmp_path):
    model = make_model(random_codes(40, 3, 8), 8, **kind)
    history = random_histories(model, [3, 5, 1])
    inputs, labels = model.catalogue.inputs_from_items(history), model.catalogue.item_tokens[[4, 9, 1]]
    expected, loss = searched(model, history), model(**inputs, labels=labels).loss
    states = model.encode_history(**inputs).states
    if way == "device_map":
        model.save_pretrained(tmp_path)
        options = {"device_map": {"": "disk"}, "offload_folder": str(tmp_path / "weights")}
        model = ETEGRecForConditionalGeneration.from_pretrained(tmp_path, **options).eval()
    elif way == "disk":
        disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
    else:
        cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.shared.weight.is_meta
    for items, scores in (searched(model, history), generated(model, history)):
        assert torch.equal(items, expected[0])
        torch.testing.assert_close(scores, expected[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(model(**inputs, labels=labels).loss, loss)
    torch.testing.assert_close(model(**inputs, candidates=labels.unsqueeze(1)).loss, loss)
    torch.testing.assert_close(model.encode_history(**inputs).states, states)
    assert model.generate(**inputs, constrained=False).shape == (3, 4)
    with pytest.raises(ValueError, match="the item tokenizer's weights are offloaded; load the model without"):
        model.item_tokenizer.encode(torch.ones(2, 12))


def test_what_offloading_hides_is_an_error():
    model = make_model(random_codes(40, 3, 8), 8, **RECIPE)
    inputs, labels = model.catalogue.inputs_from_items(torch.tensor([[1, 2]])), model.catalogue.item_tokens[[4]]
    expected = model(**inputs, labels=labels).loss
    cpu_offload(model, execution_device=torch.device("cpu"))
    torch.testing.assert_close(model(**inputs, labels=labels).loss, expected)
    for search in (model.recommend, model.generate, model.sample_items):
        with pytest.raises(ValueError, match="`repeat_bias` is offloaded, and only `forward` can fetch it"):
            search(**inputs)
    model = make_model(random_codes(40, 3, 8), 8)
    cpu_offload(model, execution_device=torch.device("cpu"), offload_buffers=True)
    changes = [
        lambda: model.recommend(**inputs),
        lambda: model.remove_items(torch.tensor([1])),
        lambda: model.set_item_codes(random_codes(40, 3, 8)),
        lambda: model.catalogue.set_item_counts(torch.arange(40)),
        lambda: model.catalogue.set_semantic_embedding(torch.randn(40, 12)),
    ]
    for change in changes:
        with pytest.raises(ValueError, match="`item_tokens` is offloaded; load the model without"):
            change()


def test_no_items_join_offloaded_vectors(tokenizer):
    """They would replace all vectors by empty ones."""
    model = make_model(random_codes(40, 3, 8), 8, reads_items=True)
    cpu_offload(model.item_inputs, execution_device=torch.device("cpu"))
    with pytest.raises(ValueError, match="the vectors of items are offloaded; load the model without offloading"):
        model.add_items(["new"], torch.randn(1, 12), tokenizer)
    assert model.config.n_items == model.catalogue.n_items == len(tokenizer.item_ids) == 40
    model.recommend(**model.catalogue.inputs_from_items(torch.tensor([[1, 2]])))


@pytest.mark.parametrize("kind", [{}, {"feed_forward_proj": "gated-gelu"}, RECIPE])
def test_hooks_of_layers_are_called(kind):
    """Each changes what its layer computes; `generate` calls them all."""
    model = make_model(random_codes(40, 3, 8), 8, **kind)
    history = random_histories(model, [3, 5, 1])
    before = searched(model, history)[1]
    leaves = [m for m in (*model.encoder.modules(), *model.decoder.modules()) if not [*m.children()]]
    hooked = [m for m in leaves if hasattr(m, "weight") and not isinstance(m, nn.Embedding)]
    for module in hooked:
        module.register_forward_hook(lambda module, given, output: output * 1.1)
    model.shared.register_forward_hook(lambda module, given, output: output * 0.9)
    items, scores = searched(model, history)
    assert (scores - before).abs().max() > 0.01
    expected_items, expected = generated(model, history)
    assert torch.equal(items, expected_items)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)


def test_hooks_of_activations_are_called(model):
    history = random_histories(model, [3, 5, 1])
    before = searched(model, history)[1]
    for stack in (model.encoder, model.decoder):
        stack.block[0].layer[-1].DenseReluDense.act.register_forward_hook(lambda module, given, output: output * 0)
    items, scores = searched(model, history)
    assert (scores - before).abs().max() > 0.01
    expected_items, expected = generated(model, history)
    assert torch.equal(items, expected_items)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["encoder.block.1", "encoder.block.0.layer.0.SelfAttention", "decoder.block.0",
                                  "decoder.block.1.layer.1.EncDecAttention",
                                  "decoder.block.0.layer.2.DenseReluDense", "encoder", "decoder", "encoder.dropout",
                                  "decoder.block.0.layer.1.dropout"])  # fmt: skip
def test_hooks_that_a_search_would_pass_over_are_an_error(model, name):
    inputs = model.catalogue.inputs_from_items(torch.tensor([[1, 2]]))
    model(**inputs, output_hidden_states=True)  # whose hooks change nothing
    model.recommend(**inputs)
    module = model.get_submodule(name)
    handle = module.register_forward_hook(lambda module, given, output: None)
    with pytest.raises(ValueError, match=rf"a {type(module).__name__} has the forward hook .*; remove the hook, put"):
        model.recommend(**inputs)
    assert model.generate(**inputs).shape == (1, 4)
    handle.remove()
    model.recommend(**inputs)


def test_no_activation_is_overwritten(model):
    """Layers' outputs stay what hooks have seen, and full backward hooks work."""
    seen, kept = [], []

    def keep(module, given, output):
        seen.append(output)
        kept.append(output.clone())

    inputs, labels = model.catalogue.inputs_from_items(torch.tensor([[1, 2]])), model.catalogue.item_tokens[[4]]
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(keep)
            module.register_full_backward_hook(lambda *given: None)
    model.train()(**inputs, labels=labels).loss.backward()
    model.item_tokenizer(torch.randn(3, 12)).loss.backward()
    model.eval().recommend(**inputs)
    assert len(seen) > 50
    assert all(torch.equal(output, copy) for output, copy in zip(seen, kept))
