"""Layer-wise code beam search inside transformers' `generate`."""

import torch
from transformers import LogitsProcessor

from .code_trie import CodeTrie, ExcludedItems, log_probabilities
from .repeat_bias import RepeatBias


class CodeTrieLogitsProcessor(LogitsProcessor):
    """Keeps each decoding step to its level's codes, and to real items.

    Scores become log-probabilities over the level's codes (the slice `1 + level*K : 1 + (level+1)*K` of the
    vocabulary), everything else minus infinity. With a trie, codes that lead to no item are minus infinity too;
    the remaining ones are not normalised again, so that a beam's score is the model's log-probability of the item.
    A model whose `constrained_softmax` is on shares probability among its items alone: give its `catalogue` too.

    Args:
        code_length (`int`): L, codes an item.
        codebook_size (`int`): K, codes a level.
        trie ([`CodeTrie`], *optional*): the catalogue; without it any code of the level may follow.
        excluded ([`ExcludedItems`], *optional*): items that single users must not get.
        catalogue ([`CodeTrie`], *optional*): whose items' probabilities sum to 1, of which `trie` may hold a part.
        repeats ([`RepeatBias`], *optional*): over `catalogue`, of each user.

    Raises:
        ValueError: a trie of other codes.
    """

    def __init__(
        self,
        code_length: int,
        codebook_size: int,
        trie: CodeTrie | None = None,
        excluded: ExcludedItems | None = None,
        catalogue: CodeTrie | None = None,
        repeats: RepeatBias | None = None,
    ):
        if trie is not None and (trie.code_length, trie.codebook_size) != (code_length, codebook_size):
            raise ValueError(
                f"the trie's `code_length` is {trie.code_length} and its `codebook_size` {trie.codebook_size}; the "
                f"model has {code_length} and {codebook_size}: build the trie from the model's `item_codes`."
            )
        self.code_length = code_length
        self.codebook_size = codebook_size
        self.trie = trie
        self.excluded = excluded
        self.catalogue = catalogue
        self.repeats = repeats

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Masks `scores` `[rows, vocab_size]` given decoder ids `[rows, 1 + codes so far]`."""
        level = input_ids.shape[1] - 1  # the first id is the decoder start
        if level >= self.code_length:
            raise ValueError(
                f"decoding step {level + 1} goes beyond the {self.code_length} codes of an item; "
                f"keep `max_new_tokens` at {self.code_length}."
            )
        start = 1 + level * self.codebook_size
        offsets = 1 + torch.arange(level, device=input_ids.device) * self.codebook_size
        before = input_ids[:, 1:] - offsets
        known = before.new_zeros(len(before)) if self.catalogue is None else self.catalogue.walk(before)
        logits = scores[:, start : start + self.codebook_size]
        if self.repeats is not None:  # each user's rows are neighbours
            users = len(self.repeats.had.remaining)
            by_user = self.repeats.biased(logits.view(users, -1, self.codebook_size), known.view(users, -1), level)
            logits = by_user.flatten(0, 1)
        log_probs = log_probabilities(logits, self.catalogue, known, level)
        if log_probs.isnan().any():
            raise ValueError("the scores are NaN; the model's weights are damaged: load an earlier checkpoint.")
        if self.trie is not None:
            codes, child = self.trie.successors(self.trie.walk(before), level)  # [rows, m]
            if self.excluded is not None:  # each user's rows are neighbours
                users = len(self.excluded.remaining)
                child = self.excluded.without(child.view(users, -1), level).view(child.shape)
            log_probs = log_probs.masked_fill(~self.trie.as_mask(codes, child), -torch.inf)
        constrained = torch.full_like(scores, -torch.inf)
        constrained[:, start : start + self.codebook_size] = log_probs
        return constrained
