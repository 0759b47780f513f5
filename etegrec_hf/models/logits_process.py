"""The logits processor that restricts transformers' `generate` to items."""

import torch
from transformers import LogitsProcessor

from .code_distribution import CodeDistribution


class CodeTrieLogitsProcessor(LogitsProcessor):
    """Restricts each decoding step to the codes of its level that lead to items of a [`CodeDistribution`].

    Scores are replaced by the distribution's log-probabilities of the codes that may follow, and by -inf for all other
    token ids. So a beam's score is the model's log-probability of the item.

    Args:
        distribution ([`CodeDistribution`]): the distribution over codes, for as many users as `generate` is given. The
            rows of a user follow each other, as they do in `generate`.
    """

    def __init__(self, distribution: CodeDistribution):
        self.distribution = distribution

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Returns log-probabilities that replace `scores` `[rows, vocab_size]`.

        `input_ids` are the decoder start and the codes so far.

        Raises:
            ValueError: a step beyond an item's codes.
            ValueError: scores of another vocabulary.
            ValueError: scores that are NaN.
        """
        trie = self.distribution.trie
        layout, level = trie.layout, input_ids.shape[1] - 1  # the first id is the decoder start
        if level >= layout.code_length:
            raise ValueError(
                f"decoding step {level + 1} goes beyond the {layout.code_length} codes of an item; "
                f"keep `max_new_tokens` at {layout.code_length}."
            )
        if scores.shape[1] != layout.vocab_size:
            raise ValueError(
                f"the trie has {layout.code_length} codes per item out of {layout.codebook_size}, a vocabulary of "
                f"{layout.vocab_size} token ids, but there are scores for {scores.shape[1]}; build the trie from the "
                "model's `item_codes`."
            )
        by_user = (self.distribution.n_users, -1)
        node = trie.walk(layout.codes(input_ids[:, 1:])).view(by_user)
        logits = scores[:, layout.of_level(level)].unflatten(0, by_user)
        log_p, codes, child = self.distribution.steps(logits, node, level)  # [users, rows of each, m]
        if log_p.isnan().any():
            raise ValueError("the scores are NaN; the model's weights are damaged: load an earlier checkpoint.")
        tokens = layout.token_id(level, codes).masked_fill(child < 0, 0)  # padding of shorter rows goes to token id 0
        constrained = torch.full_like(scores, -torch.inf)
        return constrained.scatter_(1, tokens.flatten(0, 1), log_p.flatten(0, 1).to(scores.dtype))
