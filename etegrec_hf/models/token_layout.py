"""The layout of the model's vocabulary: the token ids of each level's codes."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TokenLayout:
    """One flat vocabulary for the codes of all levels: token id 0 is padding, code c of level l is `1 + l * K + c`.

    Args:
        code_length (`int`): L, codes per item.
        codebook_size (`int`): K, codes per level.
    """

    code_length: int
    codebook_size: int

    @property
    def vocab_size(self) -> int:
        """Number of token ids: one for padding, and K for each of L levels."""
        return 1 + self.code_length * self.codebook_size

    def token_id(self, level: int, code):
        """Returns the token id of a code, or of a tensor of codes of one level."""
        return 1 + level * self.codebook_size + code

    def level_of(self, token_id):
        """Returns the level that a token id belongs to; -1 for padding."""
        return (token_id - 1) // self.codebook_size

    def token_ids(self, codes: torch.LongTensor) -> torch.LongTensor:
        """Returns token ids of raw codes `[*, up to code_length]`; the last dimension is levels, from the first."""
        return codes + self._first_token_ids(codes)

    def codes(self, token_ids: torch.LongTensor) -> torch.LongTensor:
        """Returns raw codes of token ids `[*, up to code_length]`; numbers below 0 for padding."""
        return token_ids - self._first_token_ids(token_ids)

    def of_level(self, level: int) -> slice:
        """Returns the part of the vocabulary that holds a level's K codes."""
        first = self.token_id(level, 0)
        return slice(first, first + self.codebook_size)

    def _first_token_ids(self, like: torch.Tensor) -> torch.Tensor:
        """Returns the token ids of each level's code 0, for as many levels as `like` has."""
        return self.token_id(torch.arange(like.shape[-1], device=like.device), 0)
