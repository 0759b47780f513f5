"""What a recommender is to reinforcement learning: a distribution over codes, to sample from and to score with."""

from typing import Any

import torch

from ...models.beam_search import BeamDecoder, code_beam_search
from ...models.headwise_t5 import encode
from ...models.repeat_bias import RepeatBias

ROLLOUTS = ("sample", "without_replacement", "beam")


class AllCodes:
    """Stands in for a [`CodeTrie`] where any code may follow any: its nodes are prefixes, numbered in base K.

    Args:
        code_length (`int`): L.
        codebook_size (`int`): K.
        device (`torch.device`): where its nodes live.

    Raises:
        ValueError: more paths than 63 bits can number.
    """

    def __init__(self, code_length: int, codebook_size: int, device: torch.device):
        if codebook_size**code_length >= 2**63:
            raise ValueError(
                f"`constrained` is False, and {codebook_size} codes on {code_length} levels are more paths than 63 "
                "bits can number; train constrained."
            )
        self.code_length, self.codebook_size, self.device = code_length, codebook_size, device

    def successors(self, node: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As [`CodeTrie.successors`]: all K codes."""
        codes = torch.arange(self.codebook_size, device=node.device).expand(*node.shape, -1)
        return codes, node.unsqueeze(-1) * self.codebook_size + codes

    def item(self, node: torch.Tensor) -> torch.Tensor:
        """The number of a full path, which [`AllCodes.codes`] reads."""
        return node

    def codes(self, path: torch.Tensor) -> torch.Tensor:
        """Codes `[*, code_length]` of full paths."""
        places = self.codebook_size ** torch.arange(self.code_length - 1, -1, -1, device=path.device)
        return path.unsqueeze(-1) // places % self.codebook_size


class CodePolicy:
    """The distribution whose steps are the softmax of `logits / temperature` over the codes that may follow.

    With a trie those are codes that lead to an item, so that the probabilities of all items sum to 1; without, all
    codes of the level. Sampling and scoring share `steps`, the one place where logits become probabilities.

    Top-k narrows what `sample` draws from and nothing else. Scored by the narrowed distribution, a code that leaves
    the top k after an update would have probability 0 and an infinite log-ratio. Over the whole distribution, log-
    probabilities stay finite and a ratio is 1 until the weights change. The direction of an update is the same at the
    first level, where a group has one set of codes: the two log-probabilities differ there by a number common to the
    group, which advantages that sum to 0 cancel.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): whose catalogue counts; the weights are given at each call.
        temperature (`float`): above 1 samples more evenly.
        top_k (`int`): codes that `sample` draws from at each level; 0 for all.
        constrained (`bool`): whether every completion is an item.
    """

    def __init__(self, model, temperature: float, top_k: int, constrained: bool):
        self.temperature, self.top_k = temperature, top_k
        self.model, self.constrained = model, constrained
        if not constrained:
            AllCodes(model.config.code_length, model.config.codebook_size, model.device)  # raises what is too large

    @property
    def trie(self) -> Any:
        """The paths that may be taken, a [`CodeTrie`] or [`AllCodes`], on the model's device."""
        if self.constrained:
            return self.model.code_trie
        return AllCodes(self.model.config.code_length, self.model.config.codebook_size, self.model.device)

    def steps(
        self, trie, logits: torch.Tensor, node: torch.Tensor, level: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probabilities of the codes that may follow each node.

        Args:
            trie ([`CodeTrie`] or [`AllCodes`]): the paths.
            logits (`torch.FloatTensor` of shape `(*, codebook_size)`): of one level.
            node (`torch.LongTensor` of shape `(*)`): where the codes so far lead.
            level (`int`): how many codes those are.

        Returns:
            log-probabilities in float32, codes and child nodes, each `(*, m)`; minus infinity, 0 and -1 in unused
            places.
        """
        codes, child = trie.successors(node, level)
        scaled = (logits.float() / self.temperature).gather(-1, codes)
        return scaled.masked_fill(child < 0, -torch.inf).log_softmax(-1), codes, child

    def log_probs(self, logits: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores completions.

        Args:
            logits (`torch.FloatTensor` of shape `(groups, completions, code_length, codebook_size)`): given the codes
                before each.
            codes (`torch.LongTensor` of shape `(groups, completions, code_length)`): raw codes `0..K-1` of paths that
                the policy can take.

        Returns:
            log-probabilities and entropies (in nats) of every step, `(groups, completions, code_length)` each.
        """
        trie, node = self.trie, torch.zeros_like(codes[..., 0])
        log_probs, entropies = [], []
        for level in range(codes.shape[-1]):
            steps, follow, child = self.steps(trie, logits[..., level, :], node, level)  # [groups, completions, m]
            taken = (follow == codes[..., level, None]) & (child >= 0)
            log_probs.append(steps.masked_fill(~taken, 0).sum(-1))
            entropies.append(-(steps.exp() * steps.masked_fill(child < 0, 0)).sum(-1))
            node = child.masked_fill(~taken, 0).sum(-1)
        return torch.stack(log_probs, dim=-1), torch.stack(entropies, dim=-1)

    @torch.no_grad()
    def roll_out(
        self, decoder: BeamDecoder, level_logits, kind: str, group: int, repeats: RepeatBias | None = None
    ) -> tuple[torch.LongTensor, torch.FloatTensor]:
        """Completions of each history.

        Args:
            decoder ([`BeamDecoder`]): over the encoded histories, not stepped yet.
            level_logits (`Callable`): decoder states and a level to logits over that level's K codes.
            kind (`str`): `"sample"` draws each completion by itself, code by code; `"without_replacement"` draws
                distinct ones by stochastic beam search; `"beam"` takes those that a beam search finds.
            group (`int`): completions a history.
            repeats ([`RepeatBias`], *optional*): the model's, of these histories.

        Returns:
            raw codes `[histories, group, code_length]`, and log-probabilities `[histories, group]` of whole
            completions, by which they can be ranked.
        """
        trie = self.trie
        if kind == "sample":
            return self._sample(trie, decoder, level_logits, group, repeats)
        temperature = self.temperature if kind == "without_replacement" else None
        catalogue = trie if self.constrained and self.model.config.constrained_softmax else None
        paths, log_p = code_beam_search(decoder, level_logits, trie, group, None, catalogue, repeats, temperature)
        paths, log_p = paths[:, :group], log_p[:, :group]
        return self.model.item_codes[paths - 1] if self.constrained else trie.codes(paths), log_p

    def _sample(self, trie, decoder, level_logits, group, repeats) -> tuple[torch.LongTensor, torch.FloatTensor]:
        tokens = torch.zeros((decoder.users, 1), dtype=torch.long, device=trie.device)  # the decoder start
        node, parent = tokens, None
        log_p = torch.zeros((decoder.users, group), device=trie.device)
        drawn = []
        for level in range(trie.code_length):
            logits = level_logits(decoder.step(tokens, parent), level)  # [histories, 1 or group, K]
            if repeats is not None:
                logits = repeats.biased(logits, node, level)
            steps, codes, child = self.steps(trie, logits, node, level)
            # all of a group's first codes come from one distribution, later ones from one of their own each
            draws = group if level == 0 else 1
            weights = self._narrowed(steps).exp().flatten(0, 1)  # [histories * (1 or group), m]
            choice = torch.multinomial(weights, draws, replacement=True).view(len(steps), -1, draws)
            code, node, gained = (tensor.gather(2, choice).flatten(1) for tensor in (codes, child, steps))
            log_p = log_p + gained
            drawn.append(code)
            own = torch.arange(group, device=trie.device) if level else torch.zeros_like(code[0])
            tokens, parent = 1 + level * trie.codebook_size + code, own.expand(len(code), -1)
        return torch.stack(drawn, dim=-1), log_p

    def _narrowed(self, steps: torch.Tensor) -> torch.Tensor:
        """Log-probabilities `[*, m]` with those below the k largest at minus infinity."""
        if not 0 < self.top_k < steps.shape[-1]:
            return steps
        return steps.masked_fill(steps < steps.topk(self.top_k).values[..., -1:], -torch.inf)


def encode_distinct(model, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Encodes each distinct history once, without dropout.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): whose encoder reads them.
        input_ids, attention_mask (`torch.LongTensor` of shape `(histories, tokens)`): padded on one and the same side.

    Returns:
        states `[histories, used, d_model]` and attention mask `[histories, used]`, without columns of padding alone.
    """
    used = attention_mask.any(0)
    distinct, place = torch.unique((input_ids * attention_mask)[:, used], dim=0, return_inverse=True)
    mask = (distinct > 0).long()
    return encode(model.encoder, distinct, mask, model.item_vectors(distinct))[place], mask[place]
