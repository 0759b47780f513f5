"""The batched code beam search behind `recommend`, and its twin that samples without replacement.

A user is encoded once, and a user's beams ride the query axis of attention: cross-attention keys and values are
computed once a user, and the self-attention keys of all beams of all levels so far stand side by side, where a mask
shows each beam its own ancestors. Nothing is expanded or reordered by beam.
"""

import torch

from .code_trie import CodeTrie, ExcludedItems, log_probabilities
from .headwise_t5 import HeadwiseAttention, feed_forward, norm
from .history_encoder import additive
from .item_transitions import TransitionVotes
from .repeat_bias import RepeatBias


class BeamDecoder:
    """Runs a T5 decoder one code at a time over the beams of a batch of users, without dropout, and differentiably.

    Args:
        decoder (`T5Stack`): the decoder.
        states (`torch.FloatTensor` of shape `(users, tokens, d_model)`): encoder states of the users' histories.
        attention_mask (`torch.LongTensor` of shape `(users, tokens)`): 0 on padding.
    """

    def __init__(self, decoder, states: torch.Tensor, attention_mask: torch.Tensor):
        self.decoder = decoder
        self.users, heads = len(states), decoder.config.num_heads
        self.lowest = torch.finfo(states.dtype).min
        cross_bias = additive(attention_mask.unsqueeze(1) > 0, states.dtype)
        self.cross_bias = cross_bias.repeat(heads, 1, 1)  # [heads * users, 1, tokens]
        self.self_attention = [HeadwiseAttention(block.layer[0].SelfAttention) for block in decoder.block]
        self.cross_attention = [HeadwiseAttention(block.layer[1].EncDecAttention) for block in decoder.block]
        self.cross_cache = [
            ([cross.project(states, cross.key)], [cross.project(states, cross.value)])
            for cross in self.cross_attention
        ]
        self.self_cache: list = [([], []) for _ in decoder.block]  # a layer: chunks of keys and of values
        self.ancestors: list[torch.Tensor] = []  # a step so far: which of its beams is each beam's own [users, beams]
        self.widths: list[int] = []  # a step so far: its beams
        self.start_states = states[:, :0]  # [users, 1, d_model] of the first step, the decoder start, once it was made

    def step(self, tokens: torch.Tensor, parent: torch.Tensor | None = None) -> torch.Tensor:
        """Decoder states after one more code.

        Args:
            tokens (`torch.LongTensor` of shape `(users, beams)`): the codes' token ids.
            parent (`torch.LongTensor` of the same shape, *optional*): which beam of the step before each goes on
                from; left out in the first step.

        Returns:
            `torch.FloatTensor` `(users, beams, d_model)`.
        """
        hidden = self.decoder.embed_tokens(tokens)
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
        position_bias = self.decoder.block[0].layer[0].SelfAttention.compute_bias(steps, steps)[0, :, -1]
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


def candidate_states(decoder: BeamDecoder, tokens: torch.Tensor) -> list[torch.Tensor]:
    """Decoder states that score each code of several candidates a user, given the codes before it.

    Args:
        decoder ([`BeamDecoder`]): over the users' encoded histories, not stepped yet.
        tokens (`torch.LongTensor` of shape `(users, candidates, code_length)`): the candidates' token ids.

    Returns:
        a level: states `[users, candidates, d_model]`; of the first level `[users, 1, d_model]`, as nothing stands
        before its code.
    """
    users, candidates, code_length = tokens.shape
    states = [decoder.step(torch.zeros_like(tokens[:, :1, 0]))]
    parent = torch.zeros_like(tokens[..., 0])  # all candidates go on from the decoder start, then each from itself
    for level in range(code_length - 1):
        states.append(decoder.step(tokens[..., level], parent))
        parent = torch.arange(candidates, device=tokens.device).expand(users, candidates)
    return states


def code_beam_search(
    decoder: BeamDecoder,
    level_logits,
    trie: CodeTrie,
    num_beams: int,
    excluded: ExcludedItems | None = None,
    catalogue: CodeTrie | None = None,
    repeats: RepeatBias | None = None,
    temperature: float | None = None,
    generator: torch.Generator | None = None,
    kept: list | None = None,
    votes: TransitionVotes | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Finds each user's most probable items, or samples distinct ones, level by level.

    Args:
        decoder ([`BeamDecoder`]): over the users' encoded histories.
        level_logits (`Callable`): decoder states and a level to logits over that level's K codes.
        trie ([`CodeTrie`]): the items that may be returned.
        num_beams (`int`): prefixes kept a level.
        excluded ([`ExcludedItems`], *optional*): items that single users must not get.
        catalogue ([`CodeTrie`], *optional*): whose items' probabilities sum to 1, of which `trie` may hold a part. By
            default each level's codes have probabilities that do.
        repeats ([`RepeatBias`], *optional*): over `catalogue`.
        temperature (`float`, *optional*): by default the search is deterministic. A number makes it a stochastic beam
            search: a sample without replacement from the distribution whose steps are the softmax of
            `logits / temperature` over the codes that may follow.
        generator (`torch.Generator`, *optional*): of that sample.
        kept (`list`, *optional*): to which each level's beam is appended, to be shown: trie nodes (-1: none), the
            beam of the level before that each goes on from, and log-probabilities, all `[users, beams]`.
        votes ([`TransitionVotes`], *optional*): over `trie`, which the model is mixed with, but in a sample.

    Returns:
        item indices `[users, found]` and log-probabilities `[users, found]` in float32, best (or first drawn) first,
        where `found` is at most `num_beams`; index 0 and minus infinity where a user has fewer. Log-probabilities are
        the model's, those of its mixture with `votes`, or those of the distribution sampled from.

    Source: Kool, van Hoof and Welling, Stochastic Beams and Where to Find Them (2019), for the sample.
    """
    tokens = torch.zeros((decoder.users, 1), dtype=torch.long, device=trie.device)  # the decoder start
    node, parent = torch.zeros_like(tokens), None
    known = node  # the same prefixes in `catalogue`
    score = rank = torch.zeros((decoder.users, 1), device=trie.device)
    for level in range(trie.code_length):
        states = decoder.step(tokens, parent)  # [users, beams, d]
        logits = level_logits(states, level).float()  # [users, beams, K]
        if repeats is not None:
            logits = repeats.biased(logits, known, level)
        codes, child = trie.successors(node, level)  # [users, beams, m]
        if excluded is not None:
            child = excluded.without(child, level)
        if temperature is None:
            steps = log_probabilities(logits, catalogue, known, level).gather(2, codes)
        else:
            steps = (logits / temperature).gather(2, codes).masked_fill(child < 0, -torch.inf).log_softmax(-1)
        candidates = (score.unsqueeze(2) + steps).masked_fill(child < 0, -torch.inf)
        ranks = candidates
        if temperature is not None:
            ranks = _perturbed(candidates, rank, generator)
        elif votes is not None:
            ranks = votes.mixed(candidates, node, level)
        rank, best = ranks.flatten(1).topk(min(num_beams, ranks[0].numel()), dim=1)
        parent = best // codes.shape[2]
        score, codes, node = (tensor.flatten(1).gather(1, best) for tensor in (candidates, codes, child))
        if kept is not None:
            kept.append((node, parent, score))
        known = node if catalogue is None or catalogue is trie else catalogue.advance(known.gather(1, parent), codes)
        tokens = 1 + level * trie.codebook_size + codes
    return trie.item(node), score if temperature is not None or votes is None else rank


def _perturbed(candidates: torch.Tensor, rank: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Gumbel-perturbed log-probabilities of children `[users, beams, m]`, whose largest is their parent's `rank`."""
    noise = torch.rand(candidates.shape, device=candidates.device, generator=generator)
    perturbed = candidates - (-noise.clamp(min=1e-20).log()).log()
    top = perturbed.amax(2, keepdim=True)
    rank = rank.unsqueeze(2)
    gap = rank - perturbed + torch.log1p(-(perturbed - top).exp())
    shifted = rank - gap.clamp(min=0) - torch.log1p(-gap.abs().neg().exp().neg())
    return shifted.masked_fill(candidates == -torch.inf, -torch.inf)
