"""The distribution that is sampled and scored, against sums over everything."""

import math

import pytest
import torch
from tiny_models import RECIPE, make_model, random_codes, random_histories

from etegrec_hf.training.grpo.policy import ROLLOUTS, CodePolicy, encode_distinct

LENGTHS = [3, 1, 5]
BIASED = {"constrained_softmax": True, "has_repeat_bias": True, "reads_items": True}


def assert_near(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual.detach(), expected.detach(), atol=atol, rtol=0)


def brute_force(model, history: list[int], codes: list[int], temperature: float, constrained: bool) -> list[float]:
    """Log-probability of each code by a full forward pass over the prefix before it, in eval mode."""
    inputs = model.catalogue.inputs_from_items(torch.tensor([history]))
    catalogue = model.catalogue.item_codes.tolist()
    found = []
    for level, code in enumerate(codes):
        prefix = [1 + place * model.config.codebook_size + before for place, before in enumerate(codes[:level])]
        with torch.no_grad():
            logits = model(**inputs, decoder_input_ids=torch.tensor([[0, *prefix]])).logits[0, -1]
        may_follow = range(model.config.codebook_size)
        if constrained:
            may_follow = {row[level] for row in catalogue if row[:level] == codes[:level]}
        weights = {
            other: math.exp(logits[1 + level * model.config.codebook_size + other].item() / temperature)
            for other in may_follow
        }
        found.append(math.log(weights[code] / sum(weights.values())))
    return found


def score(model, policy, history, codes):
    """Log-probabilities and entropies of completions, as the trainer computes them."""
    inputs = model.catalogue.inputs_from_items(history)
    encoded = encode_distinct(model, **inputs)
    labels = model.config.layout.token_ids(codes)
    outputs = model(encoded.input_ids, encoded.attention_mask, candidates=labels, encoder_outputs=(encoded.states,))
    return policy.log_probs(outputs.logits, codes)


def roll_out(model, policy, history, kind, group):
    inputs = model.catalogue.inputs_from_items(history)
    return policy.roll_out(encode_distinct(model, **inputs), kind, group)


@pytest.mark.parametrize("constrained", [True, False])
def test_log_probabilities_equal_a_sum_over_prefixes(constrained):
    model = make_model(random_codes(20, 3, 4), 4, dropout_rate=0.3).eval()
    policy = CodePolicy(model, temperature=0.7, top_k=2, constrained=constrained)
    history = random_histories(model, LENGTHS)
    codes = model.catalogue.item_codes[torch.tensor([[0, 5, 5], [1, 2, 3], [9, 8, 7]])]
    expected = torch.tensor(
        [
            [brute_force(model, row[row > 0].tolist(), code, 0.7, constrained) for code in group]
            for row, group in zip(history, codes.tolist())
        ]
    )
    model.train()  # dropout is of no concern to the policy
    log_probs, entropies = score(model, policy, history, codes)
    assert_near(log_probs, expected)
    assert entropies.shape == log_probs.shape
    assert (entropies >= 0).all()


def test_all_items_have_probabilities_that_sum_to_1_and_an_entropy():
    model = make_model(random_codes(20, 3, 4), 4)
    policy = CodePolicy(model, temperature=1.3, top_k=0, constrained=True)
    history = random_histories(model, LENGTHS)
    log_probs, entropies = score(model, policy, history, model.catalogue.item_codes.expand(3, -1, -1))
    probability = log_probs.sum(2).exp()
    assert_near(probability.sum(1), torch.ones(3))
    of_items = -(probability * log_probs.sum(2)).sum(1)  # the chain rule of entropy
    assert_near((probability * entropies.sum(2)).sum(1), of_items, 1e-4)


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("kind", ROLLOUTS)
def test_what_is_rolled_out_is_scored_alike(kind, constrained):
    check_rollouts(make_model(random_codes(40, 3, 8), 8), kind, constrained)


@pytest.mark.parametrize("options", [BIASED, RECIPE, RECIPE | {"encoder_input": "codes"}])
@pytest.mark.parametrize("kind", ROLLOUTS)
def test_with_probabilities_of_items_alone_and_other_terms_too(kind, options):
    check_rollouts(make_model(random_codes(40, 3, 8), 8, **options), kind, True)


def check_rollouts(model, kind, constrained):
    """Completions of each kind have the log-probabilities that scoring them gives."""
    policy = CodePolicy(model, temperature=0.8 if kind != "beam" else 1.0, top_k=0, constrained=constrained)
    history = random_histories(model, LENGTHS)
    torch.manual_seed(0)
    codes, log_p = roll_out(model, policy, history, kind, 16)
    assert codes.shape == (3, 16, 3)
    scored = score(model, policy, history, codes)[0].sum(2)
    if kind == "beam" and constrained:  # which ranks by the model's own scores, as `recommend` does
        items, scores = model.recommend(**model.catalogue.inputs_from_items(history), top_k=16, num_beams=16)
        assert torch.equal(codes, model.catalogue.item_codes[items - 1])
        assert_near(log_p, scores)
    else:
        assert_near(log_p, scored)
    items = model.catalogue.trie.item(model.catalogue.trie.walk(codes))
    assert (items > 0).all() if constrained else (items == 0).any()
    if kind != "sample":
        assert all(len(group.unique(dim=0)) == 16 for group in codes), "distinct completions"


def test_samples_follow_the_distribution():
    model = make_model(random_codes(12, 3, 4), 4)
    policy = CodePolicy(model, temperature=1.5, top_k=0, constrained=True)
    history = random_histories(model, [4])
    torch.manual_seed(0)
    codes, _ = roll_out(model, policy, history.expand(1250, -1), "sample", 16)
    drawn = (
        torch.bincount(model.catalogue.trie.item(model.catalogue.trie.walk(codes)).flatten(), minlength=13)[1:] / 20000
    )
    probability = score(model, policy, history, model.catalogue.item_codes.expand(1, -1, -1))[0].sum(2).exp()[0]
    assert_near(drawn, probability, 0.015)


def test_top_k_narrows_what_is_drawn_and_not_its_score():
    model = make_model(random_codes(40, 3, 8), 8)
    history = random_histories(model, LENGTHS)
    torch.manual_seed(0)
    codes, log_p = roll_out(model, CodePolicy(model, 1.0, 1, True), history, "sample", 4)
    assert (codes == codes[:, :1]).all(), "the most probable code at each level"
    scored, _ = score(model, CodePolicy(model, 1.0, 0, True), history, codes)
    assert_near(log_p, scored.sum(2))


@pytest.mark.parametrize("options", [{}, RECIPE])
def test_padding_changes_nothing(options):
    model = make_model(random_codes(40, 3, 8), 8, **options)
    policy = CodePolicy(model, 1.0, 0, True)
    history = random_histories(model, LENGTHS)
    codes = model.catalogue.item_codes[torch.randint(40, (3, 4), generator=torch.Generator().manual_seed(0))]
    expected, _ = score(model, policy, history, codes)
    for pad in ((0, 4), (4, 0)):
        padded, _ = score(model, policy, torch.nn.functional.pad(history, pad), codes)
        assert_near(padded, expected)
    left = torch.stack([row.roll(5 - length) for row, length in zip(history, LENGTHS)])
    assert_near(score(model, policy, left, codes)[0], expected)
    for row, length in enumerate(LENGTHS):
        alone, _ = score(model, policy, history[row : row + 1, :length], codes[row : row + 1])
        assert_near(alone, expected[row : row + 1])


@pytest.mark.parametrize("options", [{}, {"reads_items": True}, RECIPE])
def test_each_distinct_history_is_encoded_once(options):
    model = make_model(random_codes(40, 3, 8), 8, **options)
    histories = random_histories(model, [3, 1, 3])[[0, 1, 2, 1, 1, 0]]
    inputs = model.catalogue.inputs_from_items(histories)
    encoded = encode_distinct(model, **inputs)
    alone = model.encoder(**inputs, item_vectors=model.item_vectors(inputs["input_ids"])).last_hidden_state
    kept = model.encoder.positions_mask(inputs["attention_mask"]).unsqueeze(2)
    assert_near(encoded.states * encoded.positions_mask.unsqueeze(2), alone * kept)
