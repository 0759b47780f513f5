"""Rewards of completions, for [`ETEGRecGRPOTrainer`].

TRL calls a reward once for all completions of a round: `reward(prompts=..., completions=..., completion_ids=...,
**columns)`. The reward returns a list with one float per completion. Its arguments hold one value per completion:

- `prompts`: the history, a tuple of item indices, oldest first; completions of a group follow each other,
- `completions`: the item index of the completion, 0 if its codes belong to no item,
- `completion_ids`: token ids of the completion,
- `target`: the item index that came next in the data; every further column of the dataset is an argument too,
- `log_probability`: log-probability of the completion, for ranking a group: the policy's, or for `rollout="beam"` the
  score of the beam search.

Your own reward functions have this form too. `None` in the list means no reward for that completion.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2LMHeadModel

from ...data.prepared import PreparedDataset
from ...data.transitions import transition_weights
from ...evaluation.collaborative import next_item_scores
from ...models.item_transitions import RECENT, recent_items


class HitReward:
    """Reward of 1 for the target, 0 for another item, and less than 0 for codes that belong to no item.

    Args:
        non_item (`float`, *optional*, defaults to -0.1): reward of codes that belong to no item, which only
            unconstrained completions can have.

    >>> HitReward()(completions=[5, 2, 0], target=[5, 5, 5])
    [1.0, 0.0, -0.10000000149011612]
    """

    __name__ = "hit"

    def __init__(self, non_item: float = -0.1):
        self.non_item = non_item

    def __call__(self, completions: list[int], target: list[int], **columns) -> list[float]:
        items = torch.tensor(completions)
        hits = (items == torch.tensor(target)).float()
        return hits.masked_fill(items == 0, self.non_item).tolist()


class SemanticReward:
    """Cosine of the semantic embeddings of completion and target; 0 for non-items and items without embedding.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): a model that holds its items' embeddings.

    Raises:
        ValueError: the model holds no embeddings.
    """

    __name__ = "semantic"

    def __init__(self, model):
        if model.catalogue.semantic_embedding is None or not model.catalogue.semantic_embedding.any():
            raise ValueError(
                "the reward 'semantic' needs `semantic_embedding`, but the model holds no embeddings "
                "(`has_semantic_embedding` is False, or none were set); load a model with embeddings, or leave the "
                "reward out."
            )
        self.directions = torch.nn.functional.normalize(
            model.catalogue.semantic_embedding.detach().float().cpu(), dim=1
        )

    def __call__(self, completions: list[int], target: list[int], **columns) -> list[float]:
        return (self.directions[completions] * self.directions[target]).sum(1).tolist()


class PrefixReward:
    """Share of the target's codes that a completion has right, counted up to the first wrong code.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the model, whose items have the codes.
    """

    __name__ = "prefix"

    def __init__(self, model):
        self.item_tokens = model.catalogue.item_tokens.cpu()

    def __call__(self, completion_ids: list[list[int]], target: list[int], **columns) -> list[float]:
        right = torch.tensor(completion_ids) == self.item_tokens[target]  # [completions, L]
        return right.cumprod(1).float().mean(1).tolist()


class RankReward:
    """LambdaRank's gradient of each completion, for the NDCG of its group as a ranked list.

    The distinct completions of a group are ranked by their log-probabilities. For any two of them, the better one
    gains and the other one loses the same number. The number is how much swapping their places would change NDCG,
    times the probability that the policy ranks the two in the wrong order. That probability is the logistic function
    of the difference of their log-probabilities. So an item ranked far above a hit loses most, and an item far below a
    hit loses almost nothing. A group of equally good items gets 0.

    Rewards of a group sum to 0. With `scale_rewards="none"` they are the advantages, and the loss is LambdaRank's.

    Args:
        num_generations (`int`): completions per group.
        relevance (`Callable`, *optional*): another reward that says how good a completion is. The default is
            [`HitReward`], for which only the target is good.

    Source: Burges, From RankNet to LambdaRank to LambdaMART (2010), section 4.
    """

    __name__ = "rank"

    def __init__(self, num_generations: int, relevance: Callable | None = None):
        self.num_generations = num_generations
        self.relevance = relevance or HitReward()

    def __call__(self, completion_ids: list[list[int]], log_probability: list[float], **columns) -> list[float]:
        of_completions = self.relevance(completion_ids=completion_ids, **columns)
        codes, relevance, score = (
            torch.tensor(values).unflatten(0, (-1, self.num_generations))
            for values in (completion_ids, of_completions, log_probability)
        )  # [groups, G, L], [groups, G] and [groups, G]
        same = (codes.unsqueeze(2) == codes.unsqueeze(1)).all(3)  # [groups, G, G]
        copies, first = same.sum(2), same.int().argmax(2)  # how often each is in its group, and its first place
        score = score.gather(1, first)  # one for all copies
        wrong = score.unsqueeze(1) - score.unsqueeze(2)  # [groups, G, G], positive where the other one is above
        rank = 1 + ((wrong > 0) / copies.unsqueeze(1)).masked_fill(same, 0).sum(2).round()
        discount = 1 / torch.log2(rank + 1)
        moved = (discount.unsqueeze(2) - discount.unsqueeze(1)).abs()  # change of the discount if two are swapped
        better = (relevance.unsqueeze(2) - relevance.unsqueeze(1)).clamp(min=0)
        won = better * moved * wrong.sigmoid() / copies.unsqueeze(1) / copies.unsqueeze(2)
        return (won.sum(2) - won.sum(1)).flatten().tolist()


class CollaborativeReward:
    """Log-probability of a completion after its history by a collaborative model, in nats.

    Non-items get the reward of the worst item. With `scale_rewards="none"`, `rollout="sample"` and `top_k=0`, it is
    known which policy training approaches, because TRL weighs the KL divergence per token. A code's probability is the
    starting model's times `exp(r / beta)`, normed, where `r` is the mean reward of completions with that code. At the
    last level, that is the starting model times the collaborative model to the power of `1 / beta`. So a `beta` around
    1 combines both models. A small `beta` gives up the starting model and the variety of its lists.

    Args:
        model (`GPT2LMHeadModel`): model of the same item indices, see [`load_collaborative_model`].
    """

    __name__ = "collaborative"

    def __init__(self, model: GPT2LMHeadModel):
        self.model = model.eval()

    @torch.no_grad()
    def __call__(self, prompts: list, completions: list[int], **columns) -> list[float]:
        read = self.model.config.n_positions
        recent = [torch.tensor(prompt[-read:]) for prompt in prompts]
        histories, row = torch.unique(pad_sequence(recent, batch_first=True), dim=0, return_inverse=True)
        scores = next_item_scores(self.model, histories.to(self.model.device)).cpu()  # [histories, n_items + 1]
        scores[:, 0] = scores[:, 1:].amin(1)  # a non-item's
        return (scores[row, completions] - scores[:, 1:].logsumexp(1)[row]).tolist()


class TransitionReward:
    """Logarithm of the votes for a completion by the last items of its history, as in [`transitions`].

    Transitions are counted in the training sequences, so a training target has votes from its own sequence too. The
    reward is in nats, and `beta` acts as described for [`CollaborativeReward`].

    Args:
        data ([`PreparedDataset`]): dataset whose training sequences are counted.
        floor (`float`, *optional*, defaults to 0.01): votes that are added for every item and non-item. For
            comparison, one transition among 100 of an item is about 0.1 votes.
    """

    __name__ = "transitions"

    def __init__(self, data: PreparedDataset, floor: float = 0.01):
        self.weights, self.floor = transition_weights(data), floor

    def __call__(self, prompts: list, completions: list[int], **columns) -> list[float]:
        last = pad_sequence([torch.tensor(prompt[-RECENT:]) for prompt in prompts], batch_first=True)
        recent, decay = (
            part.numpy() for part in recent_items(last, torch.float64)
        )  # [completions, up to 10], 0 for none
        items = np.broadcast_to(np.array(completions)[:, None], recent.shape)
        votes = self.weights[recent - 1, items - 1] * (items > 0)
        return np.log((votes * decay).sum(1) + self.floor).tolist()


class PopularityPenalty:
    """Minus an item's popularity: 0 for an item without training, -1 for the most frequent item and for non-items.

    Popularity is the logarithm of 1 + count, divided by that of the most frequent item.

    Args:
        item_counts (`np.ndarray` of shape `(n_items + 1,)`): how often each item occurs in training sequences; 0 for
            padding.
    """

    __name__ = "popularity_penalty"

    def __init__(self, item_counts: np.ndarray):
        popularity = np.log1p(item_counts.astype(np.float64)) / max(np.log1p(item_counts.max()), 1e-12)
        self.penalty = -torch.from_numpy(popularity).float()
        self.penalty[0] = -1.0

    def __call__(self, completions: list[int], **columns) -> list[float]:
        return self.penalty[completions].tolist()


WEIGHTS = {"semantic": 0.5}  # default weights that aren't 1, from the specification
REWARDS = ("hit", "semantic", "prefix", "rank", "transitions", "collaborative", "popularity_penalty")


def default_weights(names: list[str]) -> list[float]:
    """Returns the default weights of rewards."""
    return [WEIGHTS.get(name, 1.0) for name in names]


def make_reward(
    name: str,
    model,
    data: PreparedDataset,
    num_generations: int,
    collaborative_model: GPT2LMHeadModel | None = None,
) -> Callable:
    """Makes a reward by its name.

    Args:
        name (`str`): one of `REWARDS`.
        model ([`ETEGRecForConditionalGeneration`]): the recommender.
        data ([`PreparedDataset`]): dataset that the recommender is trained on.
        num_generations (`int`): completions per group.
        collaborative_model (`GPT2LMHeadModel`, *optional*): the model for `"collaborative"`.

    Raises:
        ValueError: the name is unknown.
        ValueError: the reward needs a collaborative model or embeddings, and there are none.
    """
    match name:
        case "hit":
            return HitReward()
        case "semantic":
            return SemanticReward(model)
        case "prefix":
            return PrefixReward(model)
        case "rank":
            return RankReward(num_generations)
        case "transitions":
            return TransitionReward(data)
        case "collaborative":
            if collaborative_model is None:
                raise ValueError(
                    "the reward 'collaborative' needs a collaborative model; make one with `etegrec embed "
                    "--collaborative`, and give its folder as `--collaborative-model`."
                )
            return CollaborativeReward(collaborative_model)
        case "popularity_penalty":
            return PopularityPenalty(data.item_counts)
    raise ValueError(f"there is no reward {name!r}; choose among {', '.join(REWARDS)}.")
