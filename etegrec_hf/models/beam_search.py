"""The batched code beam search behind `recommend`, and its twin that samples without replacement.

A user is encoded once, and a user's beams ride the query axis of attention: cross-attention keys and values are
computed once a user, and the self-attention keys of all beams of all levels so far stand side by side, where a mask
shows each beam its own ancestors. Nothing is expanded or reordered by beam.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from .code_distribution import CodeDistribution
from .code_trie import AllCodes, CodeTrie
from .headwise_t5 import HeadwiseAttention, check_unhooked, feed_forward, norm
from .histories import EncodedBatch


@dataclass(frozen=True, eq=False)
class BeamLevel:
    """The prefixes that a beam search kept at one level.

    Args:
        node (`torch.LongTensor` of shape `(users, beams)`): their trie nodes; -1 where a user has fewer prefixes.
        parent (`torch.LongTensor` of the same shape): the place of each one's parent in the level before.
        log_p (`torch.FloatTensor` of the same shape): their log-probabilities.
    """

    node: torch.Tensor
    parent: torch.Tensor
    log_p: torch.Tensor


@dataclass(frozen=True, eq=False)
class Beam:
    """The items that a search found, and the prefixes that led to them.

    Args:
        items (`torch.LongTensor` of shape `(users, found)`): item indices, best (or first drawn) first; 0 where a user
            has fewer.
        scores (`torch.FloatTensor` of the same shape): their scores; minus infinity where a user has fewer.
        levels (`list[BeamLevel]`): the prefixes that each level kept, from the first code to the last.
        trie ([`CodeTrie`] or [`AllCodes`]): that `levels` are nodes of.
    """

    items: torch.Tensor
    scores: torch.Tensor
    levels: list[BeamLevel]
    trie: CodeTrie | AllCodes

    def paths(self) -> torch.LongTensor:
        """Returns raw codes `[users, beams, code_length]` of the last level's prefixes."""
        last = self.levels[-1].node
        place = torch.arange(last.shape[1], device=last.device).expand_as(last)
        codes = []
        for level in reversed(self.levels):
            codes.append(self.trie.last_code(level.node.gather(1, place)))
            place = level.parent.gather(1, place)
        return torch.stack(codes[::-1], dim=-1)

    def first(self, top_k: int) -> "Beam":
        """Returns the first `top_k` items, filled up with index 0 and minus infinity where fewer were found."""
        lacking = max(0, top_k - self.items.shape[1])
        items, scores = F.pad(self.items, (0, lacking)), F.pad(self.scores, (0, lacking), value=-torch.inf)
        return replace(self, items=items[:, :top_k], scores=scores[:, :top_k])

    @classmethod
    def join(cls, beams: "list[Beam]", rows: torch.LongTensor) -> "Beam":
        """Returns one beam of several that a search of one width found.

        Args:
            beams (`list[Beam]`): one or more.
            rows (`torch.LongTensor` of shape `(users,)`): the row that each of their users gets, in order.
        """
        place = rows.argsort()

        def joined(parts: list[torch.Tensor]) -> torch.Tensor:
            return torch.cat(parts)[place]

        levels = [
            BeamLevel(*(joined([getattr(level, name) for level in same]) for name in ("node", "parent", "log_p")))
            for same in zip(*(beam.levels for beam in beams))
        ]
        items, scores = (joined([getattr(beam, name) for beam in beams]) for name in ("items", "scores"))
        return cls(items, scores, levels, beams[0].trie)


class BeamDecoder:
    """Runs a model's decoder one code at a time over the beams of a batch of users: without dropout, differentiably.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): whose decoder and output vectors are used.
        encoded ([`EncodedBatch`]): the users' histories.
    """

    def __init__(self, model, encoded: EncodedBatch):
        self.model, self.decoder, states = model, model.decoder, encoded.states
        self.users, heads = len(states), self.decoder.config.num_heads
        self.lowest = torch.finfo(states.dtype).min
        cross_bias = self.decoder.cross_bias(encoded).expand(-1, heads, -1, -1)
        self.cross_bias = cross_bias.transpose(0, 1).flatten(0, 1)  # [heads * users, 1, positions]
        self.last_states = encoded.last_states()
        check_unhooked(self.decoder)
        self.self_attention = [HeadwiseAttention(block.layer[0].SelfAttention) for block in self.decoder.block]
        self.cross_attention = [HeadwiseAttention(block.layer[1].EncDecAttention) for block in self.decoder.block]
        self.cross_cache = [
            ([cross.project(states, cross.key)], [cross.project(states, cross.value)])
            for cross in self.cross_attention
        ]
        self.self_cache: list = [([], []) for _ in self.decoder.block]  # per layer: chunks of keys and of values
        self.ancestors: list[torch.Tensor] = []  # per step: which of its beams is each beam's own [users, beams]
        self.widths: list[int] = []  # per step: its beams
        self.start_states = states[:, :0]  # [users, 1, d_model] of the first step, the decoder start, once it was made

    def logits(self, tokens: torch.Tensor, parent: torch.Tensor | None = None) -> torch.Tensor:
        """Returns logits `(users, beams, codebook_size)` of the codes that follow; arguments as in `step`."""
        level = len(self.widths)
        return self.model.level_logits(self.step(tokens, parent), level)

    def step(self, tokens: torch.Tensor, parent: torch.Tensor | None = None) -> torch.Tensor:
        """Decoder states after one more code.

        Args:
            tokens (`torch.LongTensor` of shape `(users, beams)`): the codes' token ids.
            parent (`torch.LongTensor` of the same shape, *optional*): which beam of the step before each goes on
                from; left out in the first step.

        Returns:
            `torch.FloatTensor` `(users, beams, d_model)`.
        """
        hidden = self.decoder.embed(tokens, self.last_states)
        biases = self._ancestor_biases(tokens, parent, hidden.dtype)
        cross_bias = self.cross_bias.expand(-1, tokens.shape[1], -1)
        layers = zip(self.decoder.block, self.self_attention, self.cross_attention, self.self_cache, self.cross_cache)
        for block, attention, cross, (keys, values), (cross_keys, cross_values) in layers:
            normed = norm(block.layer[0].layer_norm, hidden)
            _append(keys, attention.project(normed, attention.key))
            _append(values, attention.project(normed, attention.value))
            hidden = attention.attend(hidden, attention.project(normed, attention.query), keys, values, biases)
            query = cross.project(norm(block.layer[1].layer_norm, hidden), cross.query)
            hidden = cross.attend(hidden, query, cross_keys, cross_values, [cross_bias])
            hidden = feed_forward(block, hidden)
        states = norm(self.decoder.final_layer_norm, hidden)
        if parent is None:
            self.start_states = states
        return states

    def _ancestor_biases(self, tokens, parent, dtype: torch.dtype) -> list[torch.Tensor]:
        """In chunks like keys, `[heads * users, beams, n]`: position bias on a beam's ancestors, else the lowest."""
        users, beams = tokens.shape
        if parent is not None:
            self.ancestors = [ancestor.gather(1, parent) for ancestor in self.ancestors[:-1]] + [parent]
        self.ancestors.append(torch.arange(beams, device=tokens.device).expand(users, beams))
        self.widths.append(beams)
        steps = len(self.widths)
        position_bias = (
            self.decoder.block[0].layer[0].SelfAttention.compute_bias(steps, steps, tokens.device)[0, :, -1]
        )
        biases: list[torch.Tensor] = []
        for step, (ancestor, width) in enumerate(zip(self.ancestors, self.widths)):
            is_own = ancestor.unsqueeze(2) == torch.arange(width, device=tokens.device)  # [users, beams, width]
            bias = torch.where(is_own, position_bias[:, step].view(-1, 1, 1, 1), self.lowest)
            _append(biases, bias.flatten(0, 1).to(dtype), dim=2)
        return biases


def _append(chunks: list[torch.Tensor], chunk: torch.Tensor, dim: int = 1) -> None:
    """Adds a step's chunk; the first step's single key is not worth products of its own and joins the second's."""
    if len(chunks) == 1 and chunks[0].shape[dim] == 1:
        chunks[0] = torch.cat([chunks[0], chunk], dim=dim)
    else:
        chunks.append(chunk)


def candidate_logits(decoder: BeamDecoder, tokens: torch.Tensor) -> torch.Tensor:
    """Scores each code of several candidates per user, given the codes before it.

    Args:
        decoder ([`BeamDecoder`]): over the users' encoded histories, not stepped yet.
        tokens (`torch.LongTensor` of shape `(users, candidates, code_length)`): the candidates' token ids.

    Returns:
        `torch.FloatTensor` `(users, candidates, code_length, codebook_size)` of logits.
    """
    users, candidates, code_length = tokens.shape
    first = decoder.logits(torch.zeros_like(tokens[:, :1, 0]))  # [users, 1, K], as no code comes before
    levels = [first.expand(-1, candidates, -1)]
    parent = torch.zeros_like(tokens[..., 0])  # all candidates go on from the decoder start, then each from itself
    for level in range(code_length - 1):
        levels.append(decoder.logits(tokens[..., level], parent))
        parent = torch.arange(candidates, device=tokens.device).expand(users, candidates)
    return torch.stack(levels, dim=2)


def beam_search(decoder: BeamDecoder, distribution: CodeDistribution, num_beams: int) -> Beam:
    """Finds each user's most probable items, level by level.

    Args:
        decoder ([`BeamDecoder`]): over the users' encoded histories, not stepped yet.
        distribution ([`CodeDistribution`]): of the codes.
        num_beams (`int`): prefixes that each level keeps.

    Returns:
        [`Beam`] of at most `num_beams` items per user. Its scores are log-probabilities in float32, those of the
        mixture where the distribution has votes.
    """

    def log_p_of_mixture(log_p, rank, node, level):
        return distribution.mixed(log_p, node, level)

    beam, rank = _search(decoder, distribution, num_beams, log_p_of_mixture)
    return Beam(beam.items, rank, beam.levels, beam.trie)


def stochastic_beam_search(
    decoder: BeamDecoder, distribution: CodeDistribution, num_samples: int, generator: torch.Generator | None = None
) -> Beam:
    """Draws distinct items per user without replacement.

    Args:
        decoder, distribution: as in [`beam_search`].
        num_samples (`int`): items that are drawn.
        generator (`torch.Generator`, *optional*): of the random numbers.

    Returns:
        [`Beam`] in the order of the draw. Its scores are log-probabilities in float32.

    Source: Kool, van Hoof and Welling, Stochastic Beams and Where to Find Them (2019).
    """

    def perturbed(log_p, rank, node, level):
        return _perturbed(log_p, rank, generator)

    return _search(decoder, distribution, num_samples, perturbed)[0]


def _search(decoder: BeamDecoder, distribution: CodeDistribution, width: int, rank_by) -> tuple[Beam, torch.Tensor]:
    """The `width` prefixes that rank highest at each level, and the last level's ranks.

    `rank_by` takes log-probabilities of prefixes `[users, beams, m]`, ranks of their parents `[users, beams]`, these
    parents and the level.
    """
    trie = distribution.trie
    tokens = torch.zeros((decoder.users, 1), dtype=torch.long, device=trie.device)  # the decoder start
    node, parent, levels = torch.zeros_like(tokens), None, []
    log_p = rank = torch.zeros((decoder.users, 1), device=trie.device)
    for level in range(trie.layout.code_length):
        steps, codes, child = distribution.steps(decoder.logits(tokens, parent), node, level)  # [users, beams, m]
        prefixes = log_p.unsqueeze(2) + steps
        ranks = rank_by(prefixes, rank, node, level)
        rank, best = ranks.flatten(1).topk(min(width, ranks[0].numel()), dim=1)
        parent = best // codes.shape[2]
        log_p, codes, node = (tensor.flatten(1).gather(1, best) for tensor in (prefixes, codes, child))
        levels.append(BeamLevel(node, parent, log_p))
        tokens = trie.layout.token_id(level, codes)
    return Beam(trie.item(node), log_p, levels, trie), rank


def _perturbed(log_p: torch.Tensor, rank: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Gumbel-perturbed log-probabilities of children `[users, beams, m]`, whose largest is their parent's `rank`."""
    noise = torch.rand(log_p.shape, device=log_p.device, generator=generator)
    perturbed = log_p - (-noise.clamp(min=1e-20).log()).log()
    top = perturbed.amax(2, keepdim=True)
    rank = rank.unsqueeze(2)
    gap = rank - perturbed + torch.log1p(-(perturbed - top).exp())
    shifted = rank - gap.clamp(min=0) - torch.log1p(-gap.abs().neg().exp().neg())
    return shifted.masked_fill(log_p == -torch.inf, -torch.inf)
