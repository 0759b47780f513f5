"""The interface of terms, which a model adds to the logits of codes."""

import torch


class NodeTerm:
    """A number per trie node and user that is added to the logit of the code leading there; see [`CodeDistribution`].

    Subclasses override `__call__`. They may override the other methods if they can compute them faster.
    """

    n_users: int

    def __call__(self, child: torch.LongTensor, level: int) -> torch.FloatTensor:
        """Returns the numbers of child nodes `[users, n, m]` of `n` nodes of `level`; any number for node -1."""
        raise NotImplementedError

    def along(self, children: list[torch.LongTensor]) -> list[torch.FloatTensor]:
        """Returns the numbers per level, given the children `[users, n, m]` of the nodes on the path to `n` items."""
        return [self(child, level) for level, child in enumerate(children)]

    def of_items(self, leaves: torch.LongTensor) -> torch.FloatTensor:
        """Returns the change of items' log-odds `[users, n]` by being in the history, given their nodes."""
        return torch.zeros_like(leaves, dtype=torch.float32)
