"""What a recommender remembers of its training log as it was: which items came next to which."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from .code_trie import CodeTrie, ItemSets
from .configuration_etegrec import ETEGRecConfig

RECENT, DECAY = 10, 0.7  # items of a history that vote, and what each vote weighs against the next newer one


def recent_items(
    history: torch.LongTensor, dtype: torch.dtype = torch.float32
) -> tuple[torch.LongTensor, torch.Tensor]:
    """Returns the last 10 items of histories, newest first, and what each one's vote weighs.

    Args:
        history (`torch.LongTensor` of shape `(batch, items)`): item indices, oldest first; 0 is padding, anywhere.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): of the weights.

    Returns:
        item indices and weights, both `(batch, min(10, items))`: 1 for the newest item, 0.7 times as much for each one
        before; 0 on padding.
    """
    is_item = history > 0
    newer = is_item.flip(1).cumsum(1).flip(1) - is_item.long()  # items after each
    count = min(RECENT, history.shape[1])
    newer, place = newer.masked_fill(~is_item, history.shape[1]).topk(count, dim=1, largest=False)
    items = history.gather(1, place)
    return items, DECAY ** newer.to(dtype) * (items > 0)


class PairGains(nn.Module):
    """What the logit of each kept transition's item gains after an item, learned pair by pair.

    Products of vectors learn what many items have in common first, and a follower of one item alone last: each such
    pair is a direction of its own, and a weak one. A number per pair learns it as fast as anything else. Numbers start
    at 0 and are stored as a fiftieth of their effect.

    Args:
        config ([`ETEGRecConfig`]): sizes.

    Source: a table that memorises pairs beside vectors that generalise is the wide part of Wide & Deep (Cheng et al.,
    2016).
    """

    SCALE = 50.0

    def __init__(self, config: ETEGRecConfig):
        super().__init__()
        self.of_pairs = nn.Parameter(torch.zeros(config.n_items + 1, config.num_transitions))
        self.recency = nn.Parameter(torch.zeros(config.recent_items))  # what the newest item's gains count, and so on

    def forward(self, recent: torch.LongTensor) -> torch.FloatTensor:
        """Returns the gains `[users, newest, num_transitions]` of the newest items `[users, newest]`, newest first."""
        gains = self.SCALE * F.embedding(recent, self.of_pairs)
        return gains * self.recency[: recent.shape[1]].unsqueeze(1)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Lets no pair gain anything at first."""
        init.zeros_(self.of_pairs)
        init.copy_(self.recency, DECAY ** torch.arange(len(self.recency)))

    @torch.no_grad()
    def follow(self, before: torch.LongTensor, now: torch.LongTensor) -> None:
        """Keeps the gains of pairs that stay, where the table of transitions `[n_items + 1, n]` becomes another."""
        ordered, order = before.sort(dim=1)
        place = torch.searchsorted(ordered, now).clamp(max=before.shape[1] - 1)
        stays = (ordered.gather(1, place) == now) & (now > 0)
        self.of_pairs.copy_(self.of_pairs.gather(1, order.gather(1, place)) * stays)

    def add_items(self, count: int) -> None:
        """Makes room for items that join, after which nothing gains."""
        weight = self.of_pairs.detach()
        with torch.inference_mode(False):
            longer = torch.cat([weight, weight.new_zeros(count, weight.shape[1])])
            self.of_pairs = nn.Parameter(longer, requires_grad=self.of_pairs.requires_grad)


class ItemTransitions(nn.Module):
    """A table of the items that came next to each item, by which a history's items vote for others.

    A model of codes learns what follows items like those of a history; what followed these very items, maybe a few
    times in all of a log, is known exactly only to counts.

    Args:
        config ([`ETEGRecConfig`]): sizes.
    """

    items: torch.Tensor  # [n_items + 1, num_transitions] int32, 0 on padding and in unused places
    weights: torch.Tensor  # of the same shape

    def __init__(self, config: ETEGRecConfig):
        super().__init__()
        shape = (config.n_items + 1, config.num_transitions)
        self.register_buffer("items", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(shape))
        self.gains = PairGains(config) if config.learns_transitions else None
        self._are_known = False

    def forward(self, history: torch.LongTensor) -> tuple[torch.LongTensor, torch.FloatTensor]:
        """What the last 10 items of histories vote for, and how much.

        The newest item's votes are its weights, those of each one before it 0.7 times as much, and all are divided by
        their sum.

        Args:
            history (`torch.LongTensor` of shape `(batch, items)`): item indices, 0 on padding, wherever it stands.

        Returns:
            item indices, maybe repeated, and their votes, both `[batch, min(10, items) * num_transitions]`; all votes
            of a history whose items came next to none are 0.
        """
        voting, decay = recent_items(history)  # padding votes for nothing
        votes = (self.weights[voting].float() * decay.unsqueeze(2)).flatten(1)
        return self.items[voting].flatten(1).long(), votes / votes.sum(1, keepdim=True).clamp(min=1e-30)

    @property
    def are_known(self) -> bool:
        """Whether the table holds any; looked at again at each call only as long as it doesn't."""
        self._are_known = self._are_known or bool(self.weights.any())
        return self._are_known

    def add_gains(self, logits: torch.FloatTensor, recent: torch.LongTensor, trie: CodeTrie) -> torch.FloatTensor:
        """Returns logits of items with what they gain by learned transitions.

        Args:
            logits (`torch.FloatTensor` of shape `(items, users)`): of the trie's leaves, in their order.
            recent (`torch.LongTensor` of shape `(users, newest)`): the newest items, newest first; 0 where there are
                fewer.
            trie ([`CodeTrie`]): the items that have logits.
        """
        if self.gains is None:
            return logits
        leaves = trie.leaf(self.items[recent].flatten(1).long())  # [users, newest * num_transitions]
        gains = self.gains(recent).flatten(1).to(logits.dtype).masked_fill(leaves < 0, 0)
        rows = (leaves - len(trie.inner_counts)).clamp(min=0)
        return logits.scatter_add(0, rows.T, gains.T)

    def store(self, items: torch.LongTensor, weights: torch.FloatTensor) -> None:
        """Writes the rows of all items, `[n_items, num_transitions]`."""
        if self.gains is not None:
            self.gains.follow(self.items, F.pad(items.to(self.items), (0, 0, 1, 0)))
        self.items[1:], self.weights[1:] = items.to(self.items), weights
        self._are_known = False

    def add_items(self, count: int) -> None:
        """Makes room for items that join, which came next to none."""
        if self.gains is not None:
            self.gains.add_items(count)
        with torch.inference_mode(False):
            self.items = torch.cat([self.items, self.items.new_zeros(count, self.items.shape[1])])
            self.weights = torch.cat([self.weights, self.weights.new_zeros(count, self.weights.shape[1])])


class TransitionVotes:
    """A batch's distributions over items by votes, to be mixed into those of a model, level by level.

    Args:
        trie ([`CodeTrie`]): the items that may be returned.
        leaves (`torch.LongTensor` of shape `(users, n)`): nodes of the items voted for, maybe repeated; -1 is none.
        votes (`torch.FloatTensor` of the same shape): the share of each; a user's sum to 1 at most. Those for -1 and
            for excluded items are lost.
        weight (`float`): share of the votes in the mixture; the model keeps the rest.
        excluded ([`ItemSets`], *optional*): items that single users must not get.
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
        self.steps: list[tuple[torch.Tensor, torch.Tensor]] = []  # a level: a node on each vote's way [users, n], and
        node = leaves  # which one of its children, counted from 0, the way goes on to [users, n]
        for _ in range(trie.layout.code_length):
            child = node.masked_fill(lost, 1)
            node = trie.parent(child)
            self.steps.insert(0, (node, child - trie.child_start[node]))

    def mixed(self, log_p: torch.FloatTensor, node: torch.LongTensor, level: int) -> torch.FloatTensor:
        """Log-probabilities `[users, beams, m]` in the mixture of the children of nodes of `level`.

        Args:
            log_p (`torch.FloatTensor` of shape `(users, beams, m)`): the model's, of whole prefixes, in the order of
                `trie.successors`.
            node (`torch.LongTensor` of shape `(users, beams)`): their parents, distinct, or -1.
            level (`int`): how many codes lead to these.
        """
        parent, child = self.steps[level]
        on_beam, order = node.sort(dim=1)
        place = torch.searchsorted(on_beam, parent).clamp(max=node.shape[1] - 1)
        votes = self.votes * (on_beam.gather(1, place) == parent)
        slot = order.gather(1, place) * log_p.shape[2] + child
        share = torch.zeros_like(log_p).flatten(1).scatter_add_(1, slot, votes).view_as(log_p)
        return torch.logaddexp(log_p + math.log1p(-self.weight), (self.weight * share).log())
