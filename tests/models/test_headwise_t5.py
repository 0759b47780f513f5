import pytest
import torch
from tiny_models import make_model, random_codes, random_histories
from torch import nn

from etegrec_hf.models.headwise_t5 import encode


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
    """What an adapter library puts in the place of a linear layer."""

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
