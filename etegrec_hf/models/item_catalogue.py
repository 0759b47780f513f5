"""The items of a recommender: codes, code trie, semantic embeddings and transitions."""

from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from .code_trie import CodeTrie, ItemSets
from .configuration_etegrec import ETEGRecConfig
from .histories import Histories
from .item_transitions import ItemTransitions
from .modeling_rqvae import first_not_finite


@dataclass(frozen=True, eq=False)
class ItemConstraints:
    """The items that users may get.

    Args:
        trie ([`CodeTrie`]): the items that users may get unless `leaves` says otherwise.
        leaves (`torch.LongTensor` of shape `(users, n)`, *optional*): nodes of the items that each user must not get;
            -1 for no item.
    """

    trie: CodeTrie
    leaves: torch.Tensor | None = None

    @property
    def excluded(self) -> ItemSets | None:
        """The items that each user must not get, as sets of nodes of `trie`."""
        return None if self.leaves is None else ItemSets(self.trie, self.leaves)

    @property
    def fewest_items(self) -> int:
        """Smallest number of items that a user may get."""
        excluded = self.excluded
        return self.trie.n_items if excluded is None else int(excluded.n_others.min())

    def of_users(self, rows: torch.LongTensor) -> "ItemConstraints":
        """Returns the constraints of these rows."""
        return self if self.leaves is None else ItemConstraints(self.trie, self.leaves[rows])


class _Tries(NamedTuple):
    """Two tries, and the tables that they were built from."""

    item_tokens: torch.Tensor
    is_removed: torch.Tensor
    of_recommended: CodeTrie
    of_all: CodeTrie


class ItemCatalogue(nn.Module):
    """A model's tables of items, which are saved with its weights, and the trie of their codes.

    The trie is built when it is first read, and again after tables were set, loaded or moved. Set tables with the
    methods of this class, or assign a new tensor. After changing `item_tokens` or `is_removed` in place, call
    `tables_changed`. Before exporting a model (`torch.export`), call the model once.

    Args:
        config ([`ETEGRecConfig`]): the model's configuration.
    """

    item_tokens: torch.Tensor  # [n_items + 1, code_length] token ids, row 0 padding
    is_removed: torch.Tensor  # [n_items + 1] bool, items that are read in histories but not recommended
    item_counts: torch.Tensor  # [n_items + 1] int32, how often each item occurs in training; all 0 if unknown
    semantic_embedding: torch.Tensor  # [n_items + 1, input_size], row 0 padding; None where the model holds none
    transitions: ItemTransitions  # None where the model keeps none

    def __init__(self, config: ETEGRecConfig):
        super().__init__()
        self.layout, self.width = config.layout, config.rqvae_config.input_size
        self.register_buffer("item_tokens", torch.zeros(config.n_items + 1, config.code_length, dtype=torch.long))
        self.register_buffer("is_removed", torch.zeros(config.n_items + 1, dtype=torch.bool))
        self.register_buffer("item_counts", torch.zeros(config.n_items + 1, dtype=torch.int32))
        semantic_embedding = None  # not even made if it isn't kept: a large catalogue's takes much memory
        if config.has_semantic_embedding:
            semantic_embedding = torch.zeros(config.n_items + 1, self.width)
        self.register_buffer("semantic_embedding", semantic_embedding)
        self.transitions = ItemTransitions(config) if config.num_transitions else None  # type: ignore[assignment]
        self._tries: _Tries | None = None

    @torch.no_grad()
    def init_weights(self) -> None:
        """Empties the tables of items."""
        init.zeros_(self.item_tokens)
        init.zeros_(self.is_removed)
        init.zeros_(self.item_counts)
        if self.semantic_embedding is not None:
            init.zeros_(self.semantic_embedding)

    def _load_from_state_dict(self, *args) -> None:
        super()._load_from_state_dict(*args)
        self.tables_changed()

    def _apply(self, *args, **kwargs):  # as `to` does
        self.tables_changed()
        return super()._apply(*args, **kwargs)

    def tables_changed(self) -> None:
        """Makes the catalogue build its trie again; call it after changing tables in place."""
        self._tries = None

    @property
    def n_items(self) -> int:
        """Number of items, including removed ones, without padding."""
        return len(self.item_tokens) - 1

    @property
    def item_codes(self) -> torch.LongTensor:
        """Raw codes `0..K-1` of all items, `[n_items, code_length]`."""
        return self.layout.codes(self.item_tokens[1:])

    @property
    def trie(self) -> CodeTrie:
        """The trie of the items that can be recommended.

        Raises:
            ValueError: the model has no codes yet, or its codes are offloaded.
            ValueError: the model is being exported and the trie isn't built yet.
            ValueError: codes that are out of range or not unique.
        """
        return self._built().of_recommended

    @property
    def trie_of_all(self) -> CodeTrie:
        """The trie of all items, including removed ones, which histories may hold; errors as in `trie`."""
        return self._built().of_all

    def _built(self) -> _Tries:
        tries = self._tries
        if torch.compiler.is_exporting():  # an export passes other objects, without values, as tables
            if tries is None:
                raise ValueError("a trie can't be built during an export; call the model once before exporting it.")
            copies = (
                copy(trie) for trie in (tries.of_recommended, tries.of_all)
            )  # copies: tensors cached during an export have no values either
            return _Tries(tries.item_tokens, tries.is_removed, *copies)
        if tries is None or tries.item_tokens is not self.item_tokens or tries.is_removed is not self.is_removed:
            self._check_held()
            if not self.item_tokens.any():
                raise ValueError("`item_tokens` is empty; give the model its catalogue with `set_item_codes`.")
            of_all = CodeTrie.from_item_codes(self.item_codes, self.layout.codebook_size)
            kept = (~self.is_removed[1:]).nonzero().squeeze(1)
            trie = of_all
            if len(kept) < self.n_items:
                trie = CodeTrie.from_item_codes(self.item_codes[kept], self.layout.codebook_size, kept + 1)
            self._tries = tries = _Tries(self.item_tokens, self.is_removed, trie, of_all)
        return tries

    # Items of histories

    def inputs_from_items(self, items: torch.LongTensor) -> dict[str, torch.LongTensor]:
        """Returns inputs `[batch, length * code_length]` for item indices `[batch, length]`, 0 on padding."""
        return {
            "input_ids": self.item_tokens[items].flatten(1),
            "attention_mask": (items > 0).long().repeat_interleave(self.layout.code_length, dim=1),
        }

    def items_of(self, input_ids: torch.LongTensor) -> torch.LongTensor:
        """Returns item indices `[batch, items]` of token ids `[batch, items * code_length]`; 0 for no item."""
        return self.trie_of_all.item(self.trie_of_all.walk(self._codes_of(input_ids)))

    def leaves_of(self, input_ids: torch.LongTensor) -> torch.LongTensor:
        """Returns nodes `[batch, items]` of `trie`, -1 for items that can't be recommended and for padding."""
        return self.trie.walk(self._codes_of(input_ids))

    def _codes_of(self, input_ids: torch.LongTensor) -> torch.LongTensor:
        return self.layout.codes(input_ids.unflatten(1, (-1, self.layout.code_length)))

    def constraints(
        self,
        histories: Histories,
        exclude: torch.LongTensor | None = None,
        allowed: torch.LongTensor | None = None,
        exclude_history: bool = False,
    ) -> ItemConstraints:
        """Returns the items that the users of `histories` may get; arguments as in `recommend`.

        Raises:
            ValueError: item indices that don't exist, or of the wrong shape.
            ValueError: `allowed` holds no item that can be recommended.
        """
        trie = self.trie
        if allowed is not None:
            allowed = self.check_items("allowed", allowed)
            if allowed.ndim != 1:
                raise ValueError(f"`allowed` has shape {tuple(allowed.shape)}; expected (n,), one list for all users.")
            if not torch.isin(allowed, trie.leaf_items).any():
                raise ValueError("`allowed` holds no item that can be recommended; give one, or None to allow all.")
            trie = trie.restrict(allowed)
        tokens = []
        if exclude is not None:
            exclude = self.check_items("exclude", exclude)
            if exclude.ndim != 2 or len(exclude) != len(histories):
                raise ValueError(
                    f"`exclude` has shape {tuple(exclude.shape)}; expected ({len(histories)}, n): one row of item "
                    "indices per user, padded with 0."
                )
            tokens.append(self.item_tokens[exclude])
        if exclude_history:
            # view, as unflatten can't infer a size from an empty tensor
            items = histories.input_ids.shape[1] // self.layout.code_length
            tokens.append(histories.input_ids.view(len(histories), items, self.layout.code_length))
        leaves = trie.walk(self.layout.codes(torch.cat(tokens, dim=1))) if tokens else None  # padding gives -1
        return ItemConstraints(trie, leaves if leaves is not None and leaves.shape[1] else None)

    def most_popular(
        self, top_k: int, exclude: torch.LongTensor, allowed: torch.LongTensor | None = None
    ) -> tuple[torch.LongTensor, torch.FloatTensor]:
        """Returns the items that occur most often in training, for users without a history.

        Args:
            top_k (`int`): items per user.
            exclude (`torch.LongTensor` of shape `(users, n)`): item indices that each user must not get, padded with
                0.
            allowed (`torch.LongTensor` of shape `(n,)`, *optional*): item indices to choose from.

        Returns:
            item indices and the logarithms of their shares of all training interactions, both of shape
            `(users, top_k)`, the largest first. Shorter lists are padded with index 0 and score -inf.
        """
        leaf_items = self.trie.leaf_items
        can_come = torch.zeros_like(self.item_counts, dtype=torch.bool)
        can_come[leaf_items if allowed is None else leaf_items[torch.isin(leaf_items, allowed)]] = True
        counts = self.item_counts.masked_fill(~can_come, 0).expand(len(exclude), -1).scatter(1, exclude, 0)
        found = counts.sort(dim=1, descending=True, stable=True)
        counts, items = found.values[:, :top_k], found.indices[:, :top_k]
        shares = (counts / self.item_counts.sum().clamp(min=1)).log()
        padding = (0, top_k - counts.shape[1])
        return F.pad(items.masked_fill(counts == 0, 0), padding), F.pad(shares, padding, value=-torch.inf)

    # Tables

    def set_codes(self, codes: torch.LongTensor) -> None:
        """Replaces the codes of all items. After an error the catalogue is unchanged.

        Args:
            codes (`torch.LongTensor` of shape `(n_items, code_length)`): raw codes `0..codebook_size-1`, row i for
                item index i + 1.

        Raises:
            ValueError: a wrong shape.
            ValueError: codes that are out of range or not unique.
        """
        expected = (self.n_items, self.layout.code_length)
        if tuple(codes.shape) != expected:
            raise ValueError(
                f"`codes` has shape {tuple(codes.shape)}; by `n_items` and `code_length` it must be {expected}."
            )
        self._check_held()
        codes = codes.to(device=self.item_tokens.device, dtype=torch.long)
        CodeTrie.from_item_codes(codes, self.layout.codebook_size)  # raises what is wrong with them
        with torch.inference_mode(False):
            self.item_tokens = torch.cat([self.item_tokens[:1], self.layout.token_ids(codes)])
        self.tables_changed()

    def set_semantic_embedding(self, embeddings: torch.FloatTensor) -> None:
        """Stores the items' frozen embeddings `[n_items, input_size]`, row i for item index i + 1.

        Raises:
            ValueError: a wrong shape, NaN or infinity.
            ValueError: numbers beyond the model's dtype.
            ValueError: a model made with `has_semantic_embedding=False`.
        """
        if self.semantic_embedding is None:
            raise ValueError("`has_semantic_embedding` is False; make the model with True to store embeddings.")
        self.check_embeddings(embeddings)
        self.semantic_embedding[1:] = embeddings.to(self.semantic_embedding)

    def set_item_counts(self, counts: torch.LongTensor) -> None:
        """Stores how often each item occurs in training, `[n_items]`, row i for item index i + 1.

        Raises:
            ValueError: another shape.
            ValueError: numbers that are negative or not whole.
        """
        self._check_held()
        counts = torch.as_tensor(counts, device=self.item_counts.device)
        if tuple(counts.shape) != (self.n_items,):
            raise ValueError(f"`counts` has shape {tuple(counts.shape)}; expected ({self.n_items},), one per item.")
        largest = torch.iinfo(self.item_counts.dtype).max
        if counts.is_floating_point() or counts.dtype == torch.bool or counts.min() < 0 or counts.max() > largest:
            raise ValueError(
                f"`counts` holds {counts.dtype} from {counts.min().item()} to {counts.max().item()}; give whole "
                f"numbers from 0 to {largest}, how often each item occurs."
            )
        self.item_counts[1:] = counts

    def set_transitions(self, items: torch.LongTensor, weights: torch.FloatTensor) -> None:
        """Stores the items that came next to each item in training, for `recommend(transition_weight=)`.

        Args:
            items (`torch.LongTensor` of shape `(n_items, num_transitions)`): item indices, row i for item index i + 1;
                shorter rows are padded with 0.
            weights (`torch.FloatTensor` of the same shape): strength of each transition, such as its count.

        Raises:
            ValueError: another shape.
            ValueError: indices that don't exist.
            ValueError: weights that are negative or not finite, or that aren't 0 on padding.
            ValueError: a model made without `num_transitions`.
        """
        if self.transitions is None:
            raise ValueError("`num_transitions` is 0; make or load the model with the number of transitions to keep.")
        expected = (self.n_items, self.transitions.items.shape[1])
        if tuple(items.shape) != expected or tuple(weights.shape) != expected:
            raise ValueError(
                f"`items` has shape {tuple(items.shape)} and `weights` {tuple(weights.shape)}; by `n_items` and "
                f"`num_transitions` of the configuration both must be {expected}."
            )
        items, weights = self.check_items("items", items), torch.as_tensor(weights).to(self.transitions.weights)
        if not (weights.isfinite().all() and (weights >= 0).all()) or weights[items == 0].any():
            raise ValueError(
                f"`weights` holds negative numbers, NaN, infinity, numbers too large for {weights.dtype}, or numbers "
                "where `items` is 0; give counts or shares of counts, and 0 where `items` is 0."
            )
        self.transitions.store(items, weights)

    def add(self, codes: torch.LongTensor, embeddings: torch.FloatTensor) -> torch.LongTensor:
        """Appends items with raw codes `[n, code_length]` and semantic embeddings `[n, input_size]`.

        Returns:
            their item indices, `[n]`.
        """
        first, count, device = self.n_items + 1, len(codes), self.item_tokens.device
        if self.transitions is not None:
            self.transitions.add_items(count)
        with torch.inference_mode(False):  # tables that can be changed afterwards
            self.item_tokens = torch.cat([self.item_tokens, self.layout.token_ids(codes)])
            self.is_removed = torch.cat([self.is_removed, self.is_removed.new_zeros(count)])
            self.item_counts = torch.cat([self.item_counts, self.item_counts.new_zeros(count)])
            if self.semantic_embedding is not None:
                rows = embeddings.to(self.semantic_embedding)
                self.semantic_embedding = torch.cat([self.semantic_embedding, rows])
        self.tables_changed()
        return torch.arange(first, first + count, device=device)

    def remove(self, items: torch.LongTensor) -> None:
        """Removes items from those that can be recommended; see `remove_items` of the model.

        Raises:
            ValueError: an index that doesn't exist, or no item left.
        """
        items = self.check_items("items", items)
        with torch.inference_mode(False):
            removed = self.is_removed.clone()
        removed[items] = True
        if removed[1:].all():
            raise ValueError(f"`items` holds all {self.n_items} items of the catalogue; leave at least one.")
        self.is_removed = removed
        self.tables_changed()

    # Checks

    def _check_held(self) -> None:
        if self.item_tokens.is_meta:
            raise ValueError("`item_tokens` is offloaded; load the model without `offload_buffers=True`.")

    def check_tokenizer(self, tokenizer) -> None:
        """Compares a tokenizer's items with these.

        Raises:
            ValueError: another number of items, or an item whose codes differ.
            ValueError: tables that are offloaded.
        """
        self._check_held()
        theirs = torch.as_tensor(tokenizer.item_tokens)
        if theirs.shape != self.item_tokens.shape:
            raise ValueError(
                f"tokenizer and model disagree: `item_tokens` has shape {tuple(theirs.shape)} in the tokenizer and "
                f"{tuple(self.item_tokens.shape)} in the model; load both from one folder."
            )
        different = (theirs != self.item_tokens.cpu()).any(1).nonzero()
        if len(different):
            index = different[0].item()
            raise ValueError(
                f"tokenizer and model disagree about item {tokenizer.item_ids[index - 1]!r}: its token ids are "
                f"{theirs[index].tolist()} in the tokenizer and {self.item_tokens[index].tolist()} in the model; load "
                "both from one folder."
            )

    def check_embeddings(self, embeddings: torch.FloatTensor) -> None:
        """Checks that these are embeddings of all items.

        Raises:
            ValueError: a shape other than `[n_items, input_size]`, NaN or infinity.
            ValueError: numbers beyond the dtype of the model's own embeddings.
        """
        own = embeddings if self.semantic_embedding is None else self.semantic_embedding
        self._check_embeddings(embeddings, self.n_items, 1, own.dtype)

    def check_new_embeddings(self, embeddings: torch.FloatTensor, count: int, dtype: torch.dtype) -> None:
        """Checks embeddings of `count` new items, to be held as `dtype`; errors as in `check_embeddings`."""
        self._check_embeddings(embeddings, count, self.n_items + 1, dtype)

    def _check_embeddings(self, embeddings: torch.FloatTensor, count: int, first: int, dtype: torch.dtype) -> None:
        expected = (count, self.width)
        if tuple(embeddings.shape) != expected:
            raise ValueError(f"`embeddings` has shape {tuple(embeddings.shape)}; expected {expected}.")
        self._check_held()
        row = first_not_finite(embeddings, dtype)
        if row is not None and embeddings[row].isfinite().all():
            raise ValueError(
                f"`embeddings` holds numbers beyond {dtype}, the model's dtype, first at item index {first + row}; "
                "scale the embeddings, or load the model in float32."
            )
        if row is not None:
            raise ValueError(
                f"`embeddings` holds NaN or infinity, first at item index {first + row}; repair that embedding."
            )

    def check_items(self, name: str, items: torch.LongTensor) -> torch.LongTensor:
        """Returns item indices on the catalogue's device, after a check that all of them exist.

        Args:
            name (`str`): name of the argument in the error.
            items (`torch.LongTensor` of any shape): item indices, or numbers that a tensor can be made of.

        Raises:
            ValueError: anything other than item indices.
            ValueError: an index beyond the catalogue.
            ValueError: tables that are offloaded.
        """
        self._check_held()
        try:
            items = torch.as_tensor(items, device=self.item_tokens.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"`{name}` isn't a tensor of item indices: {error}; pad all rows with 0 to the same length, and turn "
                "ids into indices with `tokenizer.index_of(ids)`."
            ) from error
        if items.numel() and (items.is_floating_point() or items.dtype == torch.bool):
            raise ValueError(f"`{name}` holds {items.dtype}; give item indices (`tokenizer.index_of(ids)`).")
        items = items.long()  # numbers of 8 bits would be read as a mask
        if items.numel() and not (items.min() >= 0 and items.max() <= self.n_items):
            raise ValueError(
                f"`{name}` holds item indices from {items.min().item()} to {items.max().item()}; "
                f"the catalogue has 1..{self.n_items}."
            )
        return items
