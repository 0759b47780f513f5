"""How likely it is that a user takes an item again."""

import torch

from .code_trie import CodeTrie, ItemSets
from .node_term import NodeTerm


class RepeatBias(NodeTerm):
    """A term of [`CodeDistribution`]: what logits gain where a code leads to nothing but items that the user has had.

    Whether users come back to items is a property of a log that a model of codes hardly learns: items like those of a
    history are likely to follow, and nothing is as like them as they are. The bias, one number per level, is learned.

    Args:
        catalogue ([`CodeTrie`]): the items that can be recommended.
        had ([`ItemSets`]): the items of each user's history.
        bias (`torch.FloatTensor` of shape `(code_length,)`): a tenth of what is added to logits of each level, so that
            it gets there at learning rates that suit all other weights.
    """

    def __init__(self, catalogue: CodeTrie, had: ItemSets, bias: torch.FloatTensor):
        self.catalogue, self.had, self.bias = catalogue, had, 10 * bias
        self.n_users = self.had.n_users

    def __call__(self, child: torch.LongTensor, level: int) -> torch.FloatTensor:
        """Returns what is added to the logits of child nodes `[users, *]` of nodes of `level`."""
        return self.had.contain(child, level) * self.bias[level]

    def of_items(self, leaves: torch.LongTensor) -> torch.FloatTensor:
        """Returns by how much the bias changes the log-odds of items, `[users, n]`, given their nodes.

        Below a code that leads to nothing but a history's items all codes do, and what they gain alike changes
        nothing. So one level's bias counts: that of the first level at which an item parts from items that the user
        hasn't had.
        """
        gained, node = torch.zeros_like(leaves, dtype=self.bias.dtype), leaves
        for level in reversed(range(self.catalogue.layout.code_length)):
            gained = torch.where(self.had.contain(node, level), self.bias[level], gained)
            node = self.catalogue.parent(node.clamp(min=1))
        return gained
