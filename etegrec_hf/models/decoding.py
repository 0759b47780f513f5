"""How a recommender decodes: transformers' `generate`, the batched `recommend`, and a sample of distinct items."""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from transformers import LogitsProcessorList

from .beam_search import BeamDecoder, code_beam_search
from .code_trie import CodeTrie, ExcludedItems
from .encoded_history import EncodedHistory, HistoryEncodingMixin
from .headwise_t5 import encode
from .item_transitions import TransitionVotes
from .logits_process import CodeTrieLogitsProcessor
from .repeat_bias import RepeatBias

# Tokens that `recommend` holds at a time: on a CPU as many as caches like, on a GPU enough to keep it busy
MAX_BATCH_TOKENS = {"cpu": 4096, "cuda": 131072}


class CodeDecodingMixin(HistoryEncodingMixin):
    """Decoding of items from histories.

    Histories are `input_ids` and `attention_mask` `(batch, items * code_length)`, padded left or right; of a longer
    one the last `max_history` items are read. `recommend` and `sample_items` also take them encoded.
    """

    decoder: Any  # T5Stack
    generation_config: Any  # GenerationConfig
    semantic_embedding: Any
    repeat_bias: Any  # one number a level, or None
    _level_logits: Any  # decoder states and a level to logits
    preference_adapter: Any  # decoder states to the space of semantic embeddings

    def generate(
        self,
        inputs: torch.LongTensor | None = None,
        generation_config=None,
        logits_processor=None,
        constrained: bool = True,
        exclude: torch.LongTensor | None = None,
        allowed: torch.LongTensor | None = None,
        exclude_history: bool = False,
        **kwargs,
    ):
        """transformers' `generate`, in which each step chooses among its level's codes.

        Beam search, greedy decoding, sampling and several returned sequences work as ever; `sequences_scores` are the
        items' log-probabilities. Without a generation configuration, `max_new_tokens` is `code_length`,
        `length_penalty` 0 and top-k filtering off.

        Args:
            inputs (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids of histories; also as
                `input_ids=`.
            generation_config (`GenerationConfig`, *optional*): as in transformers.
            logits_processor (`LogitsProcessorList`, *optional*): applied after the levels and the trie.
            constrained (`bool`, *optional*, defaults to `True`): whether every sequence must be an item. Without,
                codes still belong to their levels but may be nobody's.
            exclude, allowed, exclude_history: as in `recommend`.

        Returns:
            as in transformers; sequences `[batch * num_return_sequences, 1 + code_length]` begin with the decoder
            start.

        Raises:
            ValueError: a history of only padding or broken items, more items asked for than there are, constraints
                with `constrained=False`, weights that give NaN, or sampling within beams (`do_sample=True` and
                `num_beams > 1`) that ran out of items with a probability.
        """
        input_ids = kwargs.pop("input_ids", None) if inputs is None else inputs
        if input_ids is not None:
            input_ids, attention_mask = self._check_history(input_ids, kwargs.get("attention_mask"))
        elif exclude is not None or exclude_history or self.repeat_bias is not None:
            raise ValueError(
                "`exclude`, `exclude_history` and models with a repeat bias need the histories; pass `input_ids` too."
            )
        settings = self.generation_config if generation_config is None else generation_config
        num_beams, returned, do_sample = (
            kwargs.get(name) or getattr(settings, name, None) or 1
            for name in ("num_beams", "num_return_sequences", "do_sample")
        )
        if generation_config is None:
            defaults = {"max_new_tokens": self.config.code_length}
            if num_beams > 1:
                defaults["length_penalty"] = 0.0
            if do_sample is True:
                defaults["top_k"] = 0
            kwargs = {**defaults, **kwargs}
        trie = excluded = None
        if constrained:
            trie, leaves = self._constraints(input_ids, exclude, allowed, exclude_history)
            excluded = None if leaves is None else ExcludedItems(trie, leaves)
            remaining = trie.n_items if excluded is None else excluded.remaining.min().item()
            wanted = returned if num_beams > 1 else 1
            if wanted > remaining:
                raise ValueError(
                    f"`num_return_sequences` asks for {wanted} items where only {remaining} may be returned; ask for "
                    "fewer, or use `recommend`, which returns those that exist."
                )
        elif exclude is not None or allowed is not None or exclude_history:
            raise ValueError("`exclude`, `allowed` and `exclude_history` need `constrained=True`.")
        repeats = None
        if input_ids is not None:
            input_ids, kwargs["attention_mask"] = self._last_items(input_ids, attention_mask)
            repeats = self.repeats_of(input_ids) if constrained else None
            if self.item_inputs is not None and "encoder_outputs" not in kwargs:  # transformers would give codes alone
                with torch.no_grad():
                    kwargs["encoder_outputs"] = self.encoder(
                        input_ids, kwargs["attention_mask"], item_vectors=self.item_vectors(input_ids)
                    )
        catalogue = self._normalized_over if constrained else None
        levels = CodeTrieLogitsProcessor(
            self.config.code_length, self.config.codebook_size, trie, excluded, catalogue, repeats
        )
        output = super().generate(  # type: ignore[misc]  # GenerationMixin stands behind in the model's bases
            input_ids,
            generation_config=generation_config,
            logits_processor=LogitsProcessorList([levels, *(logits_processor or [])]),
            **kwargs,
        )
        codes = (output if isinstance(output, torch.Tensor) else output.sequences)[:, 1:]
        codes = codes - self._level_offsets()[: codes.shape[1]]
        if trie is not None and (trie.walk(codes) < 0).any():
            raise ValueError(
                "transformers drew beams of probability 0, which are no items; lower `num_beams`, raise "
                "`temperature`, or draw distinct items with `sample_items`."
            )
        return output

    @torch.no_grad()
    def recommend(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        top_k: int = 10,
        num_beams: int = 20,
        exclude: torch.LongTensor | None = None,
        allowed: torch.LongTensor | None = None,
        exclude_history: bool = False,
        max_batch_tokens: int | None = None,
        encoded: EncodedHistory | None = None,
        rerank: float = 0.0,
        transitions: float = 0.0,
    ) -> tuple[torch.LongTensor, torch.FloatTensor]:
        """The `top_k` items of each user by batched code beam search.

        The items and scores are those that `generate` finds with as many beams, unless `rerank` or `transitions` say
        otherwise. What is excluded or not allowed is left out of the search, so that `top_k` items come back whenever
        they exist.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids of histories.
            attention_mask (`torch.LongTensor` of the same shape, *optional*): 0 on padding; by default on pad tokens.
            top_k (`int`, *optional*, defaults to 10): items a user.
            num_beams (`int`, *optional*, defaults to 20): prefixes kept a level; at least `top_k`.
            exclude (`torch.LongTensor` of shape `(batch, n)`, *optional*): item indices that each user must not get,
                padded with 0.
            allowed (`torch.LongTensor` of shape `(n,)`, *optional*): item indices that all users must choose from.
            exclude_history (`bool`, *optional*, defaults to `False`): whether no user gets an item of their history,
                of all of it, also where only its last items are read.
            max_batch_tokens (`int`, *optional*): users are decoded together while their tokens, those of the longest
                history and one a beam for each user, stay within this number; by default 4096 on a CPU and 131072 on a
                GPU. It bounds memory and changes no result.
            encoded ([`EncodedHistory`], *optional*): what `encode_history` returned, instead of `input_ids`.
            rerank (`float`, *optional*, defaults to 0.0): the weight w by which all items that the beam found are
                ranked again, by `log p(codes) + w * cos(preference_latents, semantic embedding)`, p being the mixture
                where `transitions` are mixed in. Choose it on validation users. Preference latents mean something
                where the recommender was trained with PSA.
            transitions (`float`, *optional*, defaults to 0.0): the share w in `(1 - w) * p(codes) + w * votes`, by
                which the beam is then chosen and scored. The votes are those of the history's last items for what came
                next to them in training (see [`ItemTransitions`]); they sum to 1, less what goes to items that can't
                be returned or that the repeat bias makes unlikely. Choose it on validation users.

        Returns:
            item indices `[batch, top_k]` and scores `[batch, top_k]`, best first: log-probabilities, those of the
            mixture with `transitions`, to which `rerank` adds its part. A user for whom fewer items exist gets index 0
            and minus infinity in the remaining places.

        Raises:
            ValueError: `num_beams` below `top_k`, a history of only padding or broken items, item indices that don't
                exist or of the wrong shape, no allowed item, weights that give NaN, histories that a model of other
                sizes encoded, a negative `rerank`, or one with a model that holds no item tokenizer or no semantic
                embeddings, or `transitions` outside 0 to 1 or with a model that keeps none.
        """
        if top_k < 1 or num_beams < top_k:
            raise ValueError(
                f"`num_beams` is {num_beams} and `top_k` {top_k}; a beam must be at least as wide as the list, "
                "and the list at least 1 long."
            )
        self._check_rerank(rerank)
        self._check_transitions(transitions)
        constraints = (exclude, allowed, exclude_history, max_batch_tokens)
        return self._search(input_ids, attention_mask, encoded, top_k, num_beams, *constraints, rerank, transitions)

    @torch.no_grad()
    def sample_items(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        num_samples: int = 16,
        temperature: float = 1.0,
        exclude: torch.LongTensor | None = None,
        allowed: torch.LongTensor | None = None,
        exclude_history: bool = False,
        max_batch_tokens: int | None = None,
        generator: torch.Generator | None = None,
        encoded: EncodedHistory | None = None,
    ) -> tuple[torch.LongTensor, torch.FloatTensor]:
        """Distinct items of each user, drawn without replacement by stochastic beam search.

        Each code is drawn from the softmax of `logits / temperature` over the codes that may follow, so an item's
        probability is the product of its codes', and all items that a user may get have probabilities that sum to 1.

        Args:
            num_samples (`int`, *optional*, defaults to 16): items a user.
            temperature (`float`, *optional*, defaults to 1.0): above 1 draws more evenly.
            generator (`torch.Generator`, *optional*): of the sample.
            input_ids, attention_mask, exclude, allowed, exclude_history, max_batch_tokens, encoded: as in `recommend`.

        Returns:
            item indices and their log-probabilities `[batch, num_samples]`, in the order of the draw. A user for whom
            fewer items exist gets all of them, and index 0 and minus infinity in the remaining places.

        Raises:
            ValueError: no samples, a temperature that is not positive, and what `recommend` raises.

        Source: Kool, van Hoof and Welling, Stochastic Beams and Where to Find Them (2019).
        """
        if num_samples < 1 or not 1e-6 < temperature < math.inf:
            raise ValueError(
                f"`num_samples` is {num_samples} and `temperature` {temperature}; both must be positive, and the "
                "temperature a number beyond 1e-6."
            )
        constraints = (exclude, allowed, exclude_history, max_batch_tokens)
        sampling = {"temperature": temperature, "generator": generator}
        return self._search(input_ids, attention_mask, encoded, num_samples, num_samples, *constraints, **sampling)

    def repeats_of(self, input_ids: torch.LongTensor) -> RepeatBias | None:
        """The repeat bias of histories `[batch, items * code_length]`, for a model that has one."""
        if self.repeat_bias is None:
            return None
        return RepeatBias(self.code_trie, self._leaves_of(input_ids), self.repeat_bias)

    @property
    def _normalized_over(self) -> CodeTrie | None:
        """The catalogue whose items share all probability, where the configuration says so."""
        return self.code_trie if self.config.constrained_softmax else None

    def _search(
        self,
        input_ids,
        attention_mask,
        encoded,
        top_k,
        num_beams,
        exclude,
        allowed,
        exclude_history,
        max_batch_tokens,
        rerank=0.0,
        transitions=0.0,
        **sampling,
    ) -> tuple[torch.LongTensor, torch.FloatTensor]:
        """The first `top_k` items of [`code_beam_search`] for all users, in batches of like length."""
        if (input_ids is None) == (encoded is None) or (attention_mask is not None and encoded is not None):
            raise ValueError("give histories either as `input_ids`, with their `attention_mask`, or as `encoded`.")
        if encoded is None:
            input_ids, attention_mask = self._check_history(input_ids, attention_mask)
        else:
            self._check_encoded("encoded", encoded)
            input_ids, attention_mask = encoded.input_ids, encoded.attention_mask
        trie, leaves = self._constraints(input_ids, exclude, allowed, exclude_history)
        catalogue = self._normalized_over
        input_ids, attention_mask = self._last_items(input_ids, attention_mask)
        if encoded is not None:
            attention_mask = encoded.states_mask
        users = len(input_ids)
        items = torch.zeros((users, top_k), dtype=torch.long, device=input_ids.device)
        scores = torch.full((users, top_k), -torch.inf, device=input_ids.device)
        for rows, columns in _batches(attention_mask, num_beams, max_batch_tokens):
            mask = attention_mask[rows, columns]
            if encoded is None:
                read = input_ids[rows, columns]
                states = encode(self.encoder, read, mask, self.item_vectors(read))
            else:
                states = encoded.states[rows, columns]
            decoder = BeamDecoder(self.decoder, states, mask)
            excluded = None if leaves is None else ExcludedItems(trie, leaves[rows])
            repeats = self.repeats_of(input_ids[rows])
            votes = None
            if transitions:
                votes = self._votes_of(input_ids[rows], trie, transitions, excluded, repeats)
            found, log_p = code_beam_search(
                decoder, self._level_logits, trie, num_beams, excluded, catalogue, repeats, votes=votes, **sampling
            )
            if rerank:
                log_p = log_p + rerank * self._preference(decoder.start_states, found)
                log_p, order = log_p.sort(dim=1, descending=True, stable=True)
                found = found.gather(1, order)
            width = min(top_k, found.shape[1])
            items[rows, :width], scores[rows, :width] = found[:, :width], log_p[:, :width]
        if scores.isnan().any():
            raise ValueError("the scores are NaN; the model's weights are damaged: load an earlier checkpoint.")
        return items, scores

    def _check_rerank(self, rerank: float) -> None:
        """That `rerank` is a weight, and the model has what to rank again by."""
        if not 0 <= rerank < math.inf:
            raise ValueError(f"`rerank` is {rerank}; give a weight of 0 or more.")
        if rerank and (self.item_tokenizer is None or self.semantic_embedding is None):
            lacking = "has_item_tokenizer" if self.item_tokenizer is None else "has_semantic_embedding"
            raise ValueError(
                f"`rerank` is {rerank} and the model's `{lacking}` is False, so that there are no preference latents "
                "and embeddings to rank by; leave it out."
            )

    def _check_transitions(self, transitions: float) -> None:
        """That `transitions` is a share, and the model knows some."""
        if not 0 <= transitions < 1:
            raise ValueError(f"`transitions` is {transitions}; give a share from 0 on and below 1.")
        if transitions and (self.transitions is None or not self.transitions.are_known):
            raise ValueError(
                f"`transitions` is {transitions} and the model knows none; train it with `num_transitions`, or give "
                "them to `set_transitions`, or leave it out."
            )

    def _votes_of(
        self,
        input_ids: torch.LongTensor,
        trie: CodeTrie,
        weight: float,
        excluded: ExcludedItems | None,
        repeats: RepeatBias | None,
    ) -> TransitionVotes:
        """Votes of histories `[batch, items * code_length]`, as much less for their own items as `repeats` says."""
        items, votes = self.transitions(self._items_read(input_ids))
        if repeats is not None:
            votes = votes * repeats.of_items(self.code_trie.leaf(items)).exp().clamp(max=1)
        return TransitionVotes(trie, trie.leaf(items), votes, weight, excluded)

    def _preference(self, start_states: torch.Tensor, items: torch.LongTensor) -> torch.Tensor:
        """Cosines `[users, n]` of preference latents, by states `[users, 1, d_model]`, and of items `[users, n]`."""
        preference = self.preference_adapter(start_states)  # [users, 1, input_size]
        # no matrix product: autocast would round it
        return F.cosine_similarity(self.semantic_embedding[items].float(), preference.float(), dim=-1)

    def _constraints(self, input_ids, exclude, allowed, exclude_history) -> tuple[CodeTrie, torch.LongTensor | None]:
        """The trie of allowed items, and the leaves `[batch, n]` that each user must not reach (-1: none)."""
        trie = self.code_trie
        if allowed is not None:
            allowed = self._check_items("allowed", allowed)
            if allowed.ndim != 1:
                raise ValueError(f"`allowed` has shape {tuple(allowed.shape)}; expected (n,): the same for all users.")
            if not torch.isin(allowed, trie.leaf_items).any():
                raise ValueError("`allowed` holds no item that can be recommended; give one, or None to allow all.")
            trie = trie.restrict(allowed)
        tokens = []
        if exclude is not None:
            exclude = self._check_items("exclude", exclude)
            if exclude.ndim != 2 or len(exclude) != len(input_ids):
                raise ValueError(
                    f"`exclude` has shape {tuple(exclude.shape)}; expected ({len(input_ids)}, n): a row of item "
                    "indices for each user, padded with 0."
                )
            tokens.append(self.item_tokens[exclude])
        if exclude_history:
            code_length = self.config.code_length
            tokens.append(input_ids.view(len(input_ids), input_ids.shape[1] // code_length, code_length))
        leaves = trie.walk(torch.cat(tokens, dim=1) - self._level_offsets()) if tokens else None  # padding gives -1
        return trie, leaves if leaves is not None and leaves.shape[1] else None


def _batches(
    attention_mask: torch.LongTensor, num_beams: int, max_batch_tokens: int | None
) -> Iterator[tuple[torch.LongTensor, slice]]:
    """Rows to decode together, of like length, and the columns between their outermost tokens."""
    if max_batch_tokens is None:
        max_batch_tokens = MAX_BATCH_TOKENS.get(attention_mask.device.type, MAX_BATCH_TOKENS["cuda"])
    lengths, order = attention_mask.sum(1).sort(descending=True)
    lengths = lengths.tolist()
    start = 0
    while start < len(lengths):
        size = max(1, max_batch_tokens // (lengths[start] + num_beams))
        rows = order[start : start + size]
        used = attention_mask[rows].any(0).nonzero()
        yield rows, slice(used[0].item(), used[-1].item() + 1)
        start += size
