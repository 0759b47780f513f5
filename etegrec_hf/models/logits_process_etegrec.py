"""Layer-wise code beam search inside transformers' `generate`."""

import torch
from transformers import LogitsProcessor

from .code_trie import CodeTrie


class CodeTrieLogitsProcessor(LogitsProcessor):
    """Keeps each decoding step to its level's codes, and to real items.

    Scores become log-probabilities over the level's codes (the slice `1 + level*K : 1 + (level+1)*K` of the
    vocabulary), everything else minus infinity. With a trie, codes that lead to no item are minus infinity too;
    the remaining ones are not normalised again, so that a beam's score is the model's log-probability of the item.

    Args:
        code_length (`int`): L, codes an item.
        codebook_size (`int`): K, codes a level.
        trie ([`CodeTrie`], *optional*): the catalogue; without it any code of the level may follow.
    """

    def __init__(self, code_length: int, codebook_size: int, trie: CodeTrie | None = None):
        self.code_length = code_length
        self.codebook_size = codebook_size
        self.trie = trie

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Masks `scores` `[rows, vocab_size]` given decoder ids `[rows, 1 + codes so far]`."""
        level = input_ids.shape[1] - 1  # the first id is the decoder start
        if level >= self.code_length:
            raise ValueError(
                f"decoding step {level + 1} goes beyond the {self.code_length} codes of an item; "
                f"keep `max_new_tokens` at {self.code_length}."
            )
        start = 1 + level * self.codebook_size
        log_probs = scores[:, start : start + self.codebook_size].log_softmax(-1)
        if self.trie is not None:
            offsets = 1 + torch.arange(level, device=input_ids.device) * self.codebook_size
            node = self.trie.walk(input_ids[:, 1:] - offsets)
            log_probs = log_probs.masked_fill(~self.trie.children(node, level), -torch.inf)
        constrained = torch.full_like(scores, -torch.inf)
        constrained[:, start : start + self.codebook_size] = log_probs
        return constrained
