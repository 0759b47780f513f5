"""The policy of reinforcement learning: a recommender's distribution over codes, which samples and scores items."""

import torch

from ...models.beam_search import BeamDecoder, beam_search, stochastic_beam_search
from ...models.code_distribution import CodeDistribution, code_distribution
from ...models.code_trie import AllCodes, CodeTrie
from ...models.headwise_t5 import encode
from ...models.histories import EncodedBatch
from ...models.item_catalogue import ItemConstraints

ROLLOUTS = ("sample", "without_replacement", "beam")


class CodePolicy:
    """A distribution over items' codes: at each level, the softmax of `logits / temperature` over possible next codes.

    If constrained, the possible codes are those that lead to an item, and the probabilities of all items sum to 1.
    Otherwise they are all codes of the level. Sampling and scoring both read a [`CodeDistribution`], the one place
    where logits become probabilities.

    Top-k narrows only the codes that `sample` draws from, and not their log-probabilities. With narrowed
    probabilities, a code that leaves the top k after an update would have probability 0 and an infinite log-ratio.
    With log-probabilities over all codes, these are finite, and a ratio is 1 until the weights change. At the first
    level, updates have the same direction either way: the two kinds of log-probabilities differ there by one number
    per group, and advantages sum to 0.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the model that completions are sampled from.
        temperature (`float`): temperature; above 1, samples are more even.
        top_k (`int`): codes per level that `sample` draws from; 0 for all.
        constrained (`bool`): whether every completion is an item.
    """

    def __init__(self, model, temperature: float, top_k: int, constrained: bool):
        self.temperature, self.top_k = temperature, top_k
        self.model, self.constrained = model, constrained

    @property
    def trie(self) -> CodeTrie | AllCodes:
        """Returns the possible sequences of codes, on the model's device."""
        if self.constrained:
            return self.model.catalogue.trie
        return AllCodes(self.model.config.layout, self.model.device)

    def distribution(self, encoded: EncodedBatch, temperature: float | None) -> CodeDistribution:
        """Returns the distribution over codes for encoded histories."""
        if self.constrained:
            return code_distribution(self.model, encoded, ItemConstraints(self.model.catalogue.trie), temperature)
        return CodeDistribution(self.trie, temperature=temperature)

    def log_probs(self, logits: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores completions.

        Args:
            logits (`torch.FloatTensor` of shape `(groups, completions, code_length, codebook_size)`): logits that a
                model's `forward` returns for the completions as `candidates`.
            codes (`torch.LongTensor` of shape `(groups, completions, code_length)`): raw codes `0..K-1` of completions
                that the policy can sample.

        Returns:
            log-probabilities and entropies (in nats) of every code, `(groups, completions, code_length)` each.
        """
        # the model's further terms are in its logits already
        distribution, node = CodeDistribution(self.trie, temperature=self.temperature), torch.zeros_like(codes[..., 0])
        log_probs, entropies = [], []
        for level in range(codes.shape[-1]):
            steps, follow, child = distribution.steps(logits[..., level, :], node, level)  # [groups, completions, m]
            taken = (follow == codes[..., level, None]) & (child >= 0)
            log_probs.append(steps.masked_fill(~taken, 0).sum(-1))
            entropies.append(-(steps.exp() * steps.masked_fill(child < 0, 0)).sum(-1))
            node = child.masked_fill(~taken, 0).sum(-1)
        return torch.stack(log_probs, dim=-1), torch.stack(entropies, dim=-1)

    @torch.no_grad()
    def roll_out(self, encoded: EncodedBatch, kind: str, group: int) -> tuple[torch.LongTensor, torch.FloatTensor]:
        """Finds completions of each history.

        Args:
            encoded ([`EncodedBatch`]): the histories.
            kind (`str`): `"sample"` draws each completion independently, code by code. `"without_replacement"` draws
                distinct completions by stochastic beam search. `"beam"` takes the results of a beam search.
            group (`int`): completions per history.

        Returns:
            raw codes `[histories, group, code_length]`, and log-probabilities of whole completions,
            `[histories, group]`, for ranking them.
        """
        decoder = BeamDecoder(self.model, encoded)
        if kind == "sample":
            return self._sample(decoder, self.distribution(encoded, self.temperature), group)
        if kind == "without_replacement":
            beam = stochastic_beam_search(decoder, self.distribution(encoded, self.temperature), group)
        else:
            beam = beam_search(decoder, self.distribution(encoded, temperature=None), group)
        return beam.paths(), beam.scores

    def _sample(
        self, decoder: BeamDecoder, distribution: CodeDistribution, group: int
    ) -> tuple[torch.LongTensor, torch.FloatTensor]:
        layout, device = distribution.trie.layout, distribution.trie.device
        tokens = torch.zeros((decoder.users, 1), dtype=torch.long, device=device)  # the decoder start
        node, parent = tokens, None
        log_p = torch.zeros((decoder.users, group), device=device)
        drawn = []
        for level in range(layout.code_length):
            steps, codes, child = distribution.steps(decoder.logits(tokens, parent), node, level)
            # all first codes of a group come from one distribution, each later code comes from its own
            draws = group if level == 0 else 1
            weights = self._narrowed(steps).exp().flatten(0, 1)  # [histories * (1 or group), m]
            choice = torch.multinomial(weights, draws, replacement=True).view(len(steps), -1, draws)
            code, node, gained = (tensor.gather(2, choice).flatten(1) for tensor in (codes, child, steps))
            log_p = log_p + gained
            drawn.append(code)
            own = torch.arange(group, device=device) if level else torch.zeros_like(code[0])
            tokens, parent = layout.token_id(level, code), own.expand(len(code), -1)
        return torch.stack(drawn, dim=-1), log_p

    def _narrowed(self, steps: torch.Tensor) -> torch.Tensor:
        """Returns log-probabilities `[*, m]` in which all but the k largest are minus infinity."""
        if not 0 < self.top_k < steps.shape[-1]:
            return steps
        return steps.masked_fill(steps < steps.topk(self.top_k).values[..., -1:], -torch.inf)


def encode_distinct(model, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> EncodedBatch:
    """Encodes each distinct history once, without dropout.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the model with the encoder.
        input_ids, attention_mask (`torch.LongTensor` of shape `(histories, tokens)`): histories that are all padded on
            the same side.

    Returns:
        [`EncodedBatch`] of all histories, without columns that hold only padding.
    """
    used = attention_mask.any(0)
    read = (input_ids * attention_mask)[:, used]
    distinct, place = torch.unique(read, dim=0, return_inverse=True)
    mask = (distinct > 0).long()
    states = encode(model.encoder, distinct, mask, model.item_vectors(distinct))
    return EncodedBatch(read, mask[place], states[place])
