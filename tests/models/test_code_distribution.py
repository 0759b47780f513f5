"""One distribution over codes: decoding, sampling, scoring and training read the same numbers."""

import pytest
import torch
from tiny_models import RECIPE, make_model, random_codes, random_histories

from etegrec_hf.models.code_distribution import CodeDistribution, code_distribution
from etegrec_hf.models.code_trie import AllCodes, CodeTrie
from etegrec_hf.models.histories import EncodedBatch, Histories
from etegrec_hf.models.node_term import NodeTerm
from etegrec_hf.training.grpo.policy import CodePolicy, encode_distinct

MODELS = {
    "level": {},
    "items": {"constrained_softmax": True},
    "repeats": {"constrained_softmax": True, "has_repeat_bias": True},
    "all": {"constrained_softmax": True, "has_repeat_bias": True, "reads_items": True, "num_transitions": 4},
    "recipe": RECIPE | {"num_transitions": 4},
    "recipe of codes": RECIPE | {"encoder_input": "codes"},
    "bidirectional recipe": RECIPE | {"encoder_attention": "bidirectional"},
}
CONSTRAINTS = {
    "none": {},
    "exclude": {"exclude": torch.tensor([[3, 4, 0], [1, 2, 5], [0, 0, 0]])},
    "allowed": {"allowed": torch.arange(2, 30, 3)},
    "history": {"exclude_history": True},
    "all": {
        "exclude": torch.tensor([[3, 4], [1, 2], [0, 8]]),
        "allowed": torch.arange(1, 30),
        "exclude_history": True,
    },
}


@pytest.fixture(params=MODELS)
def model(request):
    options = MODELS[request.param]
    model = make_model(random_codes(40, 3, 8), 8, **options)
    if "num_transitions" in options:
        generator = torch.Generator().manual_seed(2)
        items = torch.randint(1, 41, (40, 4), generator=generator)
        model.catalogue.set_transitions(items, torch.rand(40, 4, generator=generator))
    model.remove_items(torch.tensor([6]))
    return model


@pytest.fixture
def inputs(model):
    return model.catalogue.inputs_from_items(random_histories(model, [4, 2, 5]))


def log_p_of_all(items: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Returns scores by item index `[users, 41]`, -inf for items that weren't found."""
    found = torch.full((len(items), 41), -torch.inf)
    found.scatter_(1, items, scores)
    found[:, 0] = -torch.inf
    return found


@torch.no_grad()
def forward_log_p(model, inputs) -> torch.Tensor:
    """Log-probabilities `[users, 41]` of all items by the model's own forward pass over each."""
    codes, labels = model.catalogue.item_codes, model.catalogue.item_tokens[1:]
    rows = []
    for user in range(3):
        one = {name: tensor[[user]].expand(40, -1) for name, tensor in inputs.items()}
        log_p = model(**one, labels=labels).logits.log_softmax(-1)  # [40, L, K]
        rows.append(log_p.gather(2, codes.unsqueeze(2)).sum((1, 2)))
    scores = torch.full((3, 41), -torch.inf)
    scores[:, 1:] = torch.stack(rows)
    scores[:, 6] = -torch.inf  # was removed
    return scores


def permitted(model, inputs, exclude=None, allowed=None, exclude_history=False) -> torch.Tensor:
    """Returns a mask `[users, 41]` of the items that each user may get."""
    mask = torch.ones(3, 41, dtype=torch.bool)
    mask[:, [0, 6]] = False
    if allowed is not None:
        mask &= torch.isin(torch.arange(41), allowed)
    for user in range(3):
        if exclude is not None:
            mask[user, exclude[user]] = False
        if exclude_history:
            mask[user, model.catalogue.items_of(inputs["input_ids"])[user]] = False
    return mask


@pytest.mark.parametrize("constraints", CONSTRAINTS)
def test_forward_recommend_generate_and_samples_agree(model, inputs, constraints):
    """Each way of decoding against the forward pass over every item alone."""
    limits = CONSTRAINTS[constraints]
    mask = permitted(model, inputs, **limits)
    expected = forward_log_p(model, inputs).masked_fill(~mask, -torch.inf)
    beam = model.recommend(**inputs, **limits, top_k=40, num_beams=40)
    torch.testing.assert_close(log_p_of_all(*beam), expected, atol=1e-5, rtol=0)

    few = int(mask.sum(1).min())
    generated = model.generate(
        **inputs, **limits, num_beams=few, num_return_sequences=few, return_dict_in_generate=True, output_scores=True
    )
    items = model.catalogue.items_of(generated.sequences[:, 1:]).view(3, few)
    best = expected.gather(1, items)
    torch.testing.assert_close(generated.sequences_scores.view(3, few), best, atol=1e-5, rtol=0)
    if few == 39:  # as many beams as items: all of them come back
        torch.testing.assert_close(best.sort(descending=True).values, expected.sort(descending=True).values[:, :39])

    drawn, log_p = model.sample_items(
        **inputs, **limits, num_samples=40, temperature=0.7, generator=torch.Generator().manual_seed(0)
    )
    sampled = log_p_of_all(drawn, log_p)
    assert torch.equal(sampled > -torch.inf, mask), "all that exist are drawn"
    torch.testing.assert_close(sampled.exp().sum(1), torch.ones(3), msg="and share all the probability")


def test_the_loss_and_reinforcement_learning_read_the_same(model, inputs):
    """GRPO's log-probabilities at temperature 1, those of its rollouts, and the training loss."""
    expected = forward_log_p(model, inputs)
    targets = torch.tensor([[7, 9, 12], [30, 2, 7], [5, 40, 1]])
    losses = torch.stack(
        [
            model(
                **{name: tensor[[user]] for name, tensor in inputs.items()}, labels=model.catalogue.item_tokens[[t]]
            ).loss
            for user in range(3)
            for t in targets[user].tolist()
        ]
    )
    torch.testing.assert_close(losses.detach(), -expected.gather(1, targets).flatten() / 3, atol=1e-5, rtol=0)

    policy = CodePolicy(model, temperature=1.0, top_k=0, constrained=True)
    encoded = encode_distinct(model, **inputs)
    candidates = model.catalogue.item_tokens[targets]
    logits = model(
        encoded.input_ids, encoded.attention_mask, candidates=candidates, encoder_outputs=(encoded.states,)
    ).logits
    scored = policy.log_probs(logits, model.catalogue.item_codes[targets - 1])[0].sum(2).detach()
    drawn, log_p = model.sample_items(**inputs, num_samples=40, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(scored, log_p_of_all(drawn, log_p).gather(1, targets), atol=1e-5, rtol=0)
    if model.config.constrained_softmax:  # items share all of it already
        torch.testing.assert_close(scored, expected.gather(1, targets), atol=1e-5, rtol=0)
    for kind in ("sample", "without_replacement", "beam"):
        torch.manual_seed(0)
        codes, own = policy.roll_out(encoded, kind, 3)
        items = model.catalogue.trie.item(model.catalogue.trie.walk(codes))
        reference = expected if kind == "beam" else log_p_of_all(drawn, log_p)
        torch.testing.assert_close(own, reference.gather(1, items), atol=1e-5, rtol=0)


def test_votes_are_mixed_in_whole(inputs, model):
    """`(1 - w) * p + w * votes` of whole items, whatever the model."""
    if model.catalogue.transitions is None:
        with pytest.raises(ValueError, match="the model keeps no transitions"):
            model.recommend(**inputs, transition_weight=0.3)
        return
    own, none, mixed = (
        log_p_of_all(*model.recommend(**inputs, top_k=40, num_beams=40, transition_weight=weight)).exp()
        for weight in (0.0, 1e-9, 0.3)
    )
    torch.testing.assert_close(own, none)
    votes = (mixed - 0.7 * own) / 0.3
    assert (votes > -1e-5).all()
    assert (votes.sum(1) < 1 + 1e-5).all()
    items, shares = model.catalogue.transitions(model.catalogue.items_of(inputs["input_ids"]))
    voted = torch.zeros(3, 41).scatter_add_(1, items, shares)
    had = torch.zeros(3, 41, dtype=torch.bool).scatter_(1, model.catalogue.items_of(inputs["input_ids"]), True)
    others = ~had
    others[:, [0, 6]] = False
    torch.testing.assert_close(votes[others], voted[others], atol=1e-5, rtol=0)


def test_a_term_is_added_to_the_logits_of_its_nodes():
    """By hand: two items under code 0, one under code 2; the node of code 2 gains 3, for the second user alone."""
    trie = CodeTrie.from_item_codes(torch.tensor([[0, 0], [0, 1], [2, 1]]), 3)

    class Gain(NodeTerm):
        n_users = 2

        def __call__(self, child, level):
            of_user = torch.tensor([0.0, 3.0]).view(2, *[1] * (child.ndim - 1))
            return of_user * (child == trie.walk(torch.tensor([2])))

    logits = torch.tensor([[[1.0, 7.0, 2.0]], [[1.0, 7.0, 2.0]]])
    distribution = CodeDistribution(trie, trie, [Gain()])
    log_p, codes, _ = distribution.steps(logits, torch.zeros(2, 1, dtype=torch.long), 0)
    assert codes.tolist() == [[[0, 2]], [[0, 2]]]
    expected = torch.stack([torch.tensor([1.0, 2.0]).log_softmax(0), torch.tensor([1.0, 5.0]).log_softmax(0)])
    torch.testing.assert_close(log_p[:, 0], expected)
    along = distribution.along(logits.unsqueeze(2).expand(-1, -1, 2, -1), torch.tensor([[[2, 1]], [[2, 1]]]))
    lowest = torch.finfo(torch.float32).min
    assert along[:, 0, 0].tolist() == [[1.0, lowest, 2.0], [1.0, lowest, 5.0]]
    assert along[:, 0, 1].tolist() == [[lowest, 7.0, lowest]] * 2
    part = trie.restrict(torch.tensor([3]))
    log_p, _, _ = CodeDistribution(part, trie, [Gain()]).steps(logits, torch.zeros(2, 1, dtype=torch.long), 0)
    torch.testing.assert_close(log_p[:, 0, 0], expected[:, 1], msg="what is allowed keeps its share of the catalogue")


def test_all_codes_need_no_numbers_for_their_paths():
    """Far more paths than 63 bits can number."""
    model = make_model(torch.randint(0, 512, (9, 8), generator=torch.Generator().manual_seed(0)), 512)
    encoded = encode_distinct(model, **model.catalogue.inputs_from_items(torch.tensor([[1, 2]])))
    policy = CodePolicy(model, temperature=1.0, top_k=0, constrained=False)
    codes, log_p = policy.roll_out(encoded, "beam", 4)
    assert codes.shape == (1, 4, 8)
    logits = model(
        encoded.input_ids,
        encoded.attention_mask,
        candidates=model.config.layout.token_ids(codes),
        encoder_outputs=(encoded.states,),
    ).logits
    torch.testing.assert_close(policy.log_probs(logits, codes)[0].sum(2).detach(), log_p, atol=1e-5, rtol=0)
    assert isinstance(policy.trie, AllCodes)


def test_a_repeat_bias_asks_for_the_histories(codes):
    model = make_model(codes, 8, constrained_softmax=True, has_repeat_bias=True)
    states = torch.zeros(1, 3, 16)
    nothing = Histories(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 0, dtype=torch.long))
    encoded = EncodedBatch(None, torch.ones(1, 3, dtype=torch.long), states)
    with pytest.raises(ValueError, match="`input_ids` is missing; a model with a repeat bias"):
        code_distribution(model, encoded, model.catalogue.constraints(nothing))
