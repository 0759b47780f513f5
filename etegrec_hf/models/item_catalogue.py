"""The items of a recommender: their codes, their trie and their semantic embeddings."""

from typing import Any

import torch

from .code_trie import CodeTrie
from .codes_for_new_items import free_codes
from .modeling_rqvae import first_not_finite


class ItemCatalogueMixin:
    """What a model knows of its items.

    The tables `item_tokens`, `is_removed`, `semantic_embedding` and `transitions` are saved with its weights.
    """

    config: Any  # ETEGRecConfig
    item_tokens: torch.Tensor  # [n_items + 1, code_length] token ids, row 0 padding
    is_removed: torch.Tensor  # [n_items + 1] bool, items that are read in histories but not recommended
    semantic_embedding: Any  # tensor or None: [n_items + 1, input_size], row 0 padding
    item_inputs: Any  # ItemInputs, or None where codes alone are read
    transitions: Any  # ItemTransitions, or None where the model keeps none
    item_tokenizer: Any  # RQVAEModel, or None where codes were made elsewhere
    _known_tries: Any = None  # the tables they were built from, whose these were and in which version, and the tries

    @property
    def item_codes(self) -> torch.LongTensor:
        """Raw codes `0..K-1` of all items, `[n_items, code_length]`."""
        return self.item_tokens[1:] - self._level_offsets()

    @property
    def code_trie(self) -> CodeTrie:
        """The trie of `item_tokens` without removed items, built when first used and when these tables have changed.

        Raises:
            ValueError: the model has no codes yet, or a checkpoint holds codes that are no codes or not unique.
        """
        return self._tries()[0]

    def _tries(self) -> tuple[CodeTrie, CodeTrie]:
        """The trie of the items that can be recommended, and that of all items, which histories may hold."""
        tables = (self.item_tokens, self.is_removed)
        countable = not any(table.is_inference() for table in tables)  # whose changes torch counts
        state = (id(self), *(table._version for table in tables)) if countable else None
        known = self._known_tries is not None and all(
            mine is theirs for mine, theirs in zip(tables, self._known_tries[0])
        )
        if not known or state is None or self._known_tries[1] != state:
            if not self.item_tokens.any():
                raise ValueError("`item_tokens` is empty; give the model its catalogue with `set_item_codes`.")
            everything = CodeTrie.from_item_codes(self.item_codes, self.config.codebook_size)
            trie = everything
            if self.is_removed.any():
                kept = (~self.is_removed[1:]).nonzero().squeeze(1)
                trie = CodeTrie.from_item_codes(self.item_codes[kept], self.config.codebook_size, kept + 1)
            self._known_tries = (tables, state, (trie, everything))
        return self._known_tries[2]

    def _leaves_of(self, input_ids: torch.LongTensor) -> torch.LongTensor:
        """Nodes `[batch, items]` of the items of token ids, -1 for those that can't be recommended, and padding."""
        return self.code_trie.walk(input_ids.unflatten(1, (-1, self.config.code_length)) - self._level_offsets())

    def _items_read(self, input_ids: torch.LongTensor) -> torch.LongTensor:
        """Item indices `[batch, items]` of token ids `[batch, items * code_length]`; 0 where they are no item's."""
        everything = self._tries()[1]
        codes = input_ids.unflatten(1, (-1, self.config.code_length)) - self._level_offsets()
        return everything.item(everything.walk(codes))

    def item_vectors(self, input_ids: torch.LongTensor | None) -> torch.FloatTensor | None:
        """What the encoder reads beside codes: vectors `[batch, items, d_model]` of the items of token ids.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids of whole items, 0 on
                padding.

        Returns:
            none for a model that reads codes alone.
        """
        if self.item_inputs is None or input_ids is None:
            return None
        items = self._items_read(input_ids)
        return self.item_inputs(items, self.semantic_embedding[items])

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
        CodeTrie.from_item_codes(codes, self.config.codebook_size)  # raises what is wrong with them
        with torch.inference_mode(False):
            self.item_tokens = torch.cat([self.item_tokens[:1], codes + self._level_offsets()])

    def set_semantic_embedding(self, embeddings: torch.FloatTensor) -> None:
        """Stores the items' frozen embeddings `[n_items, input_size]`, row i for item index i + 1.

        Raises:
            ValueError: wrong shape, NaN or infinity, or a model made with `has_semantic_embedding=False`.
        """
        if self.semantic_embedding is None:
            raise ValueError("`has_semantic_embedding` is False; make the model with True to store embeddings.")
        self.check_semantic_embedding(embeddings)
        self.semantic_embedding[1:] = embeddings.to(self.semantic_embedding)

    def set_transitions(self, items: torch.LongTensor, weights: torch.FloatTensor) -> None:
        """Stores which items came next to each item, for `recommend(transitions=)`.

        Args:
            items (`torch.LongTensor` of shape `(n_items, num_transitions)`): item indices, row i for item index i + 1;
                0 where there are fewer.
            weights (`torch.FloatTensor` of the same shape): how strongly each came next.

        Raises:
            ValueError: another shape, indices that don't exist, weights that are negative, not finite or of no item,
                or a model made without `num_transitions`.
        """
        if self.transitions is None:
            raise ValueError("`num_transitions` is 0; make or load the model with the number of items to keep.")
        expected = (self.config.n_items, self.config.num_transitions)
        if tuple(items.shape) != expected or tuple(weights.shape) != expected:
            raise ValueError(
                f"`items` has shape {tuple(items.shape)} and `weights` {tuple(weights.shape)}; `n_items` and "
                f"`num_transitions` of the configuration say {expected}."
            )
        items, weights = self._check_items("items", items), torch.as_tensor(weights).to(self.transitions.weights)
        if not (weights.isfinite().all() and (weights >= 0).all()) or weights[items == 0].any():
            raise ValueError(
                f"`weights` holds negative numbers, NaN, infinity or more than {weights.dtype} can, or weights where "
                "`items` is 0; give counts, or shares of them, and 0 where there is no item."
            )
        self.transitions.store(items, weights)

    def check_semantic_embedding(self, embeddings: torch.FloatTensor) -> None:
        """Raises a `ValueError` unless `embeddings` are `[n_items, input_size]`, without NaN and infinity."""
        self._check_embeddings(embeddings, self.config.n_items, 1)

    @torch.no_grad()
    def add_items(self, ids: list[str], embeddings: torch.FloatTensor, tokenizer) -> torch.LongTensor:
        """Adds items without training; they can be recommended at once.

        The RQ-VAE gives each its prefix, and the suffix is one that no item of that prefix has. A prefix without a
        free suffix is left for the nearest one that has. Items that were there keep their codes and indices.

        Args:
            ids (`list[str]`): their item ids.
            embeddings (`torch.FloatTensor` of shape `(n, input_size)`): their semantic embeddings.
            tokenizer ([`ETEGRecTokenizer`]): this model's, which learns the items too.

        Returns:
            their item indices, `[n]`.

        Raises:
            ValueError: an id that exists, embeddings of the wrong shape or with NaN, a tokenizer of other items, no
                free codes, or a model without an item tokenizer. Model and tokenizer are then as they were.
        """
        if isinstance(ids, str):
            raise ValueError(f"`ids` is {ids!r}; give a list of item ids, also for a single item.")
        if self.item_tokenizer is None:
            raise ValueError(
                "`has_item_tokenizer` is False: the codes were made elsewhere; make those of new items there too, and "
                "give all of them to `set_item_codes` of a model with more `n_items`."
            )
        self.check_item_ids(tokenizer)
        first, device = self.config.n_items + 1, self.item_tokens.device
        embeddings = self._check_embeddings(torch.as_tensor(embeddings), len(ids), first).to(
            device, self.item_tokenizer.dtype
        )
        everything = CodeTrie.from_item_codes(self.item_codes, self.config.codebook_size)  # removed items too
        codes = free_codes(
            everything,
            self.item_tokenizer.encode(embeddings),
            lambda row: self.item_tokenizer(embeddings[row : row + 1]).code_logits[0, -1],
        )
        tokenizer.add_items(ids, codes)
        self.config.n_items += len(ids)
        if self.item_inputs is not None:
            self.item_inputs.add_items(len(ids))
        if self.transitions is not None:
            self.transitions.add_items(len(ids))
        with torch.inference_mode(False):  # tables that can be changed afterwards
            self.item_tokens = torch.cat([self.item_tokens, codes + self._level_offsets()])
            self.is_removed = torch.cat([self.is_removed, self.is_removed.new_zeros(len(ids))])
            if self.semantic_embedding is not None:
                rows = embeddings.to(self.semantic_embedding)
                self.semantic_embedding = torch.cat([self.semantic_embedding, rows])
        return torch.arange(first, first + len(ids), device=device)

    def remove_items(self, items: torch.LongTensor) -> None:
        """Takes items out of what can be recommended, for good; histories that hold them are read as before.

        Args:
            items (`torch.LongTensor` of shape `(n,)`): item indices, `tokenizer.index_of(ids)`. For items that are out
                of stock now and then, see `exclude` and `allowed` of `recommend`.

        Raises:
            ValueError: an index that doesn't exist, or no item left.
        """
        items = self._check_items("items", items)
        with torch.inference_mode(False):
            removed = self.is_removed.clone()
        removed[items] = True
        if removed[1:].all():
            raise ValueError(f"`items` are all {self.config.n_items} of the catalogue; leave at least one.")
        self.is_removed = removed

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

    def _check_embeddings(self, embeddings: torch.Tensor, n_items: int, first: int) -> torch.Tensor:
        """Embeddings of `n_items` items from index `first` on, if they are whole."""
        expected = (n_items, self.config.rqvae_config.input_size)
        if tuple(embeddings.shape) != expected:
            raise ValueError(f"`embeddings` has shape {tuple(embeddings.shape)}; expected {expected}.")
        row = first_not_finite(embeddings)
        if row is not None:
            raise ValueError(f"`embeddings` holds NaN or infinity, first at item index {first + row}; repair it.")
        return embeddings

    def _check_items(self, name: str, items: torch.LongTensor) -> torch.LongTensor:
        """Item indices on the model's device, if all of them exist."""
        try:
            items = torch.as_tensor(items, device=self.item_tokens.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"`{name}` is no tensor of item indices: {error}; pad rows with 0 to one length."
            ) from error
        if items.numel() == 0:
            items = items.long()
        if items.is_floating_point() or items.dtype == torch.bool:
            raise ValueError(f"`{name}` holds {items.dtype}; give item indices (`tokenizer.index_of(ids)`).")
        if items.numel() and not (items.min() >= 0 and items.max() <= self.config.n_items):
            raise ValueError(
                f"`{name}` holds item indices from {items.min().item()} to {items.max().item()}; "
                f"the catalogue has 1..{self.config.n_items}."
            )
        return items
