"""The code trie and what is known of its nodes, in numpy: which codes may follow, and what they gain."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]  # of nodes, leaves, items or users
Floats = NDArray[np.float32]
TINY = np.finfo(np.float32).tiny


class Trie:
    """What `CodeTrie` is to a model: nodes by level, the root first and the items last, children side by side.

    Args:
        keys (array of shape `(nodes - 1,)`): parent times `codebook_size` plus code, of all nodes but the root.
        child_start (array of shape `(inner nodes + 1,)`): the first child of each inner node.
        leaf_items (array of shape `(leaves,)`): item indices of the last nodes.
        code_length, codebook_size (`int`): sizes of the codes.
    """

    def __init__(self, keys: Numbers, child_start: Numbers, leaf_items: Numbers, code_length: int, codebook_size: int):
        self.code_length, self.child_start, self.leaf_items = code_length, child_start, leaf_items
        self.n_nodes, self.first_leaf = len(keys) + 1, len(child_start) - 1
        self.code, self.parent = (np.append(0, part) for part in (keys % codebook_size, keys // codebook_size))
        node = np.arange(self.n_nodes)
        self.leaf_start = node - self.first_leaf  # the first of the leaves below each node, counted from 0
        start, end = self.first_leaf, self.n_nodes
        while start:  # level by level, from the items to the root
            start, end = int(self.parent[start]), start
            self.leaf_start[start:end] = self.leaf_start[child_start[start:end]]
        self.leaf_end = self.leaf_start + 1
        for level_start, level_end in self._levels():
            self.leaf_end[level_start : level_end - 1] = self.leaf_start[level_start + 1 : level_end]
            self.leaf_end[level_end - 1] = len(leaf_items)

    def _levels(self) -> list[tuple[int, int]]:
        """Of each level, the root's first, its first node and the one after its last."""
        levels = [(0, 1)]
        while levels[-1][1] < self.n_nodes:
            levels.append((levels[-1][1], int(self.child_start[levels[-1][1]])))
        return levels

    def children(self, node: Numbers) -> Numbers:
        """Returns the children `[users, beams, m]` of nodes `[users, beams]` of one level; -1 where there are none."""
        start = self.child_start[node]
        count = np.where(node < 0, 0, self.child_start[node + 1] - start)
        place = np.arange(max(1, count.max()))
        return np.where(place < count[..., None], start[..., None] + place, -1)

    def ancestors(self, leaf: Numbers) -> list[Numbers]:
        """Returns the nodes on the way to leaves, of each level from the first code's to the leaves' own."""
        levels = [leaf]
        for _ in range(self.code_length - 1):
            levels.insert(0, self.parent[levels[0]])
        return levels


class NodeSets:
    """A set of items per user, as the nodes that lead to nothing but items of the set.

    Args:
        trie ([`Trie`]): of the items.
        leaves (array of shape `(users, n)`): nodes of the items, maybe repeated; -1 is none.
        allowed ([`Allowed`], *optional*): the items that count; by default all.
    """

    def __init__(self, trie: Trie, leaves: Numbers, allowed: "Allowed | None" = None):
        self.n_nodes = trie.n_nodes
        user, place = (leaves >= 0).nonzero()
        if not len(user):
            self.keys = user
            return
        keys = np.unique(user * trie.n_nodes + leaves[user, place])
        node = keys % trie.n_nodes
        if allowed is not None:
            counts = allowed.count(node) > 0
            keys, node = keys[counts], node[counts]
        of_user, full = keys - node, []
        for level in trie.ancestors(node):
            above, count = np.unique(of_user + level, return_counts=True)
            whole = above % trie.n_nodes
            total = trie.leaf_end[whole] - trie.leaf_start[whole] if allowed is None else allowed.count(whole)
            full.append(above[count == total])
        self.keys = np.sort(np.concatenate(full))

    def contain(self, node: Numbers) -> NDArray[np.bool_]:
        """Returns which nodes `[users, *]` lead to nothing but their user's set; not -1."""
        if not len(self.keys):
            return np.zeros(node.shape, bool)
        user = np.arange(len(node)).reshape(-1, *[1] * (node.ndim - 1))
        wanted = user * self.n_nodes + node
        place = np.searchsorted(self.keys, wanted.ravel()).reshape(wanted.shape)
        return (self.keys[np.minimum(place, len(self.keys) - 1)] == wanted) & (node >= 0)


class Allowed:
    """The items that all users choose from.

    Args:
        trie ([`Trie`]): of the catalogue.
        items (array of shape `(n,)`): item indices.
    """

    def __init__(self, trie: Trie, items: Numbers):
        self.trie, self.before = trie, np.append(0, np.isin(trie.leaf_items, items).cumsum())

    def count(self, node: Numbers) -> Numbers:
        """Returns how many of the items are below each node, none of which is -1."""
        return self.before[self.trie.leaf_end[node]] - self.before[self.trie.leaf_start[node]]


class Evidence:
    """What codes gain by the logits of the items below them: the log-sum-exp of these.

    Args:
        trie ([`Trie`]): of the items.
        logits (array of shape `(users, leaves)`): of all items.
    """

    def __init__(self, trie: Trie, logits: Floats):
        self.trie, self.logits = trie, logits

    def of(self, node: Numbers, child: Numbers) -> Floats:
        """Returns the numbers of children `[users, beams, m]` of nodes `[users, beams]`; 0 for -1."""
        trie, kept = self.trie, node >= 0
        if not kept.any():
            return np.zeros(child.shape, np.float32)
        starts, counts = trie.leaf_start[node[kept]], (trie.leaf_end - trie.leaf_start)[node[kept]]
        first = np.append(0, counts.cumsum()[:-1])  # where each node's leaves start among those of all nodes
        user = kept.nonzero()[0]
        shift = user * self.logits.shape[1] + starts - first
        values = self.logits.ravel()
        if node.any():  # otherwise all are the root, below which all leaves are in their order
            values = values[np.arange(counts.sum()) + np.repeat(shift, counts)]
        top = np.maximum.reduceat(values, first)
        values = np.exp(values - np.repeat(top, counts))
        exists = child >= 0
        n_children = exists[kept].sum(1)
        of_child = trie.leaf_start[child[exists]] + np.repeat(first - starts, n_children)
        numbers = np.zeros(child.shape, np.float32)
        numbers[exists] = np.log(np.maximum(np.add.reduceat(values, of_child), TINY)) + np.repeat(top, n_children)
        return numbers


class Votes:
    """Distributions over items by votes, which are mixed into those of the model.

    Args:
        trie ([`Trie`]): of the items.
        leaves (array of shape `(users, n)`): nodes of the items voted for, maybe repeated; any where a share is 0.
        shares (array of the same shape): of each vote.
        weight (`float`): share of the votes in the mixture.
    """

    def __init__(self, trie: Trie, leaves: Numbers, shares: Floats, weight: float):
        self.trie, self.shares, self.weight = trie, shares, weight
        self.ways = trie.ancestors(np.where(shares > 0, leaves, trie.first_leaf))

    def mixed(self, log_p: Floats, node: Numbers, level: int) -> Floats:
        """Returns log-probabilities in the mixture.

        Args:
            log_p (array of shape `(users, beams, m)`): the model's, of whole prefixes.
            node (array of shape `(users, beams)`): their parents, distinct, or -1.
            level (`int`): how many codes lead to these.
        """
        child = self.ways[level]
        parent = self.trie.parent[child]
        is_on_way = parent[:, :, None] == node[:, None, :]  # [users, n, beams]
        votes = self.shares * is_on_way.any(2)
        slot = is_on_way.argmax(2) * log_p.shape[2] + child - self.trie.child_start[parent]
        slot += np.arange(len(node))[:, None] * log_p[0].size
        slot, votes = slot[votes > 0], votes[votes > 0]
        share = np.bincount(slot, votes, minlength=log_p.size).reshape(log_p.shape)
        with np.errstate(divide="ignore"):
            mixed = np.logaddexp(log_p + np.log1p(-self.weight), np.log(self.weight * share))
        return mixed.astype(np.float32)
