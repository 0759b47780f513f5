"""Logits of whole items, and what they say about codes."""

import torch
from torch import nn
from transformers import initialization as init

from .code_trie import CodeTrie, ItemSets
from .configuration_etegrec import ETEGRecConfig
from .item_inputs import directions_of


class ItemLogits(nn.Module):
    """Scores all items by the encoder's state at the last item.

    Evidence for one item, as "this came after that", gets lost among the items that share its first code. So each item
    has an output vector too: the one of its own that the encoder reads, and another projection of its semantic
    embedding. An item that joins later is scored by the latter alone.

    Args:
        config ([`ETEGRecConfig`]): sizes.
    """

    def __init__(self, config: ETEGRecConfig):
        super().__init__()
        self.query = nn.Linear(config.d_model, config.d_model, bias=False)
        self.projection = nn.Linear(config.rqvae_config.input_size, config.d_model, bias=False)
        self.repeats = nn.Parameter(torch.zeros(()))  # a tenth of what logits of items of the history gain

    def forward(
        self, states: torch.FloatTensor, own_vectors: torch.FloatTensor, embeddings: torch.FloatTensor
    ) -> torch.FloatTensor:
        """Returns logits `[items, users]` in float32.

        Args:
            states (`torch.FloatTensor` of shape `(users, d_model)`): of the encoder, at each user's last item.
            own_vectors (`torch.FloatTensor` of shape `(items, d_model)`): of the items.
            embeddings (`torch.FloatTensor` of shape `(items, input_size)`): their semantic embeddings.
        """
        vectors = own_vectors + self.projection(directions_of(embeddings, self.projection.weight.dtype))
        with torch.autocast(states.device.type, enabled=False):  # bfloat16 would round away what tells items apart
            return vectors.float() @ self.query.weight.float() @ states.float().T

    @torch.no_grad()
    def init_weights(self, factor: float) -> None:
        """Lets the state itself be the query, and embeddings count as little as own vectors at first."""
        init.eye_(self.query.weight)
        init.normal_(self.projection.weight, std=0.1 * factor * self.projection.in_features**-0.5)
        init.zeros_(self.repeats)


class ItemEvidence:
    """A term of [`CodeDistribution`]: the log-sum-exp of the logits of all items below a node.

    With logits of codes that are 0, the probability of an item is then the softmax of the item logits alone.

    Args:
        catalogue ([`CodeTrie`]): the items that can be recommended.
        logits (`torch.FloatTensor` of shape `(items, users)`): of the catalogue's leaves, in their order.
        had ([`ItemSets`]): the items of each user's history.
        repeats (`torch.FloatTensor` of shape `()`): a tenth of what their logits gain.
    """

    def __init__(self, catalogue: CodeTrie, logits: torch.FloatTensor, had: ItemSets, repeats: torch.FloatTensor):
        self.catalogue, self.had, self.n_users = catalogue, had, logits.shape[1]
        self.repeats = 10 * repeats.float()
        leaves = had.nodes[-1].T - len(catalogue.inner_counts)  # [n, users], beyond the last one where there are fewer
        gain = self.repeats * (leaves < catalogue.n_items)
        self.logits = logits.scatter_add(0, leaves.clamp(max=catalogue.n_items - 1), gain)

    def __call__(self, child: torch.LongTensor, level: int) -> torch.FloatTensor:
        """Returns the numbers of child nodes `[users, n, m]` of nodes of `level`."""
        first = child.amax(-1)  # any of each node's children
        parent = torch.where(first < 0, -1, self.catalogue.parent(first.clamp(min=1)))  # [users, n]
        sums = self._of_root() if level == 0 else self._of_children(parent, level)
        place = child - self.catalogue.child_start[parent.clamp(min=0)].unsqueeze(-1)
        return sums.expand(*parent.shape, -1).gather(-1, place.clamp(min=0))

    def of_items(self, leaves: torch.LongTensor) -> torch.FloatTensor:
        """Returns by how much having had them changes the log-odds of items, `[users, n]`, given their nodes."""
        return self.repeats * self.had.contain(leaves, self.catalogue.layout.code_length - 1)

    def _of_root(self) -> torch.FloatTensor:
        """The numbers of all children of the root, `[users, 1, children]`."""
        _, child = self.catalogue.leaves_below(torch.zeros((), dtype=torch.long, device=self.logits.device), 0)
        return sum_by_group(self.logits, child, self.catalogue.max_children[0]).T.unsqueeze(1)

    def _of_children(self, node: torch.LongTensor, level: int) -> torch.FloatTensor:
        """The numbers of the children of nodes `[users, n]` of `level`, `[users, n, children]`."""
        leaf, child = self.catalogue.leaves_below(node, level)  # [users, n, items]
        logits = self.logits.gather(0, leaf.clamp(min=0).flatten(1).T).T.reshape(leaf.shape)
        logits = logits.masked_fill(leaf < 0, -torch.inf)
        return sum_by_child(logits, child, self.catalogue.max_children[level])


def sum_by_group(logits: torch.FloatTensor, group: torch.LongTensor, groups: int) -> torch.FloatTensor:
    """The log-sum-exp of rows of `logits` `[n, users]` by their `group` `[n]`: `[groups, users]`; none is empty."""
    top = logits.new_full((groups, logits.shape[1]), -torch.inf)
    top.scatter_reduce_(0, group.unsqueeze(1).expand_as(logits), logits.detach(), "amax")
    exponentials = (logits - top.index_select(0, group)).exp()
    return torch.zeros_like(top).index_add(0, group, exponentials).log() + top


def sum_by_child(logits: torch.FloatTensor, child: torch.LongTensor, children: int) -> torch.FloatTensor:
    """The log-sum-exp of `logits` `[*, n]` by `child` `[*, n]`: `[*, children]`, the lowest where there are none."""
    lowest = torch.finfo(logits.dtype).min
    child, shape = child.clamp(min=0), (*logits.shape[:-1], children)
    top = logits.new_full(shape, lowest).scatter_reduce(-1, child, logits.detach(), "amax")
    exponentials = (logits - top.gather(-1, child)).exp()
    sums = torch.zeros_like(top).scatter_add(-1, child, exponentials)
    return sums.clamp(min=torch.finfo(sums.dtype).tiny).log() + top
