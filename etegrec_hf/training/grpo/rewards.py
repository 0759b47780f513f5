"""Rewards of completions, for [`ETEGRecGRPOTrainer`].

A reward is called as TRL calls it, `reward(prompts=..., completions=..., completion_ids=..., **columns)`, once for all
completions of a round, and returns a list of floats, one a completion. The trainer's rows are

- `prompts`: histories, tuples of item indices, oldest first; a group's completions stand side by side,
- `completions`: the item index of each completion, 0 for codes that are nobody's,
- `completion_ids`: its token ids,
- `target`: the item index that really came next, and every further column of the dataset,
- `log_probability`: by which a group is ranked: the policy's, or for `rollout="beam"` the beam search's own score.

A function of one's own has this form too. Where it returns `None`, it has nothing to say about that completion.
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
    """1 for the target, 0 for another item, and less for codes that are nobody's.

    Args:
        non_item (`float`, *optional*, defaults to -0.1): for a completion that is no item, as happens unconstrained.

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
    """Cosine of the semantic embeddings of completion and target; 0 for a non-item or an item without embedding.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): it must hold its items' embeddings.

    Raises:
        ValueError: it holds none.
    """

    __name__ = "semantic"

    def __init__(self, model):
        if model.catalogue.semantic_embedding is None or not model.catalogue.semantic_embedding.any():
            raise ValueError(
                "the reward 'semantic' compares items by `semantic_embedding`, and the model holds none "
                "(`has_semantic_embedding` is False, or none were set); load one that does, or leave the reward out."
            )
        self.directions = torch.nn.functional.normalize(
            model.catalogue.semantic_embedding.detach().float().cpu(), dim=1
        )

    def __call__(self, completions: list[int], target: list[int], **columns) -> list[float]:
        return (self.directions[completions] * self.directions[target]).sum(1).tolist()


class PrefixReward:
    """Share of the target's codes that a completion has right, counted from the first up to the first wrong one.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): whose codes count.
    """

    __name__ = "prefix"

    def __init__(self, model):
        self.item_tokens = model.catalogue.item_tokens.cpu()

    def __call__(self, completion_ids: list[list[int]], target: list[int], **columns) -> list[float]:
        right = torch.tensor(completion_ids) == self.item_tokens[target]  # [completions, L]
        return right.cumprod(1).float().mean(1).tolist()


class RankReward:
    """What raising or lowering each completion would do for the NDCG of the group, if the group were the list.

    A group's distinct completions are ranked by their log-probability. Of any two, the better one is given and the
    other one loses what a swap of their places would change in NDCG, times how likely the policy is to have them in
    the wrong order (the logistic function of the difference of their log-probabilities): LambdaRank's gradient. So
    what stands high above a hit costs most, what is far below it next to nothing, and a group of equals gets 0.
    Rewards of a group sum to 0, and their size says how much there is to win: with `scale_rewards="none"` they are the
    advantages, and the loss is LambdaRank's.

    Args:
        num_generations (`int`): completions a group.
        relevance (`Callable`, *optional*): another reward, which says how good a completion is; by default
            [`HitReward`], for which only the target is.

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
        copies, first = same.sum(2), same.int().argmax(2)  # how often each stands in its group, and where first
        score = score.gather(1, first)  # one for all copies
        wrong = score.unsqueeze(1) - score.unsqueeze(2)  # [groups, G, G], positive where the other one is above
        rank = 1 + ((wrong > 0) / copies.unsqueeze(1)).masked_fill(same, 0).sum(2).round()
        discount = 1 / torch.log2(rank + 1)
        moved = (discount.unsqueeze(2) - discount.unsqueeze(1)).abs()  # what a swap moves of either
        better = (relevance.unsqueeze(2) - relevance.unsqueeze(1)).clamp(min=0)
        won = better * moved * wrong.sigmoid() / copies.unsqueeze(1) / copies.unsqueeze(2)
        return (won.sum(2) - won.sum(1)).flatten().tolist()


class CollaborativeReward:
    """Log-probability, in nats, that a collaborative model gives a completion after its history.

    A non-item gets what the worst item gets. With `scale_rewards="none"`, `rollout="sample"` and `top_k=0`, the policy
    that training ends at is known, level by level, as TRL weighs the KL divergence by token: a code's probability is
    the starting model's times `exp(r / beta)`, normed, `r` being the mean reward of what follows the code. At the last
    level that is the starting model times the collaborative one to the power of `1 / beta`. So `beta` around 1 makes
    one model of the two; a small one gives up the starting model and the width of its lists.

    Args:
        model (`GPT2LMHeadModel`): over the same item indices, see [`load_collaborative_model`].
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
    """Logarithm of the votes that a completion gets from the last items of its history, as in [`transitions`].

    Counts come from the training sequences, so that a training target has votes of its own sequence too. Like
    [`CollaborativeReward`] it is in nats, and what was said there of `beta` holds here.

    Args:
        data ([`PreparedDataset`]): whose training sequences are counted.
        floor (`float`, *optional*, defaults to 0.01): votes that every item has beside its own, a non-item too; one
            transition that 100 others share has about 0.1.
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
    """Minus an item's popularity: 0 for an item that training never saw, -1 for the most frequent one and a non-item.

    Popularity is the logarithm of 1 + count, beside that of the most frequent item.

    Args:
        item_counts (`np.ndarray` of shape `(n_items + 1,)`): how often each item stands in training; 0 for padding.
    """

    __name__ = "popularity_penalty"

    def __init__(self, item_counts: np.ndarray):
        popularity = np.log1p(item_counts.astype(np.float64)) / max(np.log1p(item_counts.max()), 1e-12)
        self.penalty = -torch.from_numpy(popularity).float()
        self.penalty[0] = -1.0

    def __call__(self, completions: list[int], **columns) -> list[float]:
        return self.penalty[completions].tolist()


WEIGHTS = {"semantic": 0.5}  # by default, the seed's; 1 for others
REWARDS = ("hit", "semantic", "prefix", "rank", "transitions", "collaborative", "popularity_penalty")


def default_weights(names: list[str]) -> list[float]:
    """Returns the weights of rewards that are given none."""
    return [WEIGHTS.get(name, 1.0) for name in names]


def make_reward(
    name: str,
    model,
    data: PreparedDataset,
    num_generations: int,
    collaborative_model: GPT2LMHeadModel | None = None,
) -> Callable:
    """A reward by its name.

    Args:
        name (`str`): one of `REWARDS`.
        model ([`ETEGRecForConditionalGeneration`]): the recommender.
        data ([`PreparedDataset`]): what it is trained on.
        num_generations (`int`): completions a group.
        collaborative_model (`GPT2LMHeadModel`, *optional*): for `"collaborative"`.

    Raises:
        ValueError: an unknown name, or a reward whose needs aren't there.
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
                    "--collaborative`, and name its folder (`--collaborative-model`)."
                )
            return CollaborativeReward(collaborative_model)
        case "popularity_penalty":
            return PopularityPenalty(data.item_counts)
    raise ValueError(f"there is no reward {name!r}; choose among {', '.join(REWARDS)}.")
