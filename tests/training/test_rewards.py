"""Each reward by hand."""

import math

import numpy as np
import pytest
import torch
from tiny_models import make_model

from etegrec_hf.data.prepared import Split
from etegrec_hf.evaluation.collaborative import next_item_scores
from etegrec_hf.training.collaborative.arguments import CollaborativeSizes
from etegrec_hf.training.collaborative.model import build_collaborative_model
from etegrec_hf.training.grpo.rewards import (
    REWARDS,
    CollaborativeReward,
    HitReward,
    PopularityPenalty,
    PrefixReward,
    RankReward,
    SemanticReward,
    TransitionReward,
    make_reward,
)

CODES = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])


def three_items(**config):
    return make_model(CODES, 4, **config)


def tokens(*codes: list[int]) -> list[list[int]]:
    return [[1 + level * 4 + code for level, code in enumerate(row)] for row in codes]


def test_hit():
    assert HitReward()(completions=[2, 3, 0], target=[2, 2, 2]) == pytest.approx([1, 0, -0.1])
    assert HitReward(non_item=-1.0)(completions=[0], target=[2], prompts=[[1]]) == [-1]


def test_semantic_is_the_cosine_and_0_without_an_item_or_its_embedding():
    model = three_items()
    embeddings = torch.zeros(4, 12)
    embeddings[0, 0], embeddings[1, :2], embeddings[2, 0] = 2.0, torch.tensor([3.0, 4.0]), -1.0
    model.catalogue.set_semantic_embedding(embeddings)
    reward = SemanticReward(model)
    assert reward(completions=[1, 2, 3, 4, 0], target=[1, 1, 1, 1, 1]) == pytest.approx([1, 0.6, -1, 0, 0])


def test_semantic_needs_embeddings():
    with pytest.raises(ValueError, match="the reward 'semantic' needs `semantic_embedding`"):
        SemanticReward(make_model_without_embedding())


def make_model_without_embedding():
    model = three_items()
    model.catalogue.semantic_embedding = None
    return model


def test_prefix_counts_up_to_the_first_wrong_code():
    completions = tokens([0, 0, 0], [0, 0, 3], [0, 1, 0], [2, 0, 0])
    assert PrefixReward(three_items())(completion_ids=completions, target=[1] * 4) == pytest.approx(
        [1, 2 / 3, 1 / 3, 0]
    )


GAIN = [1, 1 / math.log2(3), 1 / 2, 1 / math.log2(5)]  # of the first four places


def wrong(score: float, score_of_hit: float) -> float:
    return 1 / (1 + math.exp(score_of_hit - score))


def test_rank_is_the_gradient_of_lambdarank():
    """Two groups of four: the target is third by log-probability in the first, nowhere in the second."""
    score = [-1.0, -2.5, -3.0, -4.0]
    reward = RankReward(4)(
        completion_ids=tokens(*CODES.tolist(), *CODES.tolist()),
        completions=[1, 2, 3, 4] * 2,
        target=[3] * 4 + [9] * 4,
        log_probability=score * 2,
    )
    taken = [abs(GAIN[place] - GAIN[2]) * wrong(score[place], score[2]) for place in (0, 1, 3)]
    assert reward == pytest.approx([-taken[0], -taken[1], sum(taken), -taken[2], 0, 0, 0, 0])


def test_rank_counts_repeated_completions_once():
    """The order is 4, 1, 2, with 4 drawn twice: 2 is third, and the draws of 4 share what one would cost."""
    completion_ids = tokens(CODES[3].tolist(), CODES[1].tolist(), CODES[3].tolist(), CODES[0].tolist())
    columns = {"completions": [4, 2, 4, 1], "log_probability": [-1.0, -3.0, -1.0000001, -2.0]}
    reward = RankReward(4)(completion_ids=completion_ids, target=[2] * 4, **columns)
    four, one = (GAIN[0] - GAIN[2]) * wrong(-1, -3), (GAIN[1] - GAIN[2]) * wrong(-2, -3)
    assert reward == pytest.approx([-four / 2, four + one, -four / 2, -one])
    two, one = (GAIN[0] - GAIN[2]) * wrong(-3, -1), (GAIN[0] - GAIN[1]) * wrong(-2, -1)
    reward = RankReward(4)(completion_ids=completion_ids, target=[4] * 4, **columns)
    assert reward == pytest.approx([(two + one) / 2, -two, (two + one) / 2, -one])


def test_rank_by_another_reward_compares_every_two():
    """Graded relevance: pairs of the group in which one is better, by hand."""

    def relevance(completions, **columns):
        return [{1: 0.2, 2: 1.0, 3: 0.2, 4: 0.5}[item] for item in completions]

    score, value = [-1.0, -2.5, -3.0, -4.0], [0.2, 1.0, 0.2, 0.5]
    expected = [0.0] * 4
    for better in range(4):
        for worse in range(4):
            if value[better] > value[worse]:
                swap = abs(GAIN[better] - GAIN[worse]) * (value[better] - value[worse])
                won = swap * wrong(score[worse], score[better])
                expected[better], expected[worse] = expected[better] + won, expected[worse] - won
    reward = RankReward(4, relevance)
    columns = {"completion_ids": tokens(*CODES.tolist()), "completions": [1, 2, 3, 4], "target": [9] * 4}
    assert reward(log_probability=score, **columns) == pytest.approx(expected)
    assert sum(expected) == pytest.approx(0)


def test_collaborative_is_the_models_log_probability():
    torch.manual_seed(0)
    model = build_collaborative_model(4, CollaborativeSizes(width=8, num_layers=1, num_heads=2, max_history=3)).eval()
    prompts = [(1, 2), (1, 2), (3,), (4, 4, 1, 2, 3)]
    reward = CollaborativeReward(model)(prompts=prompts, completions=[1, 4, 2, 0], target=[1] * 4)
    for history, item, value in zip(([1, 2], [1, 2], [3], [1, 2, 3]), [1, 4, 2, None], reward):
        log_p = next_item_scores(model, torch.tensor([history]))[0, 1:].log_softmax(0)
        assert value == pytest.approx((log_p.min() if item is None else log_p[item - 1]).item(), abs=1e-5)


class Training:
    """1, 2, 3 and 2, 1."""

    n_items = 4
    train = Split(["a", "b"], np.array([1, 2, 3, 2, 1]), np.array([0, 3, 5]))
    item_counts = np.array([0, 2, 2, 1, 0])


def test_transitions_are_the_logarithm_of_votes():
    """`C[1, 2]` is 1 + 0.3, `C[1, 3]` 0.5; `C[2, 3]` 1, `C[2, 1]` 1 + 0.3; `C[3, 2]` 0.3, `C[3, 1]` 0.15."""
    one = {2: 1.3 / math.sqrt(1.8), 3: 0.5 / math.sqrt(1.8)}
    two = {1: 1.3 / math.sqrt(2.3), 3: 1.0 / math.sqrt(2.3)}
    reward = TransitionReward(Training(), floor=0.2)
    prompts, completions = [(2, 1), (2, 1), (1,), (2,), (1,), (4, 2, 4)], [3, 2, 2, 0, 4, 3]
    votes = [one[3] + 0.7 * two[3], one[2], one[2], 0, 0, 0.7 * two[3]]
    expected = [math.log(vote + 0.2) for vote in votes]
    assert reward(prompts=prompts, completions=completions) == pytest.approx(expected)
    long = reward(prompts=[(2,) + (4,) * 9, (2,) + (4,) * 10], completions=[1, 1])
    assert long == pytest.approx([math.log(0.7**9 * two[1] + 0.2), math.log(0.2)]), "the last 10 vote"


def test_popularity_penalty():
    penalty = PopularityPenalty(np.array([0, 3, 1, 0, 0]))
    assert penalty(completions=[1, 2, 3, 0]) == pytest.approx([-1, -0.5, 0, -1])


def test_rewards_by_name():
    model = three_items()
    collaborative = build_collaborative_model(4, CollaborativeSizes(width=8, num_layers=1, num_heads=2))
    made = [make_reward(name, model, Training(), 4, collaborative) for name in REWARDS]
    assert [reward.__name__ for reward in made] == list(REWARDS)
    with pytest.raises(ValueError, match="needs a collaborative model; make one with `etegrec embed --collaborative`"):
        make_reward("collaborative", model, Training(), 4)
    with pytest.raises(ValueError, match="there is no reward 'joy'; choose among hit, semantic"):
        make_reward("joy", model, Training(), 4)
