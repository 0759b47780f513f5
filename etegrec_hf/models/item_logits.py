"""Logits of whole items, and what they say about codes."""

from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from .code_trie import CodeTrie, ItemSets
from .configuration_etegrec import ETEGRecConfig
from .headwise_t5 import applied
from .item_inputs import ItemInputs
from .modeling_rqvae import directions_of
from .node_term import NodeTerm
from .softmax_mixture import log_softmax_mixture


class _KeptVectors(NamedTuple):
    """Vectors, and the state of the tensors that they were made of."""

    vectors: torch.Tensor
    sources: tuple[torch.Tensor, ...]
    versions: tuple[int, ...]

    @classmethod
    def of(cls, sources: tuple[torch.Tensor, ...], vectors: torch.Tensor) -> "_KeptVectors":
        return cls(vectors, sources, _versions(sources))

    def is_of(self, sources: tuple[torch.Tensor, ...]) -> bool:
        """Whether these are the same tensors, unchanged."""
        are_same = len(sources) == len(self.sources) and all(a is b for a, b in zip(sources, self.sources))
        return are_same and _versions(sources) == self.versions


def _versions(tensors: tuple[torch.Tensor, ...]) -> tuple[int, ...]:
    """How often each tensor was changed in place, and where it is: moving a model changes what a parameter holds."""
    return tuple(number for tensor in tensors for number in (tensor._version, tensor.data_ptr()))


class ItemLogits(nn.Module):
    """Scores all items by what the newest ones of a history ask for, or by the encoder's state at the last one.

    Evidence for one item, as "this came after that", gets lost among the items that share its first code. So each item
    has a vector too: the one of its own that the encoder reads, and another projection of its semantic embedding. An
    item that joins later is known by the latter alone.

    What is asked for is a projection of the weighted sum of the vectors of the `recent_items` newest items, or without
    them of the state. The state knows more, and remembers training sequences by it; vectors alone have to tell what
    follows what. With `mixed_items` each of the newest items also has a distribution of its own over what follows
    it, and the state says how they are mixed. A sum of logits can say "and"; only a mixture can say "or": what follows
    this item, or what follows that one, or what is like both.

    Args:
        config ([`ETEGRecConfig`]): sizes.

    Source: items and their successors in one product of vectors is FPMC's (Rendle et al., 2010), weights by how recent
    an item is are Fossil's (He and McAuley, 2016), a mixture of softmaxes is Yang et al.'s (2018).
    """

    def __init__(self, config: ETEGRecConfig):
        super().__init__()
        width = config.d_model
        self.query = nn.Linear(width, width, bias=False)
        self.projection = nn.Linear(config.rqvae_config.input_size, width, bias=False)
        self.repeats = nn.Parameter(torch.zeros(1))  # a tenth of what logits of items of the history gain
        self._kept: _KeptVectors | None = None
        self.recency = nn.Parameter(torch.zeros(config.recent_items)) if config.recent_items else None
        self.mixed = None
        if config.mixed_items:
            self.mixed = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(config.mixed_items))
            self.shares = nn.Linear(width, 1 + config.mixed_items)

    @property
    def newest(self) -> int:
        """How many of the newest items are asked for."""
        return max(0 if part is None else len(part) for part in (self.recency, self.mixed))

    def train(self, mode: bool = True) -> "ItemLogits":
        self._kept = None  # a fused optimizer changes weights without counting it
        return super().train(mode)

    def vectors(self, inputs: ItemInputs, embeddings: torch.FloatTensor, items: torch.LongTensor) -> torch.FloatTensor:
        """Returns the vectors `[items, d_model]` in float32.

        Of a model that is set to evaluate they are kept, where no gradient is asked for, until one of the tensors that
        they are made of changes: a search for one user would otherwise spend most of its time on them.

        Args:
            inputs ([`ItemInputs`]): with the vectors of items' own.
            embeddings (`torch.FloatTensor` of shape `(n_items + 1, input_size)`): semantic embeddings of all items.
            items (`torch.LongTensor` of shape `(items,)`): item indices.
        """
        sources = (*inputs.own.parameters(), *self.projection.parameters(), embeddings, items)
        keeps = not (self.training or torch.is_grad_enabled())
        if not keeps or any(source.is_inference() for source in sources):  # which don't count changes
            return self.vectors_of(inputs, embeddings, items)
        if self._kept is None or not self._kept.is_of(sources):
            self._kept = _KeptVectors.of(sources, self.vectors_of(inputs, embeddings, items))
        return self._kept.vectors

    def vectors_of(
        self, inputs: ItemInputs, embeddings: torch.FloatTensor, items: torch.LongTensor
    ) -> torch.FloatTensor:
        """Returns vectors `[*, d_model]` in float32 of item indices `[*]`, 0 for 0; arguments are as in `vectors`."""
        items = items.long()
        with torch.autocast(embeddings.device.type, enabled=False):
            # directions of length 1, so that an update moves what they say about as far as own vectors
            projected = applied(self.projection, directions_of(embeddings[items]))
            return ((inputs.own_vectors(items) + projected) * (items > 0).unsqueeze(-1)).float()

    def forward(
        self,
        states: torch.FloatTensor,
        recent: torch.LongTensor,
        recent_vectors: torch.FloatTensor,
        vectors: torch.FloatTensor,
    ) -> tuple[torch.FloatTensor, torch.FloatTensor]:
        """Returns logits `[items, users]` in float32, and `repeats`, which only a forward may read if it's offloaded.

        Args:
            states (`torch.FloatTensor` of shape `(users, d_model)`): of the encoder, at each user's last item.
            recent (`torch.LongTensor` of shape `(users, newest)`): the newest items, newest first; 0 where there are
                fewer.
            recent_vectors (`torch.FloatTensor` of shape `(users, newest, d_model)`): their vectors; 0 likewise.
            vectors (`torch.FloatTensor` of shape `(items, d_model)`): see `vectors`.
        """
        asking, recent_vectors = states, recent_vectors.to(self.repeats.dtype)
        if self.recency is not None:
            asking = (recent_vectors[:, : len(self.recency)] * self.recency.unsqueeze(1)).sum(1)
        queries = [applied(self.query, asking)]
        if self.mixed is not None:
            queries += [applied(ask, recent_vectors[:, place]) for place, ask in enumerate(self.mixed)]
        with torch.autocast(states.device.type, enabled=False):  # bfloat16 would round away what tells items apart
            if self.mixed is None:
                return vectors @ queries[0].float().T, self.repeats
            lacks = F.pad(recent[:, : len(self.mixed)] == 0, (1, 0))  # [users, 1 + mixed]
            shares = applied(self.shares, states).float().masked_fill(lacks, -torch.inf).softmax(1)
            asked = torch.stack([query.float() for query in queries])
            return log_softmax_mixture(asked, vectors, shares), self.repeats

    @torch.no_grad()
    def init_weights(self, factor: float) -> None:
        """Lets what asks be the query itself at first, and embeddings count less than own vectors."""
        init.eye_(self.query.weight)
        init.normal_(self.projection.weight, std=0.02 * factor)
        init.zeros_(self.repeats)
        if self.recency is not None:
            init.copy_(self.recency, 0.7 ** torch.arange(len(self.recency)))
        if self.mixed is not None:
            for ask in self.mixed:
                init.normal_(ask.weight, std=factor * ask.in_features**-0.5)
            init.zeros_(self.shares.weight)
            init.zeros_(self.shares.bias)


class ItemEvidence(NodeTerm):
    """A term of [`CodeDistribution`]: the log-sum-exp of the logits of all items below a node.

    With logits of codes that are 0, the probability of an item is then the softmax of the item logits alone.

    Args:
        catalogue ([`CodeTrie`]): the items that can be recommended.
        logits (`torch.FloatTensor` of shape `(items, users)`): of the catalogue's leaves, in their order.
        had ([`ItemSets`]): the items of each user's history.
        repeats (`torch.FloatTensor` of shape `(1,)`): a tenth of what their logits gain.
    """

    def __init__(self, catalogue: CodeTrie, logits: torch.FloatTensor, had: ItemSets, repeats: torch.FloatTensor):
        self.catalogue, self.had, self.n_users = catalogue, had, logits.shape[1]
        self.stored_repeats, self.repeats, self.plain = repeats, 10 * repeats.float(), logits

    def detached(self) -> "ItemEvidence":
        """Returns the same evidence, of whose item logits no gradient is asked; what repeats gain learns as ever."""
        return ItemEvidence(self.catalogue, self.plain.detach(), self.had, self.stored_repeats)

    @cached_property
    def logits(self) -> torch.FloatTensor:
        """The logits `[items, users]` with what items of the history gain."""
        n_items = self.catalogue.n_items
        leaves = self.had.nodes[-1].T - len(self.catalogue.inner_counts)  # [n, users], n_items or more where fewer
        return self.plain.scatter_add(0, leaves.clamp(max=n_items - 1), self.repeats * (leaves < n_items))

    def __call__(self, child: torch.LongTensor, level: int) -> torch.FloatTensor:
        """Returns the numbers of child nodes `[users, n, m]` of nodes of `level`."""
        node = self._parent(child)
        if level == 0:
            return self._placed(self._of_root.expand(*node.shape, -1), node, child)
        leaf, way = self.catalogue.leaves_below(node, level)
        return self._placed(self._summed(_of_leaves(self.logits, leaf), leaf, way, level), node, child)

    def along(self, children: list[torch.LongTensor]) -> list[torch.FloatTensor]:
        """Returns the numbers of the children of each node on the way to one item, as [`NodeTerm.along`] says."""
        nodes = [self._parent(child) for child in children]
        numbers = [self._placed(self._of_root.expand(*nodes[0].shape, -1), nodes[0], children[0])]
        below, _ = self.catalogue.leaves_below(nodes[1], 1)
        logits, first = (
            _of_leaves(self.logits, below),
            below[..., :1],
        )  # whatever follows the first code is among these
        for level in range(1, len(children)):
            leaf, way = self.catalogue.leaves_below(nodes[level], level)
            chosen = logits.gather(-1, (leaf - first).clamp(min=0))
            numbers.append(self._placed(self._summed(chosen, leaf, way, level), nodes[level], children[level]))
        return numbers

    def of_items(self, leaves: torch.LongTensor) -> torch.FloatTensor:
        """Returns by how much having had them changes the log-odds of items, `[users, n]`, given their nodes."""
        return self.repeats * self.had.contain(leaves, self.catalogue.layout.code_length - 1)

    def log_p(self, leaves: torch.LongTensor) -> torch.FloatTensor:
        """Returns log-probabilities `[users, n]` of items, given their nodes, by the item logits alone.

        Items of the history gain nothing here. An item is most like itself, and vectors have to learn that something
        else follows it; the bias would spare them that, and they'd tell items apart less well.
        """
        leaf = (leaves - len(self.catalogue.inner_counts)).clamp(min=0)
        return _of_leaves(self.plain, leaf) - self.plain.logsumexp(0).unsqueeze(1)

    def _parent(self, child: torch.LongTensor) -> torch.LongTensor:
        """The node `[users, n]` whose children `[users, n, m]` are; -1 where there are none."""
        any_child = child.amax(-1)
        return torch.where(any_child < 0, -1, self.catalogue.parent(any_child.clamp(min=1)))

    def _placed(
        self, numbers: torch.FloatTensor, node: torch.LongTensor, child: torch.LongTensor
    ) -> torch.FloatTensor:
        """Of the numbers of all children `[users, n, *]` of nodes `[users, n]`, those of `child` `[users, n, m]`."""
        place = child - self.catalogue.child_start[node.clamp(min=0)].unsqueeze(-1)
        return numbers.gather(-1, place.clamp(min=0))

    @cached_property
    def _of_root(self) -> torch.FloatTensor:
        """The numbers of all children of the root, `[users, 1, children]`."""
        root = torch.zeros((), dtype=torch.long, device=self.logits.device)
        _, way = self.catalogue.leaves_below(root, 0)
        top = self.logits.detach().amax(0)
        sums = self.logits.new_zeros(self.catalogue.max_children[0], self.n_users)
        sums = sums.index_add(0, way, (self.logits - top).exp_())
        return (log_of(sums) + top).T.unsqueeze(1)

    def _summed(
        self, logits: torch.FloatTensor, leaf: torch.LongTensor, way: torch.LongTensor, level: int
    ) -> torch.FloatTensor:
        """The log-sum-exp of the logits of leaves by the child that leads to each: `[users, n, children]`."""
        logits = logits.masked_fill(leaf < 0, torch.finfo(logits.dtype).min)
        top = logits.detach().amax(-1, keepdim=True)
        exponentials = (logits - top).exp().masked_fill(leaf < 0, 0)
        sums = logits.new_zeros(*leaf.shape[:-1], self.catalogue.max_children[level])
        return log_of(sums.scatter_add(-1, way.clamp(min=0), exponentials)) + top


def _of_leaves(logits: torch.FloatTensor, leaf: torch.LongTensor) -> torch.FloatTensor:
    """Of logits `[items, users]` those of leaves `[users, *]`; any for -1."""
    return logits.gather(0, leaf.clamp(min=0).flatten(1).T).T.reshape(leaf.shape)


def log_of(sums: torch.FloatTensor) -> torch.FloatTensor:
    """The logarithm of sums of probabilities over the largest one, at least that of the smallest number there is."""
    return sums.clamp(min=torch.finfo(sums.dtype).tiny).log()
