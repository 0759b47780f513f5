"""The items of a recommender: their codes, their trie and their semantic embeddings."""

from typing import Any

import torch

from .code_trie import CodeTrie


class ItemCatalogueMixin:
    """What a model knows of its items.

    The tables `item_tokens` and `semantic_embedding` are saved with its weights.
    """

    config: Any  # ETEGRecConfig
    item_tokens: torch.Tensor  # [n_items + 1, code_length] token ids, row 0 padding
    semantic_embedding: torch.Tensor | None  # [n_items + 1, input_size], row 0 padding
    _code_trie: CodeTrie | None

    @property
    def item_codes(self) -> torch.LongTensor:
        """Raw codes `0..K-1` of all items, `[n_items, code_length]`."""
        return self.item_tokens[1:] - self._level_offsets()

    @property
    def code_trie(self) -> CodeTrie:
        """The trie of `item_tokens`, built when first used.

        Raises:
            ValueError: the model has no codes yet, or a checkpoint holds codes that are no codes or not unique.
        """
        if self._code_trie is None:
            if not self.item_tokens.any():
                raise ValueError("`item_tokens` is empty; give the model its catalogue with `set_item_codes`.")
            self._code_trie = CodeTrie.from_item_codes(self.item_codes, self.config.codebook_size)
        if self._code_trie.device != self.item_tokens.device:
            self._code_trie = self._code_trie.to(self.item_tokens.device)
        return self._code_trie

    def set_item_codes(self, codes: torch.LongTensor) -> None:
        """Makes `codes` the catalogue's.

        Args:
            codes (`torch.LongTensor` of shape `(n_items, code_length)`): raw codes `0..codebook_size-1`, row i for
                item index i + 1.

        Raises:
            ValueError: wrong shape, codes out of range or not unique. The model is then as it was.
        """
        expected = (self.config.n_items, self.config.code_length)
        if tuple(codes.shape) != expected:
            raise ValueError(f"`codes` has shape {tuple(codes.shape)}; `n_items` and `code_length` say {expected}.")
        codes = codes.to(device=self.item_tokens.device, dtype=torch.long)
        self._code_trie = CodeTrie.from_item_codes(codes, self.config.codebook_size)
        self.item_tokens[1:] = codes + self._level_offsets()

    def set_semantic_embedding(self, embeddings: torch.FloatTensor) -> None:
        """Stores the items' frozen embeddings `[n_items, input_size]`, row i for item index i + 1.

        Raises:
            ValueError: wrong shape, NaN or infinity, or a model made with `has_semantic_embedding=False`.
        """
        if self.semantic_embedding is None:
            raise ValueError("`has_semantic_embedding` is False; make the model with True to store embeddings.")
        expected = (self.config.n_items, self.config.rqvae_config.input_size)
        if tuple(embeddings.shape) != expected:
            raise ValueError(f"`embeddings` has shape {tuple(embeddings.shape)}; the configuration says {expected}.")
        if not embeddings.isfinite().all():
            row = (~embeddings.isfinite()).any(1).nonzero()[0].item()
            raise ValueError(f"`embeddings` holds NaN or infinity, first at item index {row + 1}; repair that row.")
        self.semantic_embedding[1:] = embeddings.to(self.semantic_embedding)

    def check_item_ids(self, tokenizer) -> None:
        """Compares a tokenizer's catalogue with the model's.

        Raises:
            ValueError: another number of items, or an item whose codes differ.
        """
        theirs = torch.as_tensor(tokenizer.item_tokens)
        if theirs.shape != self.item_tokens.shape:
            raise ValueError(
                f"tokenizer and model disagree: `item_tokens` has shape {tuple(theirs.shape)} there and "
                f"{tuple(self.item_tokens.shape)} here; load both from one folder."
            )
        different = (theirs != self.item_tokens.cpu()).any(1).nonzero()
        if len(different):
            index = different[0].item()
            raise ValueError(
                f"tokenizer and model disagree about item {tokenizer.item_ids[index - 1]!r}: token ids "
                f"{theirs[index].tolist()} there and {self.item_tokens[index].tolist()} here; load both "
                "from one folder."
            )

    def inputs_from_items(self, items: torch.LongTensor) -> dict[str, torch.LongTensor]:
        """The model's inputs `[batch, length * code_length]` for item indices `[batch, length]`, padded with 0."""
        return {
            "input_ids": self.item_tokens[items].flatten(1),
            "attention_mask": (items > 0).long().repeat_interleave(self.config.code_length, dim=1),
        }

    def _level_offsets(self) -> torch.Tensor:
        """What a raw code of each level lacks to its token id, `[code_length]`."""
        levels = torch.arange(self.config.code_length, device=self.item_tokens.device)
        return 1 + levels * self.config.codebook_size

    def _check_items(self, name: str, items: torch.LongTensor) -> torch.LongTensor:
        """Item indices on the model's device, if all of them exist."""
        items = torch.as_tensor(items, device=self.item_tokens.device)
        if items.numel() and not (items.min() >= 0 and items.max() <= self.config.n_items):
            raise ValueError(
                f"`{name}` holds item indices from {items.min().item()} to {items.max().item()}; "
                f"the catalogue has 1..{self.config.n_items}."
            )
        return items
