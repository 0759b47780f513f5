"""The code trie in numpy, sets of items as nodes of it, and the terms and votes that change codes' probabilities."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]  # of nodes, leaves, items or users
Floats = NDArray[np.float32]
TINY = np.finfo(np.float32).tiny


class Trie:
    """A `CodeTrie` in numpy: nodes are numbered level by level, and children of a node have consecutive numbers.

    Node 0 is the root, and the last nodes are the items. Node -1 means "not in the trie".

    Args:
        keys (array of shape `(nodes - 1,)`): parent times `codebook_size` plus code, of all nodes except the root.
        child_start (array of shape `(inner nodes + 1,)`): first child of each inner node.
        leaf_items (array of shape `(leaves,)`): item indices of the last nodes.
        code_length (`int`): number of codes per item.
        codebook_size (`int`): number of codes per level.
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
        """Returns per level, from the root's on, its first node and the node after its last one."""
        levels = [(0, 1)]
        while levels[-1][1] < self.n_nodes:
            levels.append((levels[-1][1], int(self.child_start[levels[-1][1]])))
        return levels

    def children(self, node: Numbers) -> Numbers:
        """Returns children `[users, beams, m]` of nodes `[users, beams]` of one level; fewer are padded with -1."""
        start = self.child_start[node]
        count = np.where(node < 0, 0, self.child_start[node + 1] - start)
        place = np.arange(max(1, count.max()))
        return np.where(place < count[..., None], start[..., None] + place, -1)

    def ancestors(self, leaf: Numbers) -> list[Numbers]:
        """Returns per level the nodes on the path to leaves, from the first code's level to the leaves themselves."""
        levels = [leaf]
        for _ in range(self.code_length - 1):
            levels.insert(0, self.parent[levels[0]])
        return levels


class NodeSets:
    """A set of items per user, as the nodes of a trie that lead to nothing but these items.

    Args:
        trie ([`Trie`]): the catalogue.
        leaves (array of shape `(users, n)`): leaves of each user's items, possibly repeated; -1 for no item.
        allowed ([`Allowed`], *optional*): the items to which the catalogue is limited; by default all.
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
        """Returns which nodes `[users, *]` lead to items of the user's set only; False for -1."""
        if not len(self.keys):
            return np.zeros(node.shape, bool)
        user = np.arange(len(node)).reshape(-1, *[1] * (node.ndim - 1))
        wanted = user * self.n_nodes + node
        place = np.searchsorted(self.keys, wanted.ravel()).reshape(wanted.shape)
        return (self.keys[np.minimum(place, len(self.keys) - 1)] == wanted) & (node >= 0)


class Allowed:
    """The items that all users choose from.

    Args:
        trie ([`Trie`]): the catalogue.
        items (array of shape `(n,)`): item indices.
    """

    def __init__(self, trie: Trie, items: Numbers):
        self.trie, self.before = trie, np.append(0, np.isin(trie.leaf_items, items).cumsum())

    def count(self, node: Numbers) -> Numbers:
        """Returns how many of the items are below each node, none of which is -1."""
        return self.before[self.trie.leaf_end[node]] - self.before[self.trie.leaf_start[node]]


class Evidence:
    """The log-sum-exp of the logits of all items below a node, which is added to the logit of its code.

    Args:
        trie ([`Trie`]): the catalogue.
        logits (array of shape `(users, leaves)`): logits of all items.
    """

    def __init__(self, trie: Trie, logits: Floats):
        self.trie, self.logits = trie, logits

    def of(self, node: Numbers, child: Numbers) -> Floats:
        """Returns the numbers added for children `[users, beams, m]` of nodes `[users, beams]`; 0 for -1."""
        trie, kept = self.trie, node >= 0
        if not kept.any():
            return np.zeros(child.shape, np.float32)
        starts, counts = trie.leaf_start[node[kept]], (trie.leaf_end - trie.leaf_start)[node[kept]]
        first = np.append(0, counts.cumsum()[:-1])  # start of each node's leaves among those of all nodes
        user = kept.nonzero()[0]
        shift = user * self.logits.shape[1] + starts - first
        values = self.logits.ravel()
        if node.any():  # otherwise all nodes are the root, which has all leaves in order
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
    """Distributions over items given by votes, which are mixed into those of a model level by level.

    Args:
        trie ([`Trie`]): the catalogue.
        leaves (array of shape `(users, n)`): leaves of the items voted for, possibly repeated; any leaf for a share of
            0.
        shares (array of the same shape): share of each vote in its user's votes.
        weight (`float`): share of the votes in the mixture.
    """

    def __init__(self, trie: Trie, leaves: Numbers, shares: Floats, weight: float):
        self.trie, self.shares, self.weight = trie, shares, weight
        self.ways = trie.ancestors(np.where(shares > 0, leaves, trie.first_leaf))

    def mixed(self, log_p: Floats, node: Numbers, level: int) -> Floats:
        """Returns log-probabilities `[users, beams, m]` of child nodes in the mixture of model and votes.

        Args:
            log_p (array of shape `(users, beams, m)`): the model's log-probabilities of the children's prefixes.
            node (array of shape `(users, beams)`): parents of the children, distinct per user, or -1.
            level (`int`): number of codes that lead to the parents.
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
