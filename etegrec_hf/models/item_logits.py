"""Logits of whole items, and the term that they add to the logits of codes."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from .code_trie import CodeTrie, ItemSets
from .configuration_etegrec import ETEGRecConfig
from .headwise_t5 import applied, plain_weight
from .item_inputs import ItemInputs
from .modeling_rqvae import directions_of
from .node_term import NodeTerm
from .softmax_mixture import log_mean_softmax, log_p_of, log_softmax_mixture, log_sum_exp


class _KeptVectors(NamedTuple):
    """Vectors, and the tensors that they were computed from with their versions."""

    vectors: torch.Tensor
    sources: tuple[torch.Tensor, ...]
    versions: tuple[int, ...]

    @classmethod
    def of(cls, sources: tuple[torch.Tensor, ...], vectors: torch.Tensor) -> "_KeptVectors":
        return cls(vectors, sources, _versions(sources))

    def is_of(self, sources: tuple[torch.Tensor, ...]) -> bool:
        """Returns whether the vectors were computed from these tensors, and none of them has changed since."""
        are_same = len(sources) == len(self.sources) and all(a is b for a, b in zip(sources, self.sources))
        return are_same and _versions(sources) == self.versions


def _versions(tensors: tuple[torch.Tensor, ...]) -> tuple[int, ...]:
    """Returns a number of changes and an address per tensor; moving a model changes a parameter's address."""
    return tuple(number for tensor in tensors for number in (tensor._version, tensor.data_ptr()))


class ItemScorer(nn.Module):
    """Scores all items by products of item vectors with a query: one member of [`ItemLogits`].

    The query is a projection of the weighted sum of the vectors of the `recent_items` newest items. With
    `recent_items=0` it is a projection of the encoder's state at the last item. The state knows more, but lets the
    model memorise training sequences; vectors of items have to learn which items follow which. With `mixed_items`,
    each of the newest items also has a distribution of its own over the items that follow it. The encoder's state
    gives the shares by which these distributions are mixed. A sum of logits can express "and", while a mixture
    expresses "or": an item that follows this item, or one that follows that item, or one that is like both.

    Args:
        config ([`ETEGRecConfig`]): the model's configuration.

    Source: FPMC (Rendle et al., 2010) scores successors by one product of vectors. Fossil (He and McAuley, 2016)
    weights items by how recent they are. The mixture of softmaxes is from Yang et al. (2018).
    """

    def __init__(self, config: ETEGRecConfig):
        super().__init__()
        width = config.d_model
        self.query = nn.Linear(width, width, bias=False)
        self.recency = nn.Parameter(torch.zeros(config.recent_items)) if config.recent_items else None
        self.mixed = None
        if config.mixed_items:
            self.mixed = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(config.mixed_items))
            self.shares = nn.Linear(width, 1 + config.mixed_items)

    def forward(
        self,
        states: torch.FloatTensor,
        recent: torch.LongTensor,
        recent_vectors: torch.FloatTensor,
        vectors: torch.FloatTensor,
    ) -> torch.FloatTensor:
        """Returns logits `[items, users]` in float32; arguments as of [`ItemLogits`], with this member's vectors."""
        asking = states
        if self.recency is not None:
            asking = (recent_vectors[:, : len(self.recency)] * self.recency.unsqueeze(1)).sum(1)
        queries = [applied(self.query, asking)]
        if self.mixed is not None:
            queries += [applied(ask, recent_vectors[:, place]) for place, ask in enumerate(self.mixed)]
        with torch.autocast(states.device.type, enabled=False):  # bfloat16 would round away what tells items apart
            if self.mixed is None:
                return vectors @ queries[0].float().T
            lacks = F.pad(recent[:, : len(self.mixed)] == 0, (1, 0))  # [users, 1 + mixed]
            shares = applied(self.shares, states).float().masked_fill(lacks, -torch.inf).softmax(1)
            return log_softmax_mixture(torch.stack([query.float() for query in queries]), vectors, shares)

    @torch.no_grad()
    def init_weights(self, factor: float) -> None:
        """Sets the query's projection to the identity, and the newest items' weights to powers of .7."""
        init.eye_(self.query.weight)
        if self.recency is not None:
            init.copy_(self.recency, 0.7 ** torch.arange(len(self.recency)))
        if self.mixed is not None:
            for ask in self.mixed:
                init.normal_(ask.weight, std=factor * ask.in_features**-0.5)
            init.zeros_(self.shares.weight)
            init.zeros_(self.shares.bias)


class ItemLogits(nn.Module):
    """Scores all items by one or several [`ItemScorer`]s, the members of an ensemble.

    Evidence for one item, such as "this came after that", gets lost among the items that share its first code. So each
    item also has a vector per member: its own vector plus another projection of its semantic embedding. The encoder
    reads the first member's own vectors too. An item that joins later has only the projection.

    Members start from other random vectors, and each has a loss of its own. They agree on what many sequences say, and
    differ in what they memorised by chance. So the mean of their distributions is better than each of them.

    Args:
        config ([`ETEGRecConfig`]): the model's configuration.

    Source: deep ensembles (Lakshminarayanan et al., 2017).
    """

    def __init__(self, config: ETEGRecConfig):
        super().__init__()
        self.members = nn.ModuleList(ItemScorer(config) for _ in range(config.item_ensemble))
        self.projection = nn.Linear(config.rqvae_config.input_size, config.item_ensemble * config.d_model, bias=False)
        self.repeats = nn.Parameter(torch.zeros(1))  # a tenth of the number added to logits of items of the history
        self.newest = max(config.recent_items, config.mixed_items)  # number of the newest items whose vectors are read
        self._kept: _KeptVectors | None = None

    def train(self, mode: bool = True) -> "ItemLogits":
        self._kept = None  # a fused optimizer changes weights without raising their version
        return super().train(mode)

    def vectors(self, inputs: ItemInputs, embeddings: torch.FloatTensor, items: torch.LongTensor) -> torch.FloatTensor:
        """Returns the vectors `[items, members * d_model]` in float32.

        In eval mode and without gradients, the vectors are kept until one of the tensors that they are computed from
        changes. Otherwise a search for one user would spend most of its time on them. A change through `.data` isn't
        seen: call `model.eval()` after it. Vectors of replaced layers or layers with hooks, whose results can change
        without their tensors, aren't kept.

        Args:
            inputs ([`ItemInputs`]): module that holds the items' own vectors.
            embeddings (`torch.FloatTensor` of shape `(n_items + 1, input_size)`): semantic embeddings of all items.
            items (`torch.LongTensor` of shape `(items,)`): item indices.
        """
        sources = (*inputs.own.parameters(), *self.projection.parameters(), embeddings, items)
        keeps = not (self.training or torch.is_grad_enabled() or torch.compiler.is_exporting())
        keeps = keeps and all(plain_weight(layer) is not None for layer in (inputs.own, self.projection))
        if not keeps or any(source.is_inference() for source in sources):  # inference tensors have no version
            return self.vectors_of(inputs, embeddings, items)
        if self._kept is None or not self._kept.is_of(sources):
            self._kept = _KeptVectors.of(sources, self.vectors_of(inputs, embeddings, items))
        return self._kept.vectors

    def vectors_of(
        self, inputs: ItemInputs, embeddings: torch.FloatTensor, items: torch.LongTensor
    ) -> torch.FloatTensor:
        """Computes vectors `[*, members * d_model]` in float32 of items `[*]`; 0 for index 0.

        Arguments are those of `vectors`.
        """
        items = items.long()
        with torch.autocast(embeddings.device.type, enabled=False):
            # directions of length 1, so that an update moves the projection about as far as own vectors
            projected = applied(self.projection, directions_of(embeddings[items]))
            return ((inputs.own_vectors(items) + projected) * (items > 0).unsqueeze(-1)).float()

    def forward(
        self,
        states: torch.FloatTensor,
        recent: torch.LongTensor,
        recent_vectors: torch.FloatTensor,
        vectors: torch.FloatTensor,
    ) -> tuple[list[torch.FloatTensor], torch.FloatTensor]:
        """Returns each member's logits `[items, users]` in float32, and `repeats`.

        Only `forward` can read `repeats` if it's offloaded.

        Args:
            states (`torch.FloatTensor` of shape `(users, d_model)`): encoder states at each user's last item.
            recent (`torch.LongTensor` of shape `(users, newest)`): the newest items, newest first; shorter rows are
                padded with 0.
            recent_vectors (`torch.FloatTensor` of shape `(users, newest, members * d_model)`): their vectors; 0 on
                padding.
            vectors (`torch.FloatTensor` of shape `(items, members * d_model)`): the result of `vectors`.
        """
        parts = zip(
            self.members,
            recent_vectors.to(self.repeats.dtype).chunk(len(self.members), dim=-1),
            vectors.chunk(len(self.members), dim=-1),
        )
        return [member(states, recent, read, scored) for member, read, scored in parts], self.repeats

    @torch.no_grad()
    def init_weights(self, factor: float) -> None:
        """Draws small weights for semantic embeddings, and initialises the members."""
        init.normal_(self.projection.weight, std=0.02 * factor)
        init.zeros_(self.repeats)
        for member in self.members:
            member.init_weights(factor)


class ItemEvidence(NodeTerm):
    """A term of [`CodeDistribution`]: the log-sum-exp of the logits of all items below a node.

    If all logits of codes are 0, the probability of an item is the softmax of the item logits alone.

    Args:
        catalogue ([`CodeTrie`]): the items that can be recommended.
        members (sequence of `torch.FloatTensor` of shape `(items, users)`): item logits of each member of an ensemble,
            in the order of the catalogue's leaves; the mean of their distributions is the evidence.
        had ([`ItemSets`]): the items of each user's history.
        repeats (`torch.FloatTensor` of shape `(1,)`): a tenth of the number added to the logits of these items.
    """

    def __init__(
        self, catalogue: CodeTrie, members: Sequence[torch.FloatTensor], had: ItemSets, repeats: torch.FloatTensor
    ):
        self.catalogue, self.had, self.n_users = catalogue, had, members[0].shape[1]
        self.stored_repeats, self.repeats, self.members = repeats, 10 * repeats.float(), members

    def detached(self) -> "ItemEvidence":
        """Returns the same evidence with detached item logits; only `repeats` still gets a gradient."""
        members = [logits.detach() for logits in self.members]
        evidence = ItemEvidence(self.catalogue, members, self.had, self.stored_repeats)
        evidence.totals = self.totals
        return evidence

    @cached_property
    def totals(self) -> list[torch.FloatTensor]:
        """The log-sum-exp `[users]` of each member's logits, without a gradient."""
        return [log_sum_exp(logits) for logits in self.members]

    @cached_property
    def plain(self) -> torch.FloatTensor:
        """The logits `[items, users]` of all members together; nothing is added for items of the history."""
        return self.members[0] if len(self.members) == 1 else log_mean_softmax(self.members, self.totals)

    def __call__(self, child: torch.LongTensor, level: int) -> torch.FloatTensor:
        """Returns the numbers added for child nodes `[users, n, m]` of nodes of `level`."""
        node = self._parent(child)
        if level == 0:
            return self._placed(self._of_root.expand(*node.shape, -1), node, child)
        leaf, way = self.catalogue.leaves_below(node, level)
        return self._placed(self._summed(self._logits_of(leaf), leaf, way, level), node, child)

    def along(self, children: list[torch.LongTensor]) -> list[torch.FloatTensor]:
        """Returns the numbers of the children of all nodes on the path to an item, as [`NodeTerm.along`] does."""
        nodes = [self._parent(child) for child in children]
        numbers = [self._placed(self._of_root.expand(*nodes[0].shape, -1), nodes[0], children[0])]
        below, _ = self.catalogue.leaves_below(nodes[1], 1)
        logits, first = self._logits_of(below), below[..., :1]  # whatever follows the first code is among these
        for level in range(1, len(children)):
            leaf, way = self.catalogue.leaves_below(nodes[level], level)
            chosen = logits.gather(-1, (leaf - first).clamp(min=0))
            numbers.append(self._placed(self._summed(chosen, leaf, way, level), nodes[level], children[level]))
        return numbers

    def of_items(self, leaves: torch.LongTensor) -> torch.FloatTensor:
        """Returns the change of items' log-odds `[users, n]` by being in the history, given their nodes."""
        return self.repeats * self.had.contain(leaves, self.catalogue.layout.code_length - 1)

    def log_p(self, leaves: torch.LongTensor) -> torch.FloatTensor:
        """Returns log-probabilities `[members, users, n]` of items by each member's logits alone, given their nodes.

        Nothing is added for items of the history. An item is most like itself, and its vector has to learn that other
        items follow. With the added number, vectors wouldn't learn it, and would tell items apart less well.
        """
        rows = (leaves - len(self.catalogue.inner_counts)).clamp(min=0).T
        members = zip(self.members, self.totals)
        return torch.stack([log_p_of(logits, rows, total).T for logits, total in members])

    def _parent(self, child: torch.LongTensor) -> torch.LongTensor:
        """Returns the node `[users, n]` that children `[users, n, m]` belong to; -1 without children."""
        any_child = child.amax(-1)
        return torch.where(any_child < 0, -1, self.catalogue.parent(any_child.clamp(min=1)))

    def _placed(
        self, numbers: torch.FloatTensor, node: torch.LongTensor, child: torch.LongTensor
    ) -> torch.FloatTensor:
        """Picks the numbers of `child` `[users, n, m]` from those of all children `[users, n, *]` of nodes."""
        place = child - self.catalogue.child_start[node.clamp(min=0)].unsqueeze(-1)
        return numbers.gather(-1, place.clamp(min=0))

    def _logits_of(self, leaf: torch.LongTensor) -> torch.FloatTensor:
        """Returns the logits of leaves `[users, *]`, as they are in this term; any number for leaf -1."""
        picked = self.plain.gather(0, leaf.clamp(min=0).flatten(1).T).T.reshape(leaf.shape)
        return picked + self.of_items(leaf + len(self.catalogue.inner_counts))

    @cached_property
    def _of_root(self) -> torch.FloatTensor:
        """The numbers of all children of the root, `[users, 1, children]`.

        Items of the history are summed apart, so that `repeats` gets its gradient from few numbers.
        """
        root = torch.zeros((), dtype=torch.long, device=self.plain.device)
        _, way = self.catalogue.leaves_below(root, 0)
        had = self.had.nodes[-1].T - len(self.catalogue.inner_counts)  # [n, users], n_items or more on padding
        rows, is_had = had.clamp(max=self.catalogue.n_items - 1), had < self.catalogue.n_items
        left_out = self.plain.new_zeros(rows.shape).masked_fill(is_had, -torch.inf)
        others, had = self.plain.scatter_add(0, rows, left_out), self.plain.gather(0, rows) + self.repeats
        top = torch.cat([self.plain.detach().amax(0, keepdim=True), had.detach()]).amax(0)
        sums = self.plain.new_zeros(self.catalogue.max_children[0], self.n_users)
        sums = sums.index_add(0, way, (others - top).exp_())
        sums = sums.scatter_add(0, way[rows], (had - top).exp() * is_had)
        return (log_of(sums) + top).T.unsqueeze(1)

    def _summed(
        self, logits: torch.FloatTensor, leaf: torch.LongTensor, way: torch.LongTensor, level: int
    ) -> torch.FloatTensor:
        """Returns the log-sum-exp of the logits of leaves, grouped by the child that leads to each leaf.

        The result has the shape `[users, n, children]`.
        """
        logits = logits.masked_fill(leaf < 0, torch.finfo(logits.dtype).min)
        top = logits.detach().amax(-1, keepdim=True)
        exponentials = (logits - top).exp().masked_fill(leaf < 0, 0)
        sums = logits.new_zeros(*leaf.shape[:-1], self.catalogue.max_children[level])
        return log_of(sums.scatter_add(-1, way.clamp(min=0), exponentials)) + top


def log_of(sums: torch.FloatTensor) -> torch.FloatTensor:
    """Returns the logarithm of sums, limited from below by that of the smallest positive number of the dtype."""
    return sums.clamp(min=torch.finfo(sums.dtype).tiny).log()
