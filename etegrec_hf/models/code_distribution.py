"""The distribution over the codes that may follow a prefix; all other files take it from here."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .code_trie import AllCodes, CodeTrie, ItemSets
from .histories import EncodedBatch, newest_items, newest_items_before
from .item_catalogue import ItemConstraints
from .item_logits import ItemEvidence
from .item_transitions import TransitionVotes
from .node_term import NodeTerm
from .repeat_bias import RepeatBias


class CodeSteps(NamedTuple):
    """The codes that may follow each prefix of a batch; all tensors have the shape `(users, n, m)`.

    Prefixes have different numbers of codes: shorter rows are padded.

    Args:
        log_p (`torch.FloatTensor`): their log-probabilities in float32; -inf on padding.
        codes (`torch.LongTensor`): raw codes; any number on padding.
        child (`torch.LongTensor`): the trie nodes that the codes lead to; -1 on padding.
    """

    log_p: torch.Tensor
    codes: torch.Tensor
    child: torch.Tensor


class CodeDistribution:
    """The distribution over a level's codes given the codes before, for a batch of users.

    Beam search, sampling, transformers' `generate`, reinforcement learning and the training loss all use this class.
    By default the softmax is taken over all K codes of a level. Codes that lead to no item of `trie` aren't returned,
    so that the probabilities of the others may sum to less than 1.

    Args:
        trie ([`CodeTrie`] or [`AllCodes`]): the paths that may be taken.
        catalogue ([`CodeTrie`], *optional*): items whose codes share the probability: the softmax is taken over the
            codes that continue one of them. `trie` may hold a part of these items, which keep their probabilities.
            By default the softmax is taken over all codes of the level.
        terms (`Sequence[NodeTerm]`, *optional*): numbers added to the logits, given for the nodes of `catalogue`.
        excluded ([`ItemSets`], *optional*): items of `trie` that single users must not get. The probabilities of the
            other items don't grow for that.
        votes ([`TransitionVotes`], *optional*): votes over the items of `trie`, which `mixed` mixes into the model's
            probabilities.
        temperature (`float`, *optional*): number that logits are divided by. With a temperature, the softmax is taken
            over the codes that lead to an item of `trie` which isn't excluded, whatever `catalogue` says.
    """

    def __init__(
        self,
        trie: CodeTrie | AllCodes,
        catalogue: CodeTrie | None = None,
        terms: Sequence[NodeTerm] = (),
        excluded: ItemSets | None = None,
        votes: TransitionVotes | None = None,
        temperature: float | None = None,
    ):
        self.trie, self.terms, self.temperature = trie, tuple(terms), temperature
        self.catalogue: CodeTrie = catalogue or trie  # type: ignore[assignment]  # what needs items is asked of tries
        self.n_users = next((part.n_users for part in (excluded, *terms) if part is not None), 1)
        self._place = _same if self.catalogue is trie else _places(trie, self.catalogue)
        self._alive = _unchanged if excluded is None else excluded.without
        self._log_total = self._of_all_codes if catalogue is None else self._of_catalogue
        self.mixed = _unmixed if votes is None else votes.mixed

    def steps(self, logits: torch.FloatTensor, node: torch.LongTensor, level: int) -> CodeSteps:
        """Returns the log-probability of each code that may follow.

        Args:
            logits (`torch.FloatTensor` of shape `(users, n, codebook_size)`): the model's logits of one level's codes.
            node (`torch.LongTensor` of shape `(users, n)`): nodes of `trie` that the codes before lead to, or -1.
            level (`int`): number of codes before, from 0.

        Returns:
            [`CodeSteps`] of shape `(users, n, m)`, m being the largest number of children of a node of this level.
        """
        logits = logits.float()
        codes, child = self.trie.successors(node, level)
        scores = self._with_terms(logits.gather(-1, codes), self._place(child), level)
        alive = self._alive(child, level)
        if self.temperature is None:
            log_p = scores - self._log_total(logits, scores, node, child, level)
        else:
            log_p = (scores / self.temperature).masked_fill(alive < 0, -torch.inf).log_softmax(-1)
        return CodeSteps(log_p.masked_fill(alive < 0, -torch.inf), codes, alive)

    def along(self, logits: torch.FloatTensor, codes: torch.LongTensor) -> torch.FloatTensor:
        """Returns logits along whole paths, with the terms added, and the lowest number for codes of no item.

        The softmax of a level's logits is this distribution, if it was made with a `catalogue`. The path of an item
        that can't be recommended leads to no item: such a path keeps the logits of all codes.

        Args:
            logits (`torch.FloatTensor` of shape `(users, n, code_length, codebook_size)`): the model's logits.
            codes (`torch.LongTensor` of shape `(users, n, code_length)`): raw codes of the paths.
        """
        node, follow, children = torch.zeros_like(codes[..., 0]), [], []
        for level in range(codes.shape[-1]):
            after, child = self.catalogue.successors(node, level)
            follow.append(after)
            children.append(child)
            node = self.catalogue.advance(node, codes[..., level])
        of_terms = zip(*(term.along(children) for term in self.terms))
        gains = [torch.stack(numbers).sum(0).float() for numbers in of_terms]
        is_item, lowest = (node >= 0).unsqueeze(-1), torch.finfo(torch.float32 if gains else logits.dtype).min
        levels = []
        for level, of_level in enumerate(logits.unbind(-2)):
            if gains:
                gain = gains[level].masked_fill((children[level] < 0) | ~is_item, 0)
                of_level = of_level.float().scatter_add(-1, follow[level], gain)
            goes_on = self.catalogue.as_mask(follow[level], children[level])
            levels.append(of_level.masked_fill(is_item & ~goes_on, lowest))
        return torch.stack(levels, dim=-2)

    def _with_terms(self, scores: torch.FloatTensor, child: torch.LongTensor, level: int) -> torch.FloatTensor:
        """Returns the scores of codes that lead to the catalogue's nodes `child`, with the terms added."""
        for term in self.terms:
            scores = scores + term(child, level).to(scores.dtype)
        return scores

    def _of_all_codes(self, logits, scores, node, child, level: int) -> torch.FloatTensor:
        """Returns the log-sum-exp of the logits of all codes of a level, `[users, n, 1]`."""
        return logits.logsumexp(-1, keepdim=True)

    def _of_catalogue(self, logits, scores, node, child, level: int) -> torch.FloatTensor:
        """Returns the log-sum-exp over the codes that continue an item of the catalogue, `[users, n, 1]`."""
        if self.catalogue is not self.trie:
            codes, child = self.catalogue.successors(self._place(node), level)
            scores = self._with_terms(logits.gather(-1, codes), child, level)
        return scores.masked_fill(child < 0, -torch.inf).logsumexp(-1, keepdim=True)


def code_distribution(
    model,
    encoded: EncodedBatch,
    constraints: ItemConstraints,
    temperature: float | None = None,
    transition_weight: float = 0.0,
) -> CodeDistribution:
    """Returns a model's distribution over codes for the users of a batch, put together from all of its parts.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the model.
        encoded ([`EncodedBatch`]): the users' histories, encoded by the model.
        constraints ([`ItemConstraints`]): the items that these users may get.
        temperature (`float`, *optional*): as in [`CodeDistribution`].
        transition_weight (`float`, *optional*, defaults to 0.0): share of transition votes, as in `recommend`.

    Raises:
        ValueError: encoder outputs without the histories, for a model that needs to know them.
    """
    trie, excluded, terms, votes = constraints.trie, constraints.excluded, terms_of(model, encoded), None
    if transition_weight:
        items, shares = model.catalogue.transitions(model.catalogue.items_of(encoded.input_ids))
        leaves = model.catalogue.trie.leaf(items)
        gained = sum((term.of_items(leaves) for term in terms), torch.zeros_like(shares))
        shares = shares * gained.exp().clamp(max=1)  # fewer votes for items of the history if the terms lower them
        votes = TransitionVotes(trie, trie.leaf(items), shares, transition_weight, excluded)
    catalogue = model.catalogue.trie if model.config.constrained_softmax else None
    return CodeDistribution(trie, catalogue, terms, excluded, votes, temperature)


def terms_of(model, encoded: EncodedBatch, dropout: float = 0.0) -> list[NodeTerm]:
    """Returns the terms that a model adds to the logits of codes, for each user of a batch.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the model.
        encoded ([`EncodedBatch`]): the users' histories, encoded by the model.
        dropout (`float`, *optional*, defaults to 0.0): dropout rate of the inputs of item logits.
    """
    if model.repeat_bias is None and model.item_logits is None:
        return []
    leaves, newest = _had(model, encoded), 0 if model.item_logits is None else model.item_logits.newest
    recent = newest_items(model.catalogue.items_of(encoded.input_ids), newest)
    return _terms(model, leaves, encoded.last_states().squeeze(1), recent, dropout)


def terms_before(
    model, encoded: EncodedBatch, history_lengths: torch.LongTensor, dropout: float = 0.0
) -> list[NodeTerm]:
    """Returns the terms of each target of whole sequences, one row per target: `batch * targets` rows.

    Args:
        model, encoded, dropout: as in [`terms_of`].
        history_lengths (`torch.LongTensor` of shape `(batch, targets)`): items that come before each target.
    """
    if model.repeat_bias is None and model.item_logits is None:
        return []
    leaves = _had(model, encoded)
    before = torch.arange(leaves.shape[1], device=leaves.device) < history_lengths.unsqueeze(2)
    of_targets = leaves.unsqueeze(1).masked_fill(~before, -1)  # [batch, targets, items]
    last_states = encoded.last_states_before(history_lengths * model.config.code_length).flatten(0, 1)
    items, newest = (
        model.catalogue.items_of(encoded.input_ids),
        0 if model.item_logits is None else model.item_logits.newest,
    )
    recent = newest_items_before(items, history_lengths, newest).flatten(0, 1)
    return _terms(model, of_targets.flatten(0, 1), last_states, recent, dropout)


def _terms(
    model, leaves: torch.LongTensor, last_states: torch.FloatTensor, recent: torch.LongTensor, dropout: float
) -> list[NodeTerm]:
    """Returns the terms of users.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the model.
        leaves (`torch.LongTensor` of shape `(users, n)`): nodes of the items of their histories; -1 for no item.
        last_states (`torch.FloatTensor` of shape `(users, d_model)`): encoder states at their last items.
        recent (`torch.LongTensor` of shape `(users, newest)`): their newest items, as many as item logits read.
        dropout (`float`): dropout rate of the newest items' vectors.
    """
    trie, terms = model.catalogue.trie, list[NodeTerm]()
    had = ItemSets(trie, leaves)
    if model.repeat_bias is not None:
        if model.repeat_bias.is_meta:
            raise ValueError(
                "`repeat_bias` is offloaded, and only `forward` can fetch it; to recommend or generate, load the "
                "model without offloading, in bfloat16 if it's too large."
            )
        terms.append(RepeatBias(trie, had, model.repeat_bias))
    if model.item_logits is not None:
        known = model.item_inputs, model.catalogue.semantic_embedding
        vectors, recent_vectors = (
            model.item_logits.vectors(*known, trie.leaf_items),
            model.item_logits.vectors_of(*known, recent),
        )
        if dropout:  # the same dimensions are dropped for all of a user's items
            recent_vectors = recent_vectors * F.dropout(torch.ones_like(recent_vectors[:, :1]), dropout)
        members, repeats = model.item_logits(last_states, recent, recent_vectors, vectors)
        if model.catalogue.transitions is not None:
            members = [model.catalogue.transitions.add_gains(logits, recent, trie) for logits in members]
        terms.append(ItemEvidence(trie, members, had, repeats))
    return terms


def _had(model, encoded: EncodedBatch) -> torch.LongTensor:
    """Returns nodes `[batch, items]` of the items of histories."""
    if encoded.input_ids is None:
        raise ValueError(
            "`input_ids` is missing; a model with a repeat bias or item logits needs the histories themselves: give "
            "`input_ids` together with `encoder_outputs`."
        )
    return model.catalogue.leaves_of(encoded.input_ids)


def _places(trie, catalogue: CodeTrie) -> Callable[[torch.LongTensor], torch.LongTensor]:
    """Returns a function from nodes of a part of the catalogue to the catalogue's nodes; -1 stays -1."""
    place = torch.full((len(trie.keys) + 2,), -1, device=trie.device)  # the last entry is for node -1
    place[0] = 0
    node = torch.arange(len(trie.inner_counts), len(trie.keys) + 1, device=trie.device)
    known = catalogue.leaf(trie.leaf_items.long())
    for _ in range(trie.layout.code_length):
        place[node] = known
        node, known = trie.parent(node), catalogue.parent(known)
    return place.__getitem__


def _same(node: torch.LongTensor) -> torch.LongTensor:
    return node


def _unchanged(child: torch.LongTensor, level: int) -> torch.LongTensor:
    return child


def _unmixed(log_p: torch.FloatTensor, node: torch.LongTensor, level: int) -> torch.FloatTensor:
    return log_p
