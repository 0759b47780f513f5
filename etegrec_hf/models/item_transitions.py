"""Transitions of a training log: the items that came next to each item, and how strongly they count."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from .code_trie import CodeTrie, ItemSets
from .configuration_etegrec import ETEGRecConfig
from .histories import newest_items

RECENT, DECAY = 10, 0.7  # number of a history's items that vote, and factor per item back from the newest


def recent_items(
    history: torch.LongTensor, dtype: torch.dtype = torch.float32
) -> tuple[torch.LongTensor, torch.Tensor]:
    """Returns the last 10 items of histories, newest first, and the weight of each item's vote.

    Args:
        history (`torch.LongTensor` of shape `(batch, items)`): item indices, oldest first, padded anywhere with 0.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): dtype of the weights.

    Returns:
        item indices and weights, both of shape `(batch, min(10, items))`. The newest item has weight 1, each earlier
        item 0.7 times the weight of the next, and padding weight 0.
    """
    items = newest_items(history, min(RECENT, history.shape[1]))
    weights = DECAY ** torch.arange(items.shape[1], dtype=dtype, device=items.device)
    return items, weights * (items > 0)


class PairGains(nn.Module):
    """A learned number per kept transition, which is added to the item logit of the item that came next.

    Products of vectors first learn what many items have in common. What follows one item alone they learn last, as
    each such pair is a weak direction of its own. One number per pair learns it as fast as anything else. The numbers
    start at 0 and are stored as a fiftieth of their effect.

    Args:
        config ([`ETEGRecConfig`]): the model's configuration.

    Source: Wide & Deep (Cheng et al., 2016), whose wide part memorises pairs while vectors generalise.
    """

    SCALE = 50.0

    def __init__(self, config: ETEGRecConfig):
        super().__init__()
        self.of_pairs = nn.Parameter(torch.zeros(config.n_items + 1, config.num_transitions))
        self.recency = nn.Parameter(torch.zeros(config.recent_items))  # weight of each recent item's gains

    def forward(self, recent: torch.LongTensor) -> torch.FloatTensor:
        """Returns the added numbers `[users, recent_items, num_transitions]` of items `[users, recent_items]`."""
        gains = self.SCALE * F.embedding(recent, self.of_pairs)
        return gains * self.recency.unsqueeze(1)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Sets the numbers of all pairs to 0."""
        init.zeros_(self.of_pairs)
        init.copy_(self.recency, DECAY ** torch.arange(len(self.recency)))

    @torch.no_grad()
    def follow(self, before: torch.LongTensor, now: torch.LongTensor) -> None:
        """Moves the numbers of pairs that stay when the table `[n_items + 1, n]` of transitions is replaced.

        `before` is the old table, `now` the new one. New pairs start at 0.
        """
        ordered, order = before.sort(dim=1)
        place = torch.searchsorted(ordered, now).clamp(max=before.shape[1] - 1)
        stays = (ordered.gather(1, place) == now) & (now > 0)
        self.of_pairs.copy_(self.of_pairs.gather(1, order.gather(1, place)) * stays)

    def add_items(self, count: int) -> None:
        """Appends `count` items without transitions, whose numbers are 0."""
        weight = self.of_pairs.detach()
        with torch.inference_mode(False):
            longer = torch.cat([weight, weight.new_zeros(count, weight.shape[1])])
            self.of_pairs = nn.Parameter(longer, requires_grad=self.of_pairs.requires_grad)


class ItemTransitions(nn.Module):
    """A table of the items that came next to each item; with it, a history's items vote for their successors.

    A model of codes learns what follows items like those of a history. Only counts know exactly what followed these
    very items, which may have happened a few times in the whole log.

    Args:
        config ([`ETEGRecConfig`]): the model's configuration.
    """

    items: torch.Tensor  # [n_items + 1, num_transitions] int32, rows padded with 0
    weights: torch.Tensor  # of the same shape

    def __init__(self, config: ETEGRecConfig):
        super().__init__()
        shape = (config.n_items + 1, config.num_transitions)
        self.register_buffer("items", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(shape))
        self.gains = PairGains(config) if config.learns_transitions else None
        self._are_known = False

    def forward(self, history: torch.LongTensor) -> tuple[torch.LongTensor, torch.FloatTensor]:
        """Returns the items that the last 10 items of histories vote for, and the votes.

        The newest item votes with the weights of its transitions, each earlier item with 0.7 times the factor of the
        next. Votes are divided by their sum.

        Args:
            history (`torch.LongTensor` of shape `(batch, items)`): item indices, padded anywhere with 0.

        Returns:
            item indices, possibly repeated, and their votes, both of shape
            `(batch, min(10, items) * num_transitions)`. If no item of a history has transitions, all its votes are 0.
        """
        voting, decay = recent_items(history)  # padding votes for nothing
        votes = (self.weights[voting].float() * decay.unsqueeze(2)).flatten(1)
        return self.items[voting].flatten(1).long(), votes / votes.sum(1, keepdim=True).clamp(min=1e-30)

    @property
    def are_known(self) -> bool:
        """Whether the table holds any transition; the table is searched only until one is found."""
        self._are_known = self._are_known or bool(self.weights.any())
        return self._are_known

    def add_gains(self, logits: torch.FloatTensor, recent: torch.LongTensor, trie: CodeTrie) -> torch.FloatTensor:
        """Returns item logits with the learned numbers of transitions added.

        Args:
            logits (`torch.FloatTensor` of shape `(items, users)`): item logits, in the order of the trie's leaves.
            recent (`torch.LongTensor` of shape `(users, newest)`): the newest items, newest first; shorter rows are
                padded with 0. The first `recent_items` of them count.
            trie ([`CodeTrie`]): the items that have logits.
        """
        if self.gains is None:
            return logits
        recent = recent[:, : len(self.gains.recency)]
        leaves = trie.leaf(self.items[recent].flatten(1).long())  # [users, recent_items * num_transitions]
        gains = self.gains(recent).flatten(1).to(logits.dtype).masked_fill(leaves < 0, 0)
        rows = (leaves - len(trie.inner_counts)).clamp(min=0)
        return logits.scatter_add(0, rows.T, gains.T)

    def store(self, items: torch.LongTensor, weights: torch.FloatTensor) -> None:
        """Stores the transitions of all items, `[n_items, num_transitions]`."""
        if self.gains is not None:
            self.gains.follow(self.items, F.pad(items.to(self.items), (0, 0, 1, 0)))
        self.items[1:], self.weights[1:] = items.to(self.items), weights
        self._are_known = False

    def add_items(self, count: int) -> None:
        """Appends `count` items without transitions."""
        if self.gains is not None:
            self.gains.add_items(count)
        with torch.inference_mode(False):
            self.items = torch.cat([self.items, self.items.new_zeros(count, self.items.shape[1])])
            self.weights = torch.cat([self.weights, self.weights.new_zeros(count, self.weights.shape[1])])


class TransitionVotes:
    """Distributions over items given by votes, which are mixed into those of a model level by level.

    Args:
        trie ([`CodeTrie`]): the items that may be returned.
        leaves (`torch.LongTensor` of shape `(users, n)`): nodes of the items voted for, possibly repeated; -1 for no
            item.
        votes (`torch.FloatTensor` of the same shape): votes for these items; a user's votes sum to 1 at most. Votes
            for node -1 and for excluded items are dropped.
        weight (`float`): share of the votes in the mixture; the model's share is the rest.
        excluded ([`ItemSets`], *optional*): items that each user must not get.
    """

    def __init__(
        self,
        trie: CodeTrie,
        leaves: torch.LongTensor,
        votes: torch.FloatTensor,
        weight: float,
        excluded: ItemSets | None = None,
    ):
        self.weight = weight
        lost = leaves < 0
        if excluded is not None:
            lost = lost | excluded.contain(leaves, trie.layout.code_length - 1)
        self.votes = votes.float().masked_fill(lost, 0)  # [users, n]
        # per level: the node on the path to each item voted for, and the number of its child on that path [users, n]
        self.steps: list[tuple[torch.Tensor, torch.Tensor]] = []
        node = leaves
        for _ in range(trie.layout.code_length):
            child = node.masked_fill(lost, 1)
            node = trie.parent(child)
            self.steps.insert(0, (node, child - trie.child_start[node]))

    def mixed(self, log_p: torch.FloatTensor, node: torch.LongTensor, level: int) -> torch.FloatTensor:
        """Returns log-probabilities `[users, beams, m]` of child nodes in the mixture of model and votes.

        Args:
            log_p (`torch.FloatTensor` of shape `(users, beams, m)`): the model's log-probabilities of whole prefixes,
                in the order of `trie.successors`.
            node (`torch.LongTensor` of shape `(users, beams)`): parents of these prefixes, all different, or -1.
            level (`int`): number of codes that lead to the parents.
        """
        parent, child = self.steps[level]
        on_beam, order = node.sort(dim=1)
        place = torch.searchsorted(on_beam, parent).clamp(max=node.shape[1] - 1)
        votes = self.votes * (on_beam.gather(1, place) == parent)
        slot = order.gather(1, place) * log_p.shape[2] + child
        share = torch.zeros_like(log_p).flatten(1).scatter_add_(1, slot, votes).view_as(log_p)
        return torch.logaddexp(log_p + math.log1p(-self.weight), (self.weight * share).log())
