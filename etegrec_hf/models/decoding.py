"""Decoding with a recommender: transformers' `generate`, the batched `recommend`, and sampling of distinct items."""

import torch
from transformers import GenerationMixin, LogitsProcessorList

from .code_distribution import CodeDistribution, code_distribution
from .code_trie import AllCodes
from .encoded_history import EncodedHistory, encode_history
from .histories import EncodedBatch, Histories
from .logits_process import CodeTrieLogitsProcessor
from .search import Reading, reading_of, sample, search
from .search_options import SamplingOptions, SearchOptions

RECORDED = ("output_attentions", "output_hidden_states")  # arguments that ask for what layers compute


class ItemDecoding(GenerationMixin):
    """transformers' `GenerationMixin` for items: `generate` restricted to items, `recommend` and `sample_items`.

    Histories are `input_ids` and `attention_mask` `(batch, items * code_length)`, padded left or right. The last
    `max_history` items of a history are read. `recommend` and `sample_items` also take encoded histories.
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
        """Generates items with transformers' `generate`: each step chooses among the codes of its level.

        Beam search, greedy decoding, sampling and several returned sequences work as in transformers.
        `sequences_scores` are the items' log-probabilities. Unless a generation configuration says otherwise,
        `max_new_tokens` is `code_length`, `length_penalty` is 0 and top-k filtering is off.

        Args:
            inputs (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids of histories; also as
                `input_ids=`.
            generation_config (`GenerationConfig`, *optional*): as in transformers.
            logits_processor (`LogitsProcessorList`, *optional*): processors applied to the log-probabilities of the
                codes that may follow.
            constrained (`bool`, *optional*, defaults to `True`): whether every sequence must be an item. With `False`
                each code still belongs to its level, but a sequence may be no item's.
            exclude, allowed, exclude_history: as in `recommend`.

        Returns:
            as in transformers; sequences `[batch * num_return_sequences, 1 + code_length]` begin with the decoder
            start.

        Raises:
            ValueError: a history of only padding or broken items.
            ValueError: encoder outputs of longer histories than are read.
            ValueError: more items asked for than there are.
            ValueError: `exclude`, `allowed` or `exclude_history` with `constrained=False`.
            ValueError: weights that give NaN.
            ValueError: arguments that let transformers change scores before they are restricted to items, such as
                `prefix_allowed_tokens_fn`, `suppress_tokens` or `repetition_penalty`.
            ValueError: generated sequences that aren't items. It happens when sampling within beams (`do_sample=True`
                and `num_beams > 1`) runs out of items with a positive probability.
            ValueError: an `assistant_model` that needs the histories.
            ValueError: another decoder start.
        """
        if not constrained and (exclude is not None or allowed is not None or exclude_history):
            raise ValueError("`exclude`, `allowed` and `exclude_history` need `constrained=True`.")
        assistant = kwargs.get("assistant_model")
        if isinstance(assistant, ItemDecoding) and assistant._reads_histories:
            raise ValueError(
                "`assistant_model` has a repeat bias or item logits, but assisted decoding doesn't pass it the "
                "histories; leave the assistant out, or use `recommend`."
            )
        if self.training and any(block.gradient_checkpointing for block in self.decoder.block):
            kwargs["use_cache"] = False  # checkpointed layers don't fill the cache: earlier codes would be lost
        input_ids = kwargs.pop("input_ids", None) if inputs is None else inputs
        settings = self.generation_config if generation_config is None else generation_config
        own = self.config.decoder_start_token_id
        for start in (kwargs.get("decoder_start_token_id"), settings.decoder_start_token_id):
            if start not in (None, own):
                raise ValueError(f"`decoder_start_token_id` is {start}, but all items start from {own}; leave it out.")
        recorded = {name: kwargs.get(name, getattr(settings, name)) for name in RECORDED}
        device = self.catalogue.item_tokens.device  # offloaded weights wouldn't tell the device
        if input_ids is not None:
            reading = Reading(self, Histories.checked(self.config, input_ids, kwargs.get("attention_mask")))
            histories, read = reading.whole, reading.read
            are_encoded = kwargs.get("encoder_outputs") is not None
            if are_encoded and (histories.attention_mask.sum(1) <= self.config.max_tokens).all():
                read = histories  # padded as the given states are
            input_ids, kwargs["attention_mask"] = read.input_ids, read.attention_mask
            if not are_encoded:
                with torch.no_grad():
                    vectors = self.item_vectors(input_ids)
                    kwargs["encoder_outputs"] = self.encoder(
                        input_ids, kwargs["attention_mask"], item_vectors=vectors, **recorded
                    )
        elif exclude is not None or exclude_history or self._reads_histories:
            raise ValueError(
                "`exclude`, `exclude_history` and models with a repeat bias or item logits need the histories; give "
                "`input_ids` too."
            )
        elif "encoder_outputs" not in kwargs and "inputs_embeds" not in kwargs:
            raise ValueError("there is nothing to generate from; give histories as `input_ids`.")
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
                    f"`num_return_sequences` asks for {wanted} item{'s' * (wanted != 1)}, but for some user only "
                    f"{constraints.fewest_items} may be returned; ask for fewer, or use `recommend`, which returns as "
                    "many as there are."
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
                "some generated sequences aren't items: transformers ended them early or drew beams of probability 0; "
                "lower `num_beams`, raise `temperature`, leave out arguments that mask all items or end sequences "
                "(`logits_processor`, `eos_token_id`, `stopping_criteria`), or draw distinct items with "
                "`sample_items`."
            )
        return output

    @property
    def _reads_histories(self) -> bool:
        """Whether scores depend on which items a history holds, besides encoder states."""
        return self.repeat_bias is not None or self.item_logits is not None

    def _get_logits_processor(self, *args, **kwargs):
        # transformers puts processors made from its arguments before given ones, and so before ours
        processors = super()._get_logits_processor(*args, **kwargs)
        ours = [place for place, one in enumerate(processors) if isinstance(one, CodeTrieLogitsProcessor)]
        before = [type(one).__name__ for one in processors[: ours[0]]] if ours else []
        if before:
            raise ValueError(
                f"{' and '.join(before)} would change the scores before they are restricted to items. Arguments like "
                "`prefix_allowed_tokens_fn`, `suppress_tokens` or `repetition_penalty` cause that. Choose items with "
                "`allowed`, `exclude` and `exclude_history` instead, or give a processor of your own as "
                "`logits_processor`, which is applied afterwards."
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
        """Returns the `top_k` best items of each user, found by a batched beam search over codes.

        `num_beams`, `exclude_history`, `rerank_weight` and `transition_weight` default to the model's own settings,
        `config.search_settings`. Without `rerank_weight` and `transition_weight`, items and scores are those that
        `generate` finds with the same number of beams. Items that a user can't get are left out of the search, so that
        `top_k` items come back if as many exist. Linear layers, norms and embeddings that were replaced or have hooks
        are called. The modules around them, such as attention, aren't called.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids of histories.
            attention_mask (`torch.LongTensor` of the same shape, *optional*): 0 on padding; by default on pad tokens.
            top_k (`int`, *optional*, defaults to 10): items per user.
            num_beams (`int`, *optional*): number of prefixes that each level keeps, at least `top_k`; by default the
                model's own setting (20 if it has none), or `top_k` if that is larger.
            exclude (`torch.LongTensor` of shape `(batch, n)`, *optional*): item indices that each user must not get,
                padded with 0.
            allowed (`torch.LongTensor` of shape `(n,)`, *optional*): item indices that all users must choose from.
            exclude_history (`bool`, *optional*): whether to leave out items of the user's history. The whole history
                counts, even if only its last items are read.
            max_batch_tokens (`int`, *optional*): limit of memory: users are decoded together as long as
                `users * (longest history + num_beams)` tokens stay within this number. By default it is 4096 on a CPU
                and 131072 on a GPU. It changes no result.
            encoded ([`EncodedHistory`], *optional*): result of `encode_history`, instead of `input_ids`.
            rerank_weight (`float`, *optional*): weight w of preference re-ranking. All items that the beam search
                found are ranked again by `log p(codes) + w * cos(preference_latents, semantic embedding)`. With
                transition votes, p is the mixture. Choose w on validation users. It only helps a recommender that was
                trained with preference-semantic alignment (PSA).
            transition_weight (`float`, *optional*): share w of transition votes. Items are searched for and scored by
                `(1 - w) * p(codes) + w * votes`. The last items of the history vote for the items that came next to
                them in training, see [`ItemTransitions`]. The votes sum to 1, or to less if some go to items that
                can't be returned or that the repeat bias makes unlikely. Choose w on validation users.

        Returns:
            item indices `[batch, top_k]` and scores `[batch, top_k]`, best first. Scores are log-probabilities, of the
            mixture if there is a `transition_weight`, plus the weighted cosine if there is a `rerank_weight`. Shorter
            lists are padded with index 0 and score -inf.

        Raises:
            ValueError: options that [`SearchOptions`] refuses.
            ValueError: a weight, given or the model's own, that needs a part which the model lacks.
            ValueError: a history of only padding or broken items.
            ValueError: histories that a model of other sizes encoded.
            ValueError: item indices that don't exist or of the wrong shape, or no allowed item.
            ValueError: weights that give NaN.
            ValueError: a hook on a stack, block, attention, feed-forward layer or dropout.
            ValueError: an offloaded repeat bias.
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
        """Draws distinct items for each user, without replacement, by stochastic beam search.

        The probability of a code is the softmax of `logits / temperature` over the codes that may follow. An item's
        probability is the product of its codes' probabilities. The probabilities of all items that a user may get sum
        to 1.

        Args:
            num_samples (`int`, *optional*, defaults to 16): items per user.
            temperature (`float`, *optional*, defaults to 1.0): number that logits are divided by; above 1, items are
                drawn more evenly.
            exclude_history (`bool`, *optional*, defaults to `False`): whether to leave out items of the user's whole
                history. The model's own setting doesn't count.
            max_batch_tokens (`int`, *optional*): limit of memory: users are decoded together as long as
                `users * (longest history + num_samples)` tokens stay within this number. By default it is 4096 on a
                CPU and 131072 on a GPU. Random numbers are drawn batch by batch, so that another limit may give other
                items.
            generator (`torch.Generator`, *optional*): source of the random numbers.
            input_ids, attention_mask, exclude, allowed, encoded: as in `recommend`.

        Returns:
            item indices and their log-probabilities `[batch, num_samples]`, in the order of the draw. Shorter lists
            are padded with index 0 and log-probability -inf.

        Raises:
            ValueError: `num_samples` below 1, or a temperature that isn't above 1e-6.
            ValueError: the errors of `recommend`.

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
        """Encodes histories, or only the items that were added since `past`.

        The result equals that of encoding the whole histories at once. If a history grows beyond `max_history` items,
        its first items are no longer read, and its last `max_history` items are encoded again. All histories are
        encoded in one batch.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids of histories; with `past`
                those of the new items alone. A row without new items is padding.
            attention_mask (`torch.LongTensor` of the same shape, *optional*): 0 on padding, wherever it is; by
                default on pad tokens.
            past ([`EncodedHistory`], *optional*): the same histories as encoded before. It isn't changed.

        Returns:
            [`EncodedHistory`] of the whole histories.

        Raises:
            ValueError: a history of only padding or broken items.
            ValueError: another number of histories in `past`.
            ValueError: a `past` that a model of other sizes encoded.
            ValueError: `past` with a bidirectional encoder.
        """
        return encode_history(self, Histories.checked(self.config, input_ids, attention_mask), past)
