"""A bias for items that the user has taken before."""

import torch

from .code_trie import CodeTrie, ItemSets
from .node_term import NodeTerm


class RepeatBias(NodeTerm):
    """A term of [`CodeDistribution`], added to the logits of codes that lead only to items of the user's history.

    Whether users take items again is a property of the log that a model of codes hardly learns: it gives high
    probabilities to items like those of the history, and these are most like themselves. The bias is one learned
    number per level.

    Args:
        catalogue ([`CodeTrie`]): the items that can be recommended.
        had ([`ItemSets`]): the items of each user's history.
        bias (`torch.FloatTensor` of shape `(code_length,)`): a tenth of the number added per level. So it learns fast
            enough at learning rates that suit all other weights.
    """

    def __init__(self, catalogue: CodeTrie, had: ItemSets, bias: torch.FloatTensor):
        self.catalogue, self.had, self.bias = catalogue, had, 10 * bias
        self.n_users = self.had.n_users

    def __call__(self, child: torch.LongTensor, level: int) -> torch.FloatTensor:
        """Returns the numbers added to the logits of child nodes `[users, *]` of nodes of `level`."""
        return self.had.contain(child, level) * self.bias[level]

    def of_items(self, leaves: torch.LongTensor) -> torch.FloatTensor:
        """Returns the change of items' log-odds `[users, n]` by the bias, given their nodes.

        Below a code that leads only to items of the history, all codes get the same bias, which changes nothing. So
        only one level's bias counts: that of the first code that the item shares with no item outside the history.
        """
        gained, node = torch.zeros_like(leaves, dtype=self.bias.dtype), leaves
        for level in reversed(range(self.catalogue.layout.code_length)):
            gained = torch.where(self.had.contain(node, level), self.bias[level], gained)
            node = self.catalogue.parent(node.clamp(min=1))
        return gained
