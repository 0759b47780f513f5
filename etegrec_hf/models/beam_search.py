"""The batched beam search over codes of `recommend`, and a variant that samples without replacement.

Each user is encoded once, and cross-attention keys and values are computed once per user. The user's beams are
positions of the query axis of attention. The self-attention keys of all beams of all levels so far are kept in one
row, in which a mask shows each beam its own ancestors. So nothing is copied or reordered per beam.
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
        node (`torch.LongTensor` of shape `(users, beams)`): trie nodes of the prefixes; -1 where a user has fewer.
        parent (`torch.LongTensor` of the same shape): column of each prefix's parent in the level before.
        log_p (`torch.FloatTensor` of the same shape): log-probabilities of the prefixes.
    """

    node: torch.Tensor
    parent: torch.Tensor
    log_p: torch.Tensor


@dataclass(frozen=True, eq=False)
class Beam:
    """The items that a search found, and the prefixes that led to them.

    Args:
        items (`torch.LongTensor` of shape `(users, found)`): item indices, best (or first drawn) first; shorter lists
            are padded with 0.
        scores (`torch.FloatTensor` of the same shape): scores of the items; -inf on padding.
        levels (`list[BeamLevel]`): the prefixes that each level kept, from the first code to the last.
        trie ([`CodeTrie`] or [`AllCodes`]): the trie that the nodes in `levels` belong to.
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
        """Returns the first `top_k` items; shorter lists are padded with index 0 and score -inf."""
        lacking = max(0, top_k - self.items.shape[1])
        items, scores = F.pad(self.items, (0, lacking)), F.pad(self.scores, (0, lacking), value=-torch.inf)
        return replace(self, items=items[:, :top_k], scores=scores[:, :top_k])

    @classmethod
    def join(cls, beams: "list[Beam]", rows: torch.LongTensor) -> "Beam":
        """Joins the beams of several batches of users into one.

        Args:
            beams (`list[Beam]`): one or more beams, found with the same `num_beams`.
            rows (`torch.LongTensor` of shape `(users,)`): for each user, in the order of `beams`, the row of the
                result.
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
    """Runs a model's decoder over the beams of a batch of users, one code at a time.

    It applies no dropout and can be differentiated.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the model whose decoder and output vectors are used.
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
        self.ancestors: list[torch.Tensor] = []  # per step: the beam of that step which each beam descends from
        self.widths: list[int] = []  # per step: number of beams
        self.start_states = states[:, :0]  # after the first step: its states [users, 1, d_model], at the decoder start

    def logits(self, tokens: torch.Tensor, parent: torch.Tensor | None = None) -> torch.Tensor:
        """Returns logits `(users, beams, codebook_size)` of the next codes; arguments as in `step`."""
        level = len(self.widths)
        return self.model.level_logits(self.step(tokens, parent), level)

    def step(self, tokens: torch.Tensor, parent: torch.Tensor | None = None) -> torch.Tensor:
        """Returns decoder states after one more code.

        Args:
            tokens (`torch.LongTensor` of shape `(users, beams)`): the codes' token ids.
            parent (`torch.LongTensor` of the same shape, *optional*): for each beam, the beam of the step before that
                it continues; left out in the first step.

        Returns:
            `torch.FloatTensor` of shape `(users, beams, d_model)`.
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
        """Returns attention biases in chunks like the keys, `[heads * users, beams, n]`.

        A beam's ancestors get the position bias, all other keys the lowest number.
        """
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
    """Adds a step's chunk to a list; a single key of the first step joins the second chunk, which saves products."""
    if len(chunks) == 1 and chunks[0].shape[dim] == 1:
        chunks[0] = torch.cat([chunks[0], chunk], dim=dim)
    else:
        chunks.append(chunk)


def candidate_logits(decoder: BeamDecoder, tokens: torch.Tensor) -> torch.Tensor:
    """Scores each code of several candidates per user, given the codes before it.

    Args:
        decoder ([`BeamDecoder`]): a decoder of the users' histories that has made no step yet.
        tokens (`torch.LongTensor` of shape `(users, candidates, code_length)`): the candidates' token ids.

    Returns:
        `torch.FloatTensor` of shape `(users, candidates, code_length, codebook_size)`: logits.
    """
    users, candidates, code_length = tokens.shape
    first = decoder.logits(torch.zeros_like(tokens[:, :1, 0]))  # [users, 1, K], the same for all candidates
    levels = [first.expand(-1, candidates, -1)]
    parent = torch.zeros_like(tokens[..., 0])  # all candidates continue the decoder start, later each continues itself
    for level in range(code_length - 1):
        levels.append(decoder.logits(tokens[..., level], parent))
        parent = torch.arange(candidates, device=tokens.device).expand(users, candidates)
    return torch.stack(levels, dim=2)


def beam_search(decoder: BeamDecoder, distribution: CodeDistribution, num_beams: int) -> Beam:
    """Finds each user's most probable items, level by level.

    Args:
        decoder ([`BeamDecoder`]): a decoder of the users' histories that has made no step yet.
        distribution ([`CodeDistribution`]): the distribution over codes.
        num_beams (`int`): number of prefixes that each level keeps.

    Returns:
        [`Beam`] of at most `num_beams` items per user. Its scores are log-probabilities in float32. If the
        distribution has votes, they are those of the mixture of model and votes.
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
        num_samples (`int`): number of items that are drawn.
        generator (`torch.Generator`, *optional*): source of the random numbers.

    Returns:
        [`Beam`] in the order of the draw. Its scores are log-probabilities in float32.

    Source: Kool, van Hoof and Welling, Stochastic Beams and Where to Find Them (2019).
    """

    def perturbed(log_p, rank, node, level):
        return _perturbed(log_p, rank, generator)

    return _search(decoder, distribution, num_samples, perturbed)[0]


def _search(decoder: BeamDecoder, distribution: CodeDistribution, width: int, rank_by) -> tuple[Beam, torch.Tensor]:
    """Returns the `width` prefixes that rank highest at each level, and the last level's ranks.

    `rank_by` returns ranks, given the log-probabilities of prefixes `[users, beams, m]`, the ranks of their parents
    `[users, beams]`, the parents' nodes and the level.
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
    """Returns Gumbel-perturbed log-probabilities of children `[users, beams, m]`; the largest equals `rank`.

    `rank` `[users, beams]` holds the perturbed log-probabilities of the parents.
    """
    noise = torch.rand(log_p.shape, device=log_p.device, generator=generator)
    perturbed = log_p - (-noise.clamp(min=1e-20).log()).log()
    top = perturbed.amax(2, keepdim=True)
    rank = rank.unsqueeze(2)
    gap = rank - perturbed + torch.log1p(-(perturbed - top).exp())
    shifted = rank - gap.clamp(min=0) - torch.log1p(-gap.abs().neg().exp().neg())
    return shifted.masked_fill(log_p == -torch.inf, -torch.inf)
