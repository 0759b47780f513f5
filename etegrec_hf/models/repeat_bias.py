"""How likely it is that a user takes an item again."""

import torch

from .code_trie import CodeTrie, ExcludedItems


class RepeatBias:
    """What a batch's logits gain where a code leads to nothing but items that its user has had.

    Whether users come back to items is a property of a log that a model of codes hardly learns: items like those of a
    history are likely to follow, and nothing is as like them as they are. The bias, a number a level, is learned.

    Args:
        catalogue ([`CodeTrie`]): the items that can be recommended.
        leaves (`torch.LongTensor` of shape `(rows, n)`): nodes of the items of each row's history; -1 is none.
        bias (`torch.FloatTensor` of shape `(code_length,)`): a tenth of what is added to logits of each level, so that
            it gets there at learning rates that suit all other weights.
    """

    def __init__(self, catalogue: CodeTrie, leaves: torch.LongTensor, bias: torch.FloatTensor):
        self.catalogue, self.had, self.bias = catalogue, ExcludedItems(catalogue, leaves), 10 * bias

    def biased(self, logits: torch.Tensor, node: torch.LongTensor, level: int) -> torch.Tensor:
        """Logits `[rows, *, codebook_size]` of the codes behind nodes `[rows, *]` of `level`, with the bias added."""
        codes, child = self.catalogue.successors(node, level)
        again = self.had.contain(child, level)
        return logits.scatter_add(-1, codes, (again * self.bias[level]).to(logits.dtype))

    def of_items(self, leaves: torch.LongTensor) -> torch.FloatTensor:
        """By how much the bias changes the log-odds of items, `[rows, n]`, given their nodes in `catalogue`.

        Below a code that leads to nothing but a history's items all codes do, and what they gain alike changes
        nothing: one level's bias counts, the first one's at which an item parts from items that the user hasn't had.
        """
        gained, node = torch.zeros_like(leaves, dtype=self.bias.dtype), leaves
        for level in reversed(range(self.catalogue.code_length)):
            gained = torch.where(self.had.contain(node, level), self.bias[level], gained)
            node = self.catalogue.parent(node.clamp(min=1))
        return gained
