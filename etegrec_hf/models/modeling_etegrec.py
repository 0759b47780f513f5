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

if TYPE_CHECKING:  # never run: saving a model copies the files that this one imports, and the pipeline is needed too
    from .pipeline_etegrec import SequentialRecommendationPipeline  # noqa: F401


# patterns of earlier names of weights, with their replacements
EARLIER_NAMES = {
    # before there was a catalogue, tables were attributes of the model itself
    r"^(item_tokens|is_removed|semantic_embedding|transitions\.items|transitions\.weights)$": r"catalogue.\1",
    # before there were several vectors per item
    r"^item_logits\.(query|recency|mixed|shares)\b": r"item_logits.members.0.\1",
}


class ETEGRecForConditionalGeneration(ItemDecoding, ModelCardMixin, PreTrainedModel, GenerationMixin):
    """T5 over item codes with a learnable item tokenizer.

    A new model needs its catalogue before use: set codes with
    [`~ETEGRecForConditionalGeneration.set_item_codes`] and, for training, embeddings with
    `catalogue.set_semantic_embedding`, see [`ItemCatalogue`]. Both are saved with the weights.
    [`build_recommender`] does all of it.

    Args:
        config ([`ETEGRecConfig`]): sizes and options.

    Source: ETEGRec (doi 10.1145/3726302.3729989), section 3; specification, sections 2 and 4.3. One flat vocabulary
    replaces the specification's table per level, and `sequence_latents` leave padding out.
    """

    item_tokenizer: RQVAEModel  # None if `has_item_tokenizer` is False

    config_class = ETEGRecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    accepts_loss_kwargs = False  # the loss is a mean: Trainer divides it by the accumulation steps
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["T5Block"]
    _keys_to_ignore_on_load_missing = [r"catalogue\.item_counts"]  # folders of earlier versions lack them
    _keep_in_fp32_modules = ["shares"]  # too few numbers for bitsandbytes to quantise
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
        # set for every model: loading through one auto class drops the other, and a Hub id stays in the names
        auto_classes = ("AutoModel", "AutoModelForSeq2SeqLM")
        config.auto_map = dict.fromkeys(auto_classes, "modeling_etegrec.ETEGRecForConditionalGeneration")
        pipeline = {"impl": "pipeline_etegrec.SequentialRecommendationPipeline", "pt": ["AutoModel"], "type": "text"}
        config.custom_pipelines = {"sequential-recommendation": pipeline}
        self.post_init()

    def _initialize_weights(self, module, is_custom_code: bool = False) -> None:
        # in custom code, transformers leaves out modules without a tensor of their own, such as ItemInputs; functions
        # of `init` leave out tensors that were loaded
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
        """Loads a model as transformers does, also from folders whose tables have earlier names.

        Saving writes today's names.
        """
        given = kwargs.pop("key_mapping", None) or {}
        loaded = super().from_pretrained(*args, key_mapping=EARLIER_NAMES | given, **kwargs)
        if not given:  # otherwise saving would restore the earlier names
            (loaded[0] if isinstance(loaded, tuple) else loaded)._weight_conversions = None
        return loaded

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for known in [name for name in state_dict if name.startswith(prefix)]:
            for earlier, name in EARLIER_NAMES.items():
                if re.match(earlier, known[len(prefix) :]):
                    today = prefix + re.sub(earlier, name, known[len(prefix) :])
                    state_dict[today] = state_dict.pop(known)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def get_input_embeddings(self):
        return self.shared

    def set_input_embeddings(self, value):
        """Replaces the token embeddings, which both stacks and the output share. After an error nothing has changed.

        Raises:
            ValueError: embeddings of another size.
        """
        expected = (self.config.vocab_size, self.config.d_model)
        found = getattr(value, "num_embeddings", None), getattr(value, "embedding_dim", None)
        if None not in found and found != expected:
            raise ValueError(
                f"`value` holds embeddings of size {found}; by `code_length`, `codebook_size` and `d_model` the size "
                f"must be {expected}."
            )
        self.shared = value
        self.encoder.set_input_embeddings(value)
        self.decoder.set_input_embeddings(value)

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Module:
        """Returns the token embeddings; their number can't change.

        Raises:
            ValueError: another number of tokens.
        """
        size = self.config.vocab_size
        if new_num_tokens not in (None, size) or size % (pad_to_multiple_of or 1):
            asked = f"`new_num_tokens` is {new_num_tokens} and `pad_to_multiple_of` {pad_to_multiple_of}"
            raise ValueError(
                f"{asked}, but the vocabulary has {size} token ids, which follow from `code_length` and "
                "`codebook_size`. Build a new model with other sizes, or add items with `add_items`."
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
            labels (`torch.LongTensor` of shape `(batch, code_length)`, *optional*): token ids of the targets. Rows of
                padding don't count in the loss.
            candidates (`torch.LongTensor` of shape `(batch, candidates, code_length)`, *optional*): token ids of
                several items per history, which share its encoder states and cross-attention keys. They are decoded
                without dropout, in training too.
            history_lengths (`torch.LongTensor` of shape `(batch, targets)`, *optional*): number of the history's items
                that come before each target: at least 1, and at most all items of the row. Where `sequence_labels`
                are padding, any number will do. It needs a causal encoder, which encodes the history once for all
                targets, and histories that are padded right.
            sequence_labels (`torch.LongTensor` of shape `(batch, targets, code_length)`, *optional*): token ids of
                these targets; without them only the latents are returned.
            decoder_input_ids (`torch.LongTensor` of shape `(batch, decoded)`, *optional*): the decoder start and the
                codes so far. By default only the start, which is enough for the latents.
            decoder_attention_mask (`torch.Tensor`, *optional*): mask of `decoder_input_ids`, as in T5.
            encoder_outputs (*optional*): encoder states to use instead of encoding `input_ids`.
            past_key_values (`EncoderDecoderCache`, *optional*): the decoder's cache, for `decoder_input_ids`.
            use_cache (`bool`, *optional*): whether to return the cache when the next code is scored; by default the
                configuration's setting.
            output_attentions, output_hidden_states (`bool`, *optional*): whether to return attention weights and the
                states after each layer; not with `candidates`. By default the configuration's setting. Attention
                weights need `attn_implementation="eager"`.
            return_dict (`bool`, *optional*): whether to return an [`ETEGRecOutput`] instead of a tuple.

        Raises:
            ValueError: neither `input_ids` nor `encoder_outputs`.
            ValueError: labels or candidates of another shape.
            ValueError: more than one of `labels`, `candidates`, `history_lengths` and `decoder_input_ids`.
            ValueError: `sequence_labels` without `history_lengths`.
            ValueError: `history_lengths` with a bidirectional encoder, or with histories that are padded left.
            ValueError: `history_lengths` of targets below 1, or beyond the items of the row.
            ValueError: encoder outputs without `input_ids`, for a model with a repeat bias or item logits.
            ValueError: encoder outputs of another length than the mask.
            ValueError: `output_attentions` or `output_hidden_states` with `candidates`.
            TypeError: an unknown argument that isn't None.
            TypeError: `decoder_attention_mask` or `past_key_values` without `decoder_input_ids`.
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
                    "attentions and hidden states of `candidates` can't be returned; give one target per history as "
                    "`labels`, or leave out `output_attentions` and `output_hidden_states`."
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
        """Returns the vectors of items that the encoder reads besides codes.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids of whole items, 0 on
                padding.

        Returns:
            `torch.FloatTensor` of shape `(batch, items, d_model)`, or None if the model reads codes alone.
        """
        if self.item_inputs is None or input_ids is None:
            return None
        items = self.catalogue.items_of(input_ids)
        return self.item_inputs(items, self.catalogue.semantic_embedding[items])

    def _encoded(
        self, input_ids, attention_mask, encoder_outputs, recorded: dict[str, bool]
    ) -> tuple[EncodedBatch, dict[str, tuple]]:
        """Returns encoded histories, encoding them if no encoder outputs are given, and the recorded layer outputs."""
        if input_ids is None and encoder_outputs is None:
            raise ValueError("there is nothing to read; give histories as `input_ids`, or `encoder_outputs`.")
        if input_ids is not None:
            check_tensors(input_ids, attention_mask)
            if attention_mask is None:
                attention_mask = (input_ids != self.config.pad_token_id).long()
            elif encoder_outputs is None or attention_mask.shape == input_ids.shape:
                # masked items aren't part of the history either
                input_ids = input_ids.masked_fill(attention_mask == 0, self.config.pad_token_id)
        if encoder_outputs is None:
            vectors = self.item_vectors(input_ids)
            encoder_outputs = self.encoder(input_ids, attention_mask, item_vectors=vectors, **recorded)
        encoded = EncodedBatch.checked(self.config, input_ids, attention_mask, encoder_outputs[0])
        return encoded, records_of(encoder_outputs, ENCODER_RECORDS)

    # Logits

    def level_logits(self, decoder_states: torch.Tensor, level: int) -> torch.Tensor:
        """Returns logits `[..., codebook_size]` of one level's codes, given decoder states `[..., d_model]`."""
        return self.code_logits(decoder_states, self.config.layout.of_level(level))

    def logits_by_level(self, decoder_states: torch.Tensor) -> torch.Tensor:
        """Returns logits `[..., code_length, codebook_size]`, given decoder states `[..., code_length, d_model]`."""
        levels = range(self.config.code_length)
        return torch.stack([self.level_logits(decoder_states[..., level, :], level) for level in levels], dim=-2)

    def code_logits(self, decoder_states: torch.Tensor, tokens: slice) -> torch.Tensor:
        """Returns logits `[..., tokens]` of a part of the vocabulary, given decoder states `[..., d_model]`."""
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

        The pipeline in model folders of earlier versions calls this method.
        """
        self.catalogue.check_tokenizer(tokenizer)

    def set_item_codes(self, codes: torch.LongTensor) -> None:
        """Replaces the codes of all items with `codes` `[n_items, code_length]`; see [`ItemCatalogue.set_codes`]."""
        self.catalogue.set_codes(codes)

    @torch.no_grad()
    def add_items(self, ids: list[str], embeddings: torch.FloatTensor, tokenizer) -> torch.LongTensor:
        """Adds items to the catalogue without training; they can be recommended at once.

        The RQ-VAE gives each new item its prefix, and a suffix is chosen that no item with this prefix has. If a
        prefix has no free suffix, the closest prefix with a free suffix is taken. Other items keep their codes and
        indices. After an error, model and tokenizer are unchanged.

        Args:
            ids (`list[str]`): item ids of the new items.
            embeddings (`torch.FloatTensor` of shape `(n, input_size)`): their semantic embeddings.
            tokenizer ([`ETEGRecTokenizer`]): the model's tokenizer, to which the items are added too.

        Returns:
            item indices of the new items, `[n]`.

        Raises:
            ValueError: an id that is in the catalogue already.
            ValueError: embeddings of the wrong shape, with NaN or infinity, or with numbers beyond the model's dtype.
            ValueError: a tokenizer with other items than the model.
            ValueError: no free codes.
            ValueError: weights or tables that are offloaded.
            ValueError: a model without an item tokenizer.
        """
        if isinstance(ids, str):
            raise ValueError(f"`ids` is {ids!r}; give a list of item ids, also for a single item.")
        if self.item_tokenizer is None:
            raise ValueError(
                "`has_item_tokenizer` is False: the codes were made elsewhere; make codes of the new items there too, "
                "and give all codes to `set_item_codes` of a model with a larger `n_items`."
            )
        self.catalogue.check_tokenizer(tokenizer)
        if self.item_inputs is not None and self.item_inputs.own.weight.is_meta:
            raise ValueError("the vectors of items are offloaded; load the model without offloading to add items.")
        embeddings = torch.as_tensor(embeddings)
        self.catalogue.check_new_embeddings(embeddings, len(ids), self.item_tokenizer.dtype)
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
        """Removes items for good from those that can be recommended; histories that hold them are read as before.

        For items that are out of stock for a while, use `exclude` or `allowed` of `recommend` instead.

        Args:
            items (`torch.LongTensor` of shape `(n,)`): item indices, as `tokenizer.index_of(ids)` returns them.

        Raises:
            ValueError: an index that doesn't exist, or no item left.
        """
        self.catalogue.remove(items)


def _check_one(arguments: dict[str, object]) -> None:
    """Raises a `ValueError` if more than one of these arguments was given."""
    given = [name for name, value in arguments.items() if value is not None]
    if len(given) > 1:
        raise ValueError(
            f"{' and '.join(f'`{name}`' for name in given)} are given, but each asks for a different result; give one."
        )


ETEGRecForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")
