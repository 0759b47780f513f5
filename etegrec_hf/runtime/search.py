"""The beam search of `recommend` over two exported networks, in numpy."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .folder import SearchTables
from .trie import TINY, Allowed, Evidence, Floats, NodeSets, Numbers, Votes

RECENT, DECAY = 10, 0.7  # as in models/item_transitions.py
STATE = ("cross", "keys", "values", "start", "next")  # beginnings of the names of inputs of a step


class Network(Protocol):
    """The two networks of an export. Outputs that the search only passes on, such as caches, may be of any type."""

    def read(self, items: Numbers) -> dict:
        """Returns the outputs of `HistoryGraph` for item indices `[users, items]`."""

    def step(self, tokens: Numbers, back: Numbers, level: Numbers, known: dict) -> dict:
        """Returns the outputs of `StepGraph`, with its arguments."""


@dataclass(frozen=True)
class Weights:
    """The settings of a search, with the names of `SearchSettings`."""

    num_beams: int
    rerank_weight: float
    transition_weight: float


@dataclass(frozen=True, eq=False)
class Users:
    """The users of one batch.

    Args:
        items (array of shape `(users, items)`): item indices of the histories as far as they are read, oldest first,
            then 0.
        excluded (array of shape `(users, n)`): item indices that each user must not get; 0 for no item.
        allowed ([`Allowed`], *optional*): items to choose from.
    """

    items: Numbers
    excluded: Numbers
    allowed: Allowed | None = None


def beam_search(network: Network, tables: SearchTables, users: Users, weights: Weights) -> tuple[Numbers, Floats]:
    """Returns item indices and scores `[users, found]`, best first; shorter lists are padded with 0 and -inf."""
    trie, known = tables.trie, network.read(users.items)
    distribution = Distribution(tables, users, weights.transition_weight, known)
    log_p: Floats = np.zeros((len(users.items), 1), np.float32)
    node: Numbers = np.zeros(log_p.shape, np.int64)
    steps = Ancestors(len(users.items), trie.code_length)
    logits = known["log_p"]
    for level in range(trie.code_length):
        child, gained = distribution.steps(logits, node, level)  # [users, beams, m]
        prefixes = log_p[:, :, None] + gained
        ranks = distribution.mixed(prefixes, node, level)
        rank, best = largest(ranks.reshape(len(node), -1), weights.num_beams)
        parent = best // child.shape[2]
        log_p = np.take_along_axis(prefixes.reshape(len(node), -1), best, 1)
        node = np.take_along_axis(child.reshape(len(node), -1), best, 1)
        if level + 1 < trie.code_length:
            tokens = 1 + level * tables.codebook_size + trie.code[node]
            made = network.step(tokens, steps.back(parent), np.array([level + 1]), known)
            logits, known = made["log_p"], known | {name.removeprefix("next_"): part for name, part in made.items()}
    found = np.where(node < 0, 0, trie.leaf_items[np.maximum(node - trie.first_leaf, 0)])
    if weights.rerank_weight:
        rank = rank + weights.rerank_weight * tables.cosines(known["preference"], found)
        order = np.argsort(-rank, axis=1, kind="stable")
        found, rank = np.take_along_axis(found, order, 1), np.take_along_axis(rank, order, 1)
    return found, rank


class Distribution:
    """The distribution of the codes that may follow, as in `CodeDistribution`.

    Args:
        tables ([`SearchTables`]): tables of the model.
        users ([`Users`]): the users of the batch.
        transition_weight (`float`): share of transition votes.
        known (`dict`): outputs of `HistoryGraph` for the users' histories.
    """

    def __init__(self, tables: SearchTables, users: Users, transition_weight: float, known: dict):
        self.tables, self.trie, self.allowed = tables, tables.trie, users.allowed
        leaves = tables.leaf_of_item[users.excluded]
        self.excluded = NodeSets(self.trie, leaves, users.allowed) if (leaves >= 0).any() else None
        asks_for_items = tables.repeat_bias is not None or tables.repeats is not None
        self.had = NodeSets(self.trie, tables.leaf_of_item[users.items if asks_for_items else users.items[:, :0]])
        self.evidence = None if tables.repeats is None else self._evidence(known["item_logits"], tables.repeats)
        self.votes = self._votes(users.items, transition_weight) if transition_weight else None

    def _evidence(self, logits: Floats, repeats: Floats) -> Evidence:
        """Returns item logits, with the learned number added for items of the histories."""
        user, node = np.divmod(self.had.keys, self.trie.n_nodes)
        leaf = node - self.trie.first_leaf
        logits = logits.copy()
        logits[user[leaf >= 0], leaf[leaf >= 0]] += repeats
        return Evidence(self.trie, logits)

    def _votes(self, history: Numbers, weight: float) -> Votes:
        tables = self.tables
        assert tables.transition_items is not None
        assert tables.transition_weights is not None
        is_item = history > 0
        back = is_item.sum(1, keepdims=True) - 1 - np.arange(min(RECENT, history.shape[1]))
        voting = np.take_along_axis(history, np.maximum(back, 0), 1) * (back >= 0)
        decay = DECAY ** np.arange(voting.shape[1], dtype=np.float32)
        shares = (tables.transition_weights[voting] * decay[:, None]).reshape(len(history), -1)
        shares = shares / np.maximum(shares.sum(1, keepdims=True), 1e-30)
        leaves = tables.leaf_of_item[tables.transition_items[voting]].reshape(shares.shape)
        gained = self._gained(leaves)
        shares = np.where(leaves < 0, 0, shares * np.minimum(np.exp(gained), 1))
        if self.allowed is not None:
            shares = shares * (self.allowed.count(leaves) > 0)
        if self.excluded is not None:
            shares = shares * ~self.excluded.contain(leaves)
        return Votes(self.trie, leaves, shares.astype(np.float32), weight)

    def _gained(self, leaves: Numbers) -> Floats:
        """Returns the change of items' log-odds `[users, n]` by being in the history, given their leaves."""
        gained = np.zeros(leaves.shape, np.float32)
        if self.tables.repeat_bias is not None:  # the first level from which only items of the history follow
            for level, node in reversed(list(enumerate(self.trie.ancestors(leaves)))):
                gained = np.where(self.had.contain(node), self.tables.repeat_bias[level], gained)
        if self.tables.repeats is not None:
            gained = gained + self.tables.repeats * self.had.contain(leaves)
        return gained

    def steps(self, logits: Floats, node: Numbers, level: int) -> tuple[Numbers, Floats]:
        """Returns children `[users, beams, m]` of nodes `[users, beams]`, and their log-probabilities.

        `logits` `[users, beams, K]` are log-probabilities of all codes. Children that lead to no item that may be
        returned are replaced by -1, with log-probability -inf.
        """
        child = alive = self.trie.children(node)
        scores = np.take_along_axis(logits, self.trie.code[child], 2)
        if self.tables.repeat_bias is not None:
            scores = scores + self.had.contain(child) * self.tables.repeat_bias[level]
        if self.evidence is not None:
            scores = scores + self.evidence.of(node, child)
        if self.tables.is_constrained:
            scores = log_softmax(np.where(child < 0, -np.inf, scores))
        if self.allowed is not None:
            alive = np.where((child >= 0) & (self.allowed.count(child) > 0), child, -1)
        if self.excluded is not None:
            alive = np.where(self.excluded.contain(alive), -1, alive)
        return alive, np.where(alive < 0, -np.inf, scores)

    def mixed(self, log_p: Floats, node: Numbers, level: int) -> Floats:
        """Returns log-probabilities of prefixes, with the votes mixed in; arguments as in [`Votes.mixed`]."""
        return log_p if self.votes is None else self.votes.mixed(log_p, node, level)


class Ancestors:
    """The ancestors of each beam among the beams of all steps so far.

    Args:
        users (`int`): number of users.
        code_length (`int`): number of codes per item, which marks beams that aren't ancestors.
    """

    def __init__(self, users: int, code_length: int):
        self.none = code_length
        self.own = [np.zeros((users, 1), np.int64)]  # per step: the ancestor of each beam among the step's beams
        self.widths = [1]

    def back(self, parent: Numbers) -> Numbers:
        """Adds a step with parents `[users, beams]`, and returns `back` `[users, beams, n]`, see [`StepGraph`]."""
        users, beams = parent.shape
        self.own = [np.take_along_axis(own, parent, 1) for own in self.own]
        self.own.append(np.broadcast_to(np.arange(beams), parent.shape))
        starts = np.append(0, np.cumsum(self.widths))
        self.widths.append(beams)
        back = np.full((users, beams, sum(self.widths)), self.none)
        place = np.stack(self.own, axis=2) + starts  # [users, beams, steps]
        np.put_along_axis(back, place, np.arange(len(starts))[::-1], axis=2)
        return back


def largest(ranks: Floats, count: int) -> tuple[Floats, Numbers]:
    """Returns the `count` largest values per row and their columns, largest first; all values of shorter rows."""
    best = np.argpartition(-ranks, count - 1, axis=1)[:, :count] if count < ranks.shape[1] else None
    chosen = ranks if best is None else np.take_along_axis(ranks, best, 1)
    order = np.argsort(-chosen, axis=1, kind="stable")
    best = order if best is None else np.take_along_axis(best, order, 1)
    return np.take_along_axis(chosen, order, 1), best


def log_softmax(scores: Floats) -> Floats:
    """Returns the logarithm of the softmax over the last dimension; rows that hold only -inf stay as they are."""
    shifted = scores - np.maximum(scores.max(-1, keepdims=True), np.finfo(np.float32).min)
    return shifted - np.log(np.maximum(np.exp(shifted).sum(-1, keepdims=True), TINY))
