"""What a model adds to the logits of codes."""

import torch


class NodeTerm:
    """A number per node and user, which the logit of the code that leads there gains; see [`CodeDistribution`].

    A term of its own overrides `__call__`, and what else it knows better than this class.
    """

    n_users: int

    def __call__(self, child: torch.LongTensor, level: int) -> torch.FloatTensor:
        """Returns the numbers of child nodes `[users, n, m]`, children of one node each of `level`; any for -1."""
        raise NotImplementedError

    def along(self, children: list[torch.LongTensor]) -> list[torch.FloatTensor]:
        """Returns the numbers of all children `[users, n, m]` of the nodes on the way to an item each, by level."""
        return [self(child, level) for level, child in enumerate(children)]

    def of_items(self, leaves: torch.LongTensor) -> torch.FloatTensor:
        """Returns by how much having had them changes the log-odds of items, `[users, n]`, given their nodes."""
        return torch.zeros_like(leaves, dtype=torch.float32)
