"""The recommender: reads the codes of a history and generates the codes of the next item."""

import re
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput

from .codes_for_new_items import free_codes
from .configuration_etegrec import ETEGRecConfig
from .decoding import ItemDecoding
from .headwise_t5 import plain_weight
from .histories import EncodedBatch, check_tensors
from .history_encoder import HistoryEncoder
from .item_catalogue import ItemCatalogue
from .item_inputs import ItemInputs
from .item_logits import ItemLogits
from .item_transitions import ItemTransitions, PairGains
from .model_card import ModelCardMixin
from .modeling_rqvae import RQVAEModel
from .scoring import (
    ENCODER_RECORDS,
    ETEGRecOutput,
    records_of,
    score_candidates,
    score_next_codes,
    score_sequences,
    score_targets,
)
from .target_decoder import TargetDecoder

if TYPE_CHECKING:  # never run: saving a model copies the files that it imports, and the pipeline belongs to it
    from .pipeline_etegrec import SequentialRecommendationPipeline  # noqa: F401


# Tables that stood on the model itself until they got a home of their own
EARLIER_NAMES = {
    name: f"catalogue.{name}"
    for name in ("item_tokens", "is_removed", "semantic_embedding", "transitions.items", "transitions.weights")
}


class ETEGRecForConditionalGeneration(ItemDecoding, ModelCardMixin, PreTrainedModel, GenerationMixin):
    """T5 over item codes with a learnable item tokenizer.

    Give it its catalogue before use: [`~ETEGRecForConditionalGeneration.set_item_codes`] and, for training,
    `catalogue.set_semantic_embedding`, see [`ItemCatalogue`]. Both are saved with the weights.

    Source: ETEGRec (doi 10.1145/3726302.3729989), section 3; seed sections 2 and 4.3. One flat vocabulary takes the
    place of the seed's table a level, and `sequence_latents` leave padding out.
    """

    item_tokenizer: RQVAEModel  # None without `has_item_tokenizer`

    config_class = ETEGRecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    accepts_loss_kwargs = False  # the loss is a mean: Trainer divides it by the accumulation steps
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["T5Block"]
    _keys_to_ignore_on_load_missing = [r"catalogue\.item_counts"]  # which folders of earlier versions lack
    _keep_in_fp32_modules = ["shares"]  # few numbers, which make a mixture; bitsandbytes can't quantise so few
    _tied_weights_keys = {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    }
    _keys_to_ignore_on_save = list(_tied_weights_keys)  # so that Trainer expects a checkpoint without them

    def __init__(self, config: ETEGRecConfig):
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = HistoryEncoder(config)
        self.decoder = TargetDecoder(config)
        self.encoder.set_input_embeddings(self.shared)
        self.decoder.set_input_embeddings(self.shared)
        self.item_tokenizer = None  # type: ignore[assignment]
        if config.has_item_tokenizer:
            self.item_tokenizer = RQVAEModel(config.rqvae_config)
            self.sequence_adapter = nn.Linear(config.d_model, config.rqvae_config.latent_size)
            self.preference_adapter = nn.Linear(config.d_model, config.rqvae_config.input_size)
        self.item_inputs = ItemInputs(config) if config.reads_items else None
        self.repeat_bias = nn.Parameter(torch.zeros(config.code_length)) if config.has_repeat_bias else None
        self.item_logits = ItemLogits(config) if config.item_logits != "none" else None
        self.catalogue = ItemCatalogue(config)
        # Set anew for every model: loading through one auto class drops the other, and a Hub id stays in the names
        auto_classes = ("AutoModel", "AutoModelForSeq2SeqLM")
        config.auto_map = dict.fromkeys(auto_classes, "modeling_etegrec.ETEGRecForConditionalGeneration")
        pipeline = {"impl": "pipeline_etegrec.SequentialRecommendationPipeline", "pt": ["AutoModel"], "type": "text"}
        config.custom_pipelines = {"sequential-recommendation": pipeline}
        self.post_init()

    def _initialize_weights(self, module, is_custom_code: bool = False) -> None:
        # of custom code, transformers leaves out modules without a tensor of their own, as ItemInputs; `init` looks at
        # each tensor whether it was loaded
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, ETEGRecForConditionalGeneration):
            init.normal_(module.shared.weight, std=self.config.initializer_factor)
            if module.repeat_bias is not None:
                init.zeros_(module.repeat_bias)
        elif isinstance(module, (ItemCatalogue, PairGains)):
            module.init_weights()
        elif isinstance(module, ItemTransitions):
            init.zeros_(module.items)
            init.zeros_(module.weights)
        elif isinstance(module, (ItemInputs, ItemLogits)):
            module.init_weights(self.config.initializer_factor)
        elif isinstance(module, nn.Linear) and module.bias is not None:  # the adapters
            init.xavier_normal_(module.weight)
            init.zeros_(module.bias)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """transformers' own, which also reads folders whose tables have their earlier names, and saves them anew."""
        given = kwargs.pop("key_mapping", None) or {}
        ours = {f"^{re.escape(earlier)}$": name for earlier, name in EARLIER_NAMES.items()}
        loaded = super().from_pretrained(*args, key_mapping=ours | given, **kwargs)
        if not given:  # otherwise undone in saving
            (loaded[0] if isinstance(loaded, tuple) else loaded)._weight_conversions = None
        return loaded

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for earlier, name in EARLIER_NAMES.items():
            if prefix + earlier in state_dict:
                state_dict[prefix + name] = state_dict.pop(prefix + earlier)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def get_input_embeddings(self):
        return self.shared

    def set_input_embeddings(self, value):
        """Replaces the embeddings of both stacks, which are the output's too.

        Raises:
            ValueError: embeddings of another size, before anything changes.
        """
        expected = (self.config.vocab_size, self.config.d_model)
        found = getattr(value, "num_embeddings", None), getattr(value, "embedding_dim", None)
        if None not in found and found != expected:
            raise ValueError(
                f"`value` holds embeddings of size {found}; `code_length`, `codebook_size` and `d_model` say "
                f"{expected}: give embeddings of that size."
            )
        self.shared = value
        self.encoder.set_input_embeddings(value)
        self.decoder.set_input_embeddings(value)

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Module:
        """Returns the embeddings, whose number doesn't change.

        Raises:
            ValueError: another number of tokens.
        """
        size = self.config.vocab_size
        if new_num_tokens not in (None, size) or size % (pad_to_multiple_of or 1):
            asked = f"`new_num_tokens` is {new_num_tokens} and `pad_to_multiple_of` {pad_to_multiple_of}"
            raise ValueError(
                f"{asked}; the vocabulary has {size} token ids, which follow from `code_length` and `codebook_size`. "
                "Build a model with others, or add items with `add_items`."
            )
        return self.shared

    def get_encoder(self):
        return self.encoder

    def get_decoder(self):
        return self.decoder

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        candidates: torch.LongTensor | None = None,
        history_lengths: torch.LongTensor | None = None,
        sequence_labels: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values=None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> ETEGRecOutput | tuple:
        """Scores the codes of targets, or the next code.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids of histories.
            attention_mask (`torch.LongTensor` of the same shape, *optional*): 0 on padding, left or right; by default
                on pad tokens.
            labels (`torch.LongTensor` of shape `(batch, code_length)`, *optional*): token ids of the targets. Targets
                of padding don't count.
            candidates (`torch.LongTensor` of shape `(batch, candidates, code_length)`, *optional*): token ids of
                several items per history, which share its encoder states and cross-attention keys. They are decoded
                without dropout, in training too.
            history_lengths (`torch.LongTensor` of shape `(batch, targets)`, *optional*): how many items of the history
                each target comes after, for a causal encoder, whose one pass serves all targets. Histories are padded
                right.
            sequence_labels (`torch.LongTensor` of shape `(batch, targets, code_length)`, *optional*): token ids of
                these targets, left out where only the latents are wanted.
            decoder_input_ids (`torch.LongTensor` of shape `(batch, decoded)`, *optional*): the decoder start and the
                codes so far. By default just the start: enough for both adapters.
            decoder_attention_mask (`torch.Tensor`, *optional*): which of `decoder_input_ids` are seen, as of T5.
            encoder_outputs (*optional*): encoder states to use instead of encoding `input_ids`.
            past_key_values (`EncoderDecoderCache`, *optional*): the decoder's cache, for `decoder_input_ids`.
            use_cache (`bool`, *optional*): whether to return the cache, where the next code is scored; by default as
                the configuration says.
            output_attentions, output_hidden_states (`bool`, *optional*): whether to return attention weights, which
                only `attn_implementation="eager"` has, and what each layer makes; not of `candidates`. By default as
                the configuration says.
            return_dict (`bool`, *optional*): whether to return an [`ETEGRecOutput`] instead of a tuple.

        Raises:
            ValueError: neither `input_ids` nor `encoder_outputs`.
            ValueError: labels or candidates of another shape.
            ValueError: more than one of `labels`, `candidates`, `history_lengths` and `decoder_input_ids`.
            ValueError: `sequence_labels` without `history_lengths`, or these with a bidirectional encoder.
            ValueError: encoder outputs alone for a model with a repeat bias or item logits, which asks what users had.
            ValueError: encoder outputs of another length than the mask.
            TypeError: another argument that isn't None, or a `decoder_attention_mask` or `past_key_values` of nothing.
        """
        if decoder_input_ids is None:
            kwargs |= {"decoder_attention_mask": decoder_attention_mask, "past_key_values": past_key_values}
        unknown = sorted(name for name, value in kwargs.items() if value is not None)
        if unknown:
            raise TypeError(f"forward() got unexpected arguments {', '.join(unknown)}; see its documentation.")
        flags = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        recorded: dict[str, bool] = {
            name: getattr(self.config, name) if flag is None else flag for name, flag in flags.items()
        }
        sequences = sequence_labels if history_lengths is None else history_lengths
        asked = {"labels": labels, "candidates": candidates, "history_lengths": sequences}
        _check_one(asked | {"decoder_input_ids": decoder_input_ids})
        encoded, encoder_records = self._encoded(input_ids, attention_mask, encoder_outputs, recorded)
        if history_lengths is not None or sequence_labels is not None:
            output = score_sequences(self, encoded, history_lengths, sequence_labels, recorded)
        elif candidates is not None:
            if any(recorded.values()):
                raise ValueError(
                    "`candidates` are decoded without attentions and hidden states to return; give one target per "
                    "history as `labels`, or leave out `output_attentions` and `output_hidden_states`."
                )
            output = score_candidates(self, encoded, candidates)
        elif labels is not None:
            output = score_targets(self, encoded, labels, recorded)
        else:
            use_cache = self.config.use_cache and not self.training if use_cache is None else use_cache
            options = {"past_key_values": past_key_values, "use_cache": use_cache, **recorded}
            options |= {"attention_mask": decoder_attention_mask}
            output = score_next_codes(self, encoded, decoder_input_ids, options)
        output = ETEGRecOutput(**output, **encoder_records)
        return output if return_dict is not False else output.to_tuple()

    # Reading histories

    def item_vectors(self, input_ids: torch.LongTensor | None) -> torch.FloatTensor | None:
        """Returns what the encoder reads besides codes: a vector per item of the histories.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids of whole items, 0 on
                padding.

        Returns:
            `(batch, items, d_model)`; none for a model that reads codes alone.
        """
        if self.item_inputs is None or input_ids is None:
            return None
        items = self.catalogue.items_of(input_ids)
        return self.item_inputs(items, self.catalogue.semantic_embedding[items])

    def _encoded(
        self, input_ids, attention_mask, encoder_outputs, recorded: dict[str, bool]
    ) -> tuple[EncodedBatch, dict[str, tuple]]:
        """Histories and what the encoder makes of them, unless that is given; and what was recorded of its layers."""
        if input_ids is None and encoder_outputs is None:
            raise ValueError("there is nothing to read; pass histories as `input_ids`, or `encoder_outputs`.")
        if input_ids is not None:
            check_tensors(input_ids, attention_mask)
        if attention_mask is None and input_ids is not None:
            attention_mask = (input_ids != self.config.pad_token_id).long()
        elif encoder_outputs is None:  # what is masked wasn't had either
            input_ids = input_ids.masked_fill(attention_mask == 0, self.config.pad_token_id)
        if encoder_outputs is None:
            vectors = self.item_vectors(input_ids)
            encoder_outputs = self.encoder(input_ids, attention_mask, item_vectors=vectors, **recorded)
        encoded = EncodedBatch.checked(self.config, input_ids, attention_mask, encoder_outputs[0])
        return encoded, records_of(encoder_outputs, ENCODER_RECORDS)

    # Logits

    def level_logits(self, decoder_states: torch.Tensor, level: int) -> torch.Tensor:
        """Returns logits `[..., codebook_size]` of one level's codes, of decoder states `[..., d_model]`."""
        return self.code_logits(decoder_states, self.config.layout.of_level(level))

    def logits_by_level(self, decoder_states: torch.Tensor) -> torch.Tensor:
        """Returns logits `[..., code_length, codebook_size]` of decoder states `[..., code_length, d_model]`."""
        levels = range(self.config.code_length)
        return torch.stack([self.level_logits(decoder_states[..., level, :], level) for level in levels], dim=-2)

    def code_logits(self, decoder_states: torch.Tensor, tokens: slice) -> torch.Tensor:
        """Returns logits `[..., tokens]` of a part of the vocabulary, of decoder states `[..., d_model]`."""
        weight = plain_weight(self.shared)
        if weight is None:
            embeddings = self.shared(torch.arange(tokens.start, tokens.stop, device=decoder_states.device))
        else:
            embeddings = weight[tokens]
        scale = self.config.d_model**-0.5 if self.config.scale_logits else 1
        return (decoder_states * scale if scale != 1 else decoder_states) @ embeddings.T

    # A catalogue that changes

    def check_item_ids(self, tokenizer) -> None:
        """Compares a tokenizer's items with the model's; see [`ItemCatalogue.check_tokenizer`].

        The pipeline that ships with folders of earlier versions calls it.
        """
        self.catalogue.check_tokenizer(tokenizer)

    def set_item_codes(self, codes: torch.LongTensor) -> None:
        """Makes `codes` `[n_items, code_length]` the catalogue's; see [`ItemCatalogue.set_codes`]."""
        self.catalogue.set_codes(codes)

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
            ValueError: an id that exists.
            ValueError: embeddings of the wrong shape or with NaN.
            ValueError: a tokenizer of other items.
            ValueError: no free codes.
            ValueError: weights or tables that are offloaded.
            ValueError: a model without an item tokenizer. Model and tokenizer are in all cases as they were.
        """
        if isinstance(ids, str):
            raise ValueError(f"`ids` is {ids!r}; give a list of item ids, also for a single item.")
        if self.item_tokenizer is None:
            raise ValueError(
                "`has_item_tokenizer` is False: the codes were made elsewhere; make those of new items there too, and "
                "give all of them to `set_item_codes` of a model with more `n_items`."
            )
        self.catalogue.check_tokenizer(tokenizer)
        if self.item_inputs is not None and self.item_inputs.own.weight.is_meta:
            raise ValueError("the vectors of items are offloaded; load the model without offloading to add some.")
        embeddings = torch.as_tensor(embeddings)
        self.catalogue.check_new_embeddings(embeddings, len(ids))
        embeddings = embeddings.to(self.device, self.item_tokenizer.dtype)
        codes = free_codes(
            self.catalogue.trie_of_all,
            self.item_tokenizer.encode(embeddings),
            lambda row: self.item_tokenizer(embeddings[row : row + 1]).code_logits[0, -1],
        )
        tokenizer.add_items(ids, codes)
        self.config.n_items += len(ids)
        if self.item_inputs is not None:
            self.item_inputs.add_items(len(ids))
        return self.catalogue.add(codes, embeddings)

    def remove_items(self, items: torch.LongTensor) -> None:
        """Takes items out of what can be recommended, for good; histories that hold them are read as before.

        Args:
            items (`torch.LongTensor` of shape `(n,)`): item indices, `tokenizer.index_of(ids)`. For items that are out
                of stock now and then, see `exclude` and `allowed` of `recommend`.

        Raises:
            ValueError: an index that doesn't exist, or no item left.
        """
        self.catalogue.remove(items)


def _check_one(arguments: dict[str, object]) -> None:
    """Raises a `ValueError` if more than one of these was given."""
    given = [name for name, value in arguments.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(f'`{name}`' for name in given)} are given; each asks for another result.")


ETEGRecForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")
