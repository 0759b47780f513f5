"""How a recommender decodes: transformers' `generate`, the batched `recommend`, and a sample of distinct items."""

import torch
from transformers import GenerationMixin, LogitsProcessorList

from .code_distribution import CodeDistribution, code_distribution
from .code_trie import AllCodes
from .encoded_history import EncodedHistory, encode_history
from .histories import EncodedBatch, Histories
from .logits_process import CodeTrieLogitsProcessor
from .search import Reading, reading_of, sample, search
from .search_options import SamplingOptions, SearchOptions

RECORDED = ("output_attentions", "output_hidden_states")  # of the stacks, for whoever looks into them


class ItemDecoding(GenerationMixin):
    """transformers' `GenerationMixin` for items: overrides `generate`, and adds what it can't do well.

    Histories are `input_ids` and `attention_mask` `(batch, items * code_length)`, padded left or right; of a longer
    one the last `max_history` items are read. `recommend` and `sample_items` also take them encoded.
    """

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
        items' log-probabilities. Where neither a generation configuration is given nor the model's says otherwise,
        `max_new_tokens` is `code_length`, `length_penalty` 0 and top-k filtering off.

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
            ValueError: a history of only padding or broken items.
            ValueError: encoder outputs of longer histories than are read.
            ValueError: more items asked for than there are.
            ValueError: constraints with `constrained=False`.
            ValueError: weights that give NaN.
            ValueError: arguments by which transformers changes scores before the levels and the trie, as
                `prefix_allowed_tokens_fn`, `suppress_tokens` or `repetition_penalty`.
            ValueError: sequences that aren't items, as when sampling within beams (`do_sample=True` and
                `num_beams > 1`) ran out of items with a probability.
            ValueError: an `assistant_model` that has to know the histories, or another decoder start.
        """
        if not constrained and (exclude is not None or allowed is not None or exclude_history):
            raise ValueError("`exclude`, `allowed` and `exclude_history` need `constrained=True`.")
        assistant = kwargs.get("assistant_model")
        if isinstance(assistant, ItemDecoding) and assistant._reads_histories:
            raise ValueError(
                "`assistant_model` has a repeat bias or item logits, and assisted decoding doesn't tell it the "
                "histories; leave it out, or use `recommend`."
            )
        if self.training and any(block.gradient_checkpointing for block in self.decoder.block):
            kwargs["use_cache"] = False  # which checkpointed layers don't fill, so that earlier codes would be lost
        input_ids = kwargs.pop("input_ids", None) if inputs is None else inputs
        settings = self.generation_config if generation_config is None else generation_config
        own = self.config.decoder_start_token_id
        for start in (kwargs.get("decoder_start_token_id"), settings.decoder_start_token_id):
            if start not in (None, own):
                raise ValueError(f"`decoder_start_token_id` is {start}, and all items start from {own}; leave it out.")
        recorded = {name: kwargs.get(name, getattr(settings, name)) for name in RECORDED}
        device = self.catalogue.item_tokens.device  # that of weights isn't known while they're offloaded
        if input_ids is not None:
            reading = Reading(self, Histories.checked(self.config, input_ids, kwargs.get("attention_mask")))
            histories, input_ids = reading.whole, reading.read.input_ids
            kwargs["attention_mask"] = reading.read.attention_mask
            if kwargs.get("encoder_outputs") is None:
                with torch.no_grad():
                    vectors = self.item_vectors(input_ids)
                    kwargs["encoder_outputs"] = self.encoder(
                        input_ids, kwargs["attention_mask"], item_vectors=vectors, **recorded
                    )
        elif exclude is not None or exclude_history or self._reads_histories:
            raise ValueError(
                "`exclude`, `exclude_history` and models with a repeat bias or item logits need the histories; pass "
                "`input_ids` too."
            )
        elif "encoder_outputs" not in kwargs and "inputs_embeds" not in kwargs:
            raise ValueError("there is nothing to generate from; pass histories as `input_ids`.")
        else:
            if "inputs_embeds" in kwargs:
                embeds, mask = kwargs.pop("inputs_embeds"), kwargs.get("attention_mask")
                with torch.no_grad():
                    kwargs["encoder_outputs"] = self.encoder(inputs_embeds=embeds, attention_mask=mask, **recorded)
            nothing = torch.zeros((len(kwargs["encoder_outputs"][0]), 0), dtype=torch.long, device=device)
            histories = Histories(nothing, nothing)
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
            kwargs = {name: value for name, value in defaults.items() if getattr(settings, name) is None} | kwargs
        distribution = CodeDistribution(AllCodes(self.config.layout, device))
        if constrained:
            constraints = self.catalogue.constraints(histories, exclude, allowed, exclude_history)
            wanted = returned if num_beams > 1 else 1
            if wanted > constraints.fewest_items:
                raise ValueError(
                    f"`num_return_sequences` asks for {wanted} items where only {constraints.fewest_items} may be "
                    "returned; ask for fewer, or use `recommend`, which returns those that exist."
                )
            states = kwargs["encoder_outputs"][0]
            encoded = EncodedBatch.checked(self.config, input_ids, kwargs.get("attention_mask"), states)
            with torch.no_grad():
                distribution = code_distribution(self, encoded, constraints)
        output = super().generate(
            input_ids,
            generation_config=generation_config,
            logits_processor=LogitsProcessorList([CodeTrieLogitsProcessor(distribution), *(logits_processor or [])]),
            **kwargs,
        )
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        codes = self.config.layout.codes(sequences[:, 1:])
        if not codes.shape[1] or (distribution.trie.walk(codes) < 0).any():
            raise ValueError(
                "transformers ended sequences early or drew beams of probability 0, which aren't items; lower "
                "`num_beams`, raise `temperature`, leave out what masks all items or ends sequences "
                "(`logits_processor`, `eos_token_id`, `stopping_criteria`), or draw distinct items with "
                "`sample_items`."
            )
        return output

    @property
    def _reads_histories(self) -> bool:
        """Whether scores depend on which items a history holds, besides encoder states."""
        return self.repeat_bias is not None or self.item_logits is not None

    def _get_logits_processor(self, *args, **kwargs):
        # those that transformers' arguments ask for come before given ones, and so before ours
        processors = super()._get_logits_processor(*args, **kwargs)
        ours = [place for place, one in enumerate(processors) if isinstance(one, CodeTrieLogitsProcessor)]
        before = [type(one).__name__ for one in processors[: ours[0]]] if ours else []
        if before:
            raise ValueError(
                f"{' and '.join(before)} would change the scores before codes share the probability. Arguments like "
                "`prefix_allowed_tokens_fn`, `suppress_tokens` or `repetition_penalty` ask for that; choose items by "
                "`allowed`, `exclude` and `exclude_history` instead, or give your own as `logits_processor`, which "
                "comes after."
            )
        return processors

    def recommend(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        top_k: int = 10,
        num_beams: int | None = None,
        exclude: torch.LongTensor | None = None,
        allowed: torch.LongTensor | None = None,
        exclude_history: bool | None = None,
        max_batch_tokens: int | None = None,
        encoded: EncodedHistory | None = None,
        rerank_weight: float | None = None,
        transition_weight: float | None = None,
    ) -> tuple[torch.LongTensor, torch.FloatTensor]:
        """Returns the `top_k` items of each user by batched code beam search.

        `num_beams`, `exclude_history`, `rerank_weight` and `transition_weight` that aren't given are the model's own,
        as `config.search_settings` has them. The items and scores are those that `generate` finds with as many beams,
        unless `rerank_weight` or `transition_weight` say otherwise. What is excluded or not allowed is left out of the
        search, so that `top_k` items come back whenever they exist. Linear layers, norms and embeddings that were
        replaced or have hooks are called; what they are parts of, as attention, isn't.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids of histories.
            attention_mask (`torch.LongTensor` of the same shape, *optional*): 0 on padding; by default on pad tokens.
            top_k (`int`, *optional*, defaults to 10): items per user.
            num_beams (`int`, *optional*): prefixes that each level keeps, at least `top_k`; by default the model's own
                number (20, unless its settings say otherwise), or `top_k` where that is more.
            exclude (`torch.LongTensor` of shape `(batch, n)`, *optional*): item indices that each user must not get,
                padded with 0.
            allowed (`torch.LongTensor` of shape `(n,)`, *optional*): item indices that all users must choose from.
            exclude_history (`bool`, *optional*): whether no user gets an item of their history, of all of it, also
                where only its last items are read.
            max_batch_tokens (`int`, *optional*): users are decoded together while their tokens, those of the longest
                history and one per beam for each user, stay within this number; by default 4096 on a CPU and 131072
                on a GPU. It bounds memory and changes no result.
            encoded ([`EncodedHistory`], *optional*): what `encode_history` returned, instead of `input_ids`.
            rerank_weight (`float`, *optional*): the weight w by which all items that the beam found are ranked again,
                by `log p(codes) + w * cos(preference_latents, semantic embedding)`, p being the
                mixture where transition votes are mixed in. Choose it on validation users. Preference latents mean
                something where the recommender was trained with PSA.
            transition_weight (`float`, *optional*): the share w in `(1 - w) * p(codes) + w * votes`,
                by which the beam is then chosen and scored. The votes are those of the history's last items for what
                came next to them in training (see [`ItemTransitions`]). They sum to 1, less what goes to items that
                can't be returned or that the repeat bias makes unlikely. Choose it on validation users.

        Returns:
            item indices `[batch, top_k]` and scores `[batch, top_k]`, best first: log-probabilities, those of the
            mixture with a `transition_weight`, to which `rerank_weight` adds its part. Lists of users for whom fewer
            items exist are padded with index 0 and score minus infinity.

        Raises:
            ValueError: options that [`SearchOptions`] refuses, or weights, also the model's own, for which it lacks
                something.
            ValueError: a history of only padding or broken items, or histories that a model of other sizes encoded.
            ValueError: item indices that don't exist or of the wrong shape, or no allowed item.
            ValueError: weights that give NaN.
            ValueError: a hook on a stack, block, attention, feed-forward layer or dropout; an offloaded bias.
        """
        options = SearchOptions(top_k, num_beams, exclude_history, rerank_weight, transition_weight, max_batch_tokens)
        beam = search(reading_of(self, input_ids, attention_mask, encoded), options, exclude, allowed)
        return beam.items, beam.scores

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
        """Draws distinct items of each user without replacement, by stochastic beam search.

        Each code is drawn from the softmax of `logits / temperature` over the codes that may follow, so an item's
        probability is the product of its codes', and all items that a user may get have probabilities that sum to 1.

        Args:
            num_samples (`int`, *optional*, defaults to 16): items per user.
            temperature (`float`, *optional*, defaults to 1.0): above 1 draws more evenly.
            generator (`torch.Generator`, *optional*): of the sample.
            input_ids, attention_mask, exclude, allowed, exclude_history, max_batch_tokens, encoded: as in `recommend`.

        Returns:
            item indices and their log-probabilities `[batch, num_samples]`, in the order of the draw. A user for whom
            fewer items exist gets all of them, padded with index 0 and minus infinity.

        Raises:
            ValueError: no samples, a temperature that isn't positive, and what `recommend` raises.

        Source: Kool, van Hoof and Welling, Stochastic Beams and Where to Find Them (2019).
        """
        options = SamplingOptions(num_samples, temperature, exclude_history, max_batch_tokens)
        beam = sample(reading_of(self, input_ids, attention_mask, encoded), options, exclude, allowed, generator)
        return beam.items, beam.scores

    def encode_history(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor | None = None,
        past: EncodedHistory | None = None,
    ) -> EncodedHistory:
        """Encodes histories, or only the items that came after those of `past`.

        The result is that of the whole histories encoded at once. A history that grows beyond `max_history` items
        loses its first ones, which the others have seen, and is therefore encoded again from its last `max_history`
        items. All histories are encoded in one batch.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids of histories, or with
                `past` of each one's new items, which may be none.
            attention_mask (`torch.LongTensor` of the same shape, *optional*): 0 on padding, wherever it is; by
                default on pad tokens.
            past ([`EncodedHistory`], *optional*): what comes before, of as many histories. It stays as it is.

        Returns:
            [`EncodedHistory`] of the whole histories.

        Raises:
            ValueError: a history of only padding or broken items.
            ValueError: another number of histories in `past`, or one that a model of other sizes encoded.
            ValueError: `past` with a bidirectional encoder.
        """
        return encode_history(self, Histories.checked(self.config, input_ids, attention_mask), past)
