"""The recommender: reads the codes of a history and generates the codes of the next item."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from .beam_search import BeamDecoder, candidate_logits
from .code_distribution import CodeDistribution, terms_before, terms_of
from .codes_for_new_items import free_codes
from .configuration_etegrec import ETEGRecConfig
from .decoding import ItemDecoding
from .headwise_t5 import plain_weight
from .histories import EncodedBatch, check_tensors
from .history_encoder import HistoryEncoder, additive
from .item_catalogue import ItemCatalogue
from .item_inputs import ItemInputs
from .item_logits import ItemEvidence, ItemLogits
from .item_transitions import ItemTransitions
from .model_card import ModelCardMixin
from .modeling_rqvae import RQVAEModel
from .node_term import NodeTerm
from .target_decoder import TargetDecoder

if TYPE_CHECKING:  # never run: saving a model copies the files that it imports, and the pipeline belongs to it
    from .pipeline_etegrec import SequentialRecommendationPipeline  # noqa: F401


# Tables that stood on the model itself until they got a home of their own
EARLIER_NAMES = {
    name: f"catalogue.{name}"
    for name in ("item_tokens", "is_removed", "semantic_embedding", "transitions.items", "transitions.weights")
}

# What transformers records of a stack's layers, and its names in the output
ENCODER_RECORDS = {"hidden_states": "encoder_hidden_states", "attentions": "encoder_attentions"}
DECODER_RECORDS = {
    "hidden_states": "decoder_hidden_states",
    "attentions": "decoder_attentions",
    "cross_attentions": "cross_attentions",
}


@dataclass
class ETEGRecOutput(ModelOutput):
    """Output of [`ETEGRecForConditionalGeneration`].

    Args:
        loss (`torch.FloatTensor` of shape `()`): code loss, in nats per code, given `labels` or `sequence_labels`.
        item_loss (`torch.FloatTensor` of shape `()`): cross-entropy of the item logits alone over all items, without
            what those of the history gain, in nats per code of an item; given `sequence_labels`, or `labels`, and item
            logits.
        logits (`torch.FloatTensor`): given `labels` `(batch, code_length, codebook_size)`, each position scored
            against its own level's codes; given `candidates` or `sequence_labels`
            `(batch, candidates or targets, code_length, codebook_size)`; else `(batch, decoded, vocab_size)`, as
            `generate` reads them.
        sequence_latents (`torch.FloatTensor` of shape `(batch, d_model)`): mean of the unpadded encoder states.
        sequence_projection (`torch.FloatTensor` of shape `(batch, latent_size)`): the same in the RQ-VAE's latent
            space; given an item tokenizer.
        preference_latents (`torch.FloatTensor` of shape `(batch, input_size)`): the decoder's first state in the space
            of semantic embeddings; given an item tokenizer. Given `history_lengths`, these three latents are
            `(batch, targets, ...)`.
        past_key_values (`EncoderDecoderCache`): the decoder's cache, when it was asked for.
        encoder_last_hidden_state (`torch.FloatTensor` of shape `(batch, positions, d_model)`): encoder states, of a
            token or of an item each.
        encoder_hidden_states, decoder_hidden_states (`tuple[torch.FloatTensor]`): what each stack reads and what each
            of its layers makes of it, as of T5; given `output_hidden_states`. Targets of a sequence are one row.
        encoder_attentions, decoder_attentions, cross_attentions (`tuple[torch.FloatTensor]`): attention weights of
            each layer, as of T5; given `output_attentions`.
    """

    loss: torch.FloatTensor | None = None
    item_loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    sequence_latents: torch.FloatTensor | None = None
    sequence_projection: torch.FloatTensor | None = None
    preference_latents: torch.FloatTensor | None = None
    past_key_values: object | None = None
    encoder_last_hidden_state: torch.FloatTensor | None = None
    encoder_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    encoder_attentions: tuple[torch.FloatTensor, ...] | None = None
    decoder_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    decoder_attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None


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
        self.item_logits = ItemLogits(config) if config.item_logits == "exact" else None
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
        elif isinstance(module, ItemCatalogue):
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
            output = self._score_sequences(encoded, history_lengths, sequence_labels, recorded)
        elif candidates is not None:
            if any(recorded.values()):
                raise ValueError(
                    "`candidates` are decoded without attentions and hidden states to return; give one target per "
                    "history as `labels`, or leave out `output_attentions` and `output_hidden_states`."
                )
            output = self._score_candidates(encoded, candidates)
        elif labels is not None:
            output = self._score_targets(encoded, labels, recorded)
        else:
            use_cache = self.config.use_cache and not self.training if use_cache is None else use_cache
            options = {"past_key_values": past_key_values, "use_cache": use_cache, **recorded}
            options |= {"attention_mask": decoder_attention_mask}
            output = self._score_next_codes(encoded, decoder_input_ids, options)
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
        return encoded, _records(encoder_outputs, ENCODER_RECORDS)

    # Scoring codes

    def _score_targets(
        self, encoded: EncodedBatch, labels: torch.LongTensor, recorded: dict[str, bool]
    ) -> ETEGRecOutput:
        """Scores a target per history: `labels` `[B, L]`."""
        self._check_labels("labels", labels, (len(encoded.states), self.config.code_length))
        start = torch.full_like(labels[:, :1], self.config.decoder_start_token_id)
        decoded = self.decoder(
            input_ids=torch.cat([start, labels[:, :-1]], dim=1),
            last_states=encoded.last_states(),
            encoder_hidden_states=encoded.states,
            encoder_attention_mask=self.decoder.cross_bias(encoded),
            use_cache=False,
            **recorded,
        )
        states = decoded.last_hidden_state  # [B, L, d]
        logits, rows = self._logits_by_level(states).unsqueeze(1), labels.unsqueeze(1)
        terms = terms_of(self, encoded, self._dropout)
        item_loss, logits = self._item_loss(rows, terms), self._along(logits, rows, terms).squeeze(1)  # [B, L, K]
        others = self._other_outputs(encoded, encoded.mean_states(), states[:, 0]) | _records(decoded, DECODER_RECORDS)
        return ETEGRecOutput(loss=self._code_loss(logits, labels), item_loss=item_loss, logits=logits, **others)

    def _score_candidates(self, encoded: EncodedBatch, candidates: torch.LongTensor) -> ETEGRecOutput:
        """Scores several items per history: `candidates` `[B, C, L]`."""
        self._check_labels("candidates", candidates, (len(encoded.states), None, self.config.code_length))
        decoder = BeamDecoder(self, encoded)
        logits = candidate_logits(decoder, candidates)
        logits = self._along(logits, candidates, terms_of(self, encoded))  # [B, C, L, K]
        others = self._other_outputs(encoded, encoded.mean_states(), decoder.start_states[:, 0])
        return ETEGRecOutput(loss=self._code_loss(logits, candidates), logits=logits, **others)

    def _score_sequences(
        self,
        encoded: EncodedBatch,
        history_lengths: torch.LongTensor | None,
        sequence_labels: torch.LongTensor | None,
        recorded: dict[str, bool],
    ) -> ETEGRecOutput:
        """Scores many targets per sequence, each after `history_lengths` `[B, T]` of its items."""
        if history_lengths is None:
            raise ValueError("`sequence_labels` are given without `history_lengths`; say what each one comes after.")
        if self.config.encoder_attention != "causal":
            raise ValueError(
                f"`history_lengths` are given and `encoder_attention` is {self.config.encoder_attention!r}, in which "
                "every item sees all of the sequence, the targets too; build the model with 'causal'."
            )
        if sequence_labels is not None:
            self._check_labels("sequence_labels", sequence_labels, (*history_lengths.shape, self.config.code_length))
        start = history_lengths.new_full((*history_lengths.shape, 1), self.config.decoder_start_token_id)
        codes = start[..., :0] if sequence_labels is None else sequence_labels[..., :-1]
        decoded = self._decode_blocks(encoded, torch.cat([start, codes], dim=2), history_lengths, recorded)
        states = decoded.last_hidden_state.unflatten(
            1, (history_lengths.shape[1], 1 + codes.shape[2])
        )  # [B, T, 1 or L, d]
        sequence_latents = encoded.mean_states_before(history_lengths * self.config.code_length)
        others = self._other_outputs(encoded, sequence_latents, states[:, :, 0]) | _records(decoded, DECODER_RECORDS)
        if sequence_labels is None:
            return ETEGRecOutput(**others)
        logits = self._logits_by_level(states)  # [B, T, L, K]
        rows, terms = (
            sequence_labels.flatten(0, 1).unsqueeze(1),
            terms_before(self, encoded, history_lengths, self._dropout),
        )
        item_loss = self._item_loss(rows, terms)  # rows are [B * T, 1, L]
        logits = self._along(logits.flatten(0, 1).unsqueeze(1), rows, terms).view_as(logits)
        loss = self._code_loss(logits, sequence_labels)
        return ETEGRecOutput(loss=loss, item_loss=item_loss, logits=logits, **others)

    def _score_next_codes(
        self, encoded: EncodedBatch, decoder_input_ids: torch.LongTensor | None, options: dict
    ) -> ETEGRecOutput:
        """Scores the code after each of `decoder_input_ids` `[B, decoded]`, as `generate` asks; `options` are T5's."""
        if decoder_input_ids is None:
            start, device = self.config.decoder_start_token_id, encoded.states.device
            decoder_input_ids = torch.full((len(encoded.states), 1), start, device=device)
        decoded = self.decoder(
            input_ids=decoder_input_ids,
            last_states=encoded.last_states(),
            encoder_hidden_states=encoded.states,
            encoder_attention_mask=self.decoder.cross_bias(encoded),
            **options,
        )
        states = decoded.last_hidden_state
        return ETEGRecOutput(
            logits=self._products(states, slice(0, self.config.vocab_size)),  # [B, decoded, vocab_size]
            past_key_values=decoded.past_key_values,
            **self._other_outputs(encoded, encoded.mean_states(), states[:, 0]),
            **_records(decoded, DECODER_RECORDS),
        )

    @property
    def _dropout(self) -> float:
        """Dropout of what is read beside the encoder; none where targets are scored as they are decoded."""
        return self.config.dropout_rate if self.training else 0.0

    def _check_labels(self, name: str, labels: torch.LongTensor, expected: tuple[int | None, ...]) -> None:
        """Raises a `ValueError` for token ids of another shape; None is any size."""
        sizes = zip(labels.shape, expected)
        if labels.ndim != len(expected) or any(size != wanted for size, wanted in sizes if wanted is not None):
            shape = ", ".join("n" if wanted is None else str(wanted) for wanted in expected)
            raise ValueError(
                f"`{name}` has shape {tuple(labels.shape)}; expected ({shape}). Give one target per history "
                "as `labels`, several as `candidates`, and those of whole sequences as `sequence_labels`."
            )

    def _decode_blocks(
        self,
        encoded: EncodedBatch,
        decoder_input_ids: torch.LongTensor,
        history_lengths: torch.LongTensor,
        recorded: dict[str, bool],
    ) -> ModelOutput:
        """The decoder's output, whose states are `[B, targets * block, d]` of all targets of each sequence.

        All targets of a sequence are one row of the decoder, in blocks that don't see each other.
        """
        block = decoder_input_ids.shape[2]
        own = torch.ones(block, block, dtype=torch.bool, device=history_lengths.device).tril()
        last_states = encoded.last_states_before(history_lengths * self.config.code_length)
        cross_bias = self.decoder.cross_bias_before(encoded, history_lengths)  # [B, heads, targets, positions]
        return self.decoder(
            input_ids=decoder_input_ids.flatten(1),
            last_states=last_states.repeat_interleave(block, dim=1),
            attention_mask=additive(own, encoded.states.dtype)[None, None],
            encoder_hidden_states=encoded.states,
            encoder_attention_mask=cross_bias.repeat_interleave(block, dim=2),
            use_cache=False,
            **recorded,
        )

    def _other_outputs(
        self, encoded: EncodedBatch, sequence_latents: torch.Tensor, start_states: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Encoder states, and latents `[B, ...]` or `[B, targets, ...]`, by their names in the output."""
        outputs = {"sequence_latents": sequence_latents, "encoder_last_hidden_state": encoded.states}
        if self.config.has_item_tokenizer:
            outputs["sequence_projection"] = self.sequence_adapter(sequence_latents)
            outputs["preference_latents"] = self.preference_adapter(start_states)
        return outputs

    # Logits and loss

    def level_logits(self, decoder_states: torch.Tensor, level: int) -> torch.Tensor:
        """Returns logits `[..., codebook_size]` of one level's codes, of decoder states `[..., d_model]`."""
        return self._products(decoder_states, self.config.layout.of_level(level))

    def _along(self, logits: torch.Tensor, labels: torch.LongTensor, terms: list[NodeTerm]) -> torch.Tensor:
        """Logits `[rows, n, L, K]` along the paths of `labels` `[rows, n, L]`, with the terms of the rows.

        Where all codes of a level share the probability, they stay as they are, and no trie is needed.
        """
        if not self.config.constrained_softmax:
            return logits
        trie = self.catalogue.trie
        return CodeDistribution(trie, trie, terms).along(logits, self.config.layout.codes(labels))

    def _code_loss(self, logits: torch.Tensor, labels: torch.LongTensor) -> torch.Tensor:
        """Mean cross-entropy of codes, in nats, of logits `[..., L, K]` and token ids `[..., L]`; not of padding."""
        codes = self.config.layout.codes(labels).masked_fill(labels == self.config.pad_token_id, -100)
        return F.cross_entropy(logits.flatten(0, -2).float(), codes.flatten())

    def _item_loss(self, labels: torch.LongTensor, terms: list[NodeTerm]) -> torch.Tensor | None:
        """Mean cross-entropy of the items `labels` `[rows, n, L]` in the item logits, over L; not of padding."""
        for term in terms:
            if isinstance(term, ItemEvidence):
                leaves = self.catalogue.trie.walk(self.config.layout.codes(labels))
                log_p, is_item = term.log_p(leaves), leaves >= 0
                return -(log_p * is_item).sum() / (is_item.sum().clamp(min=1) * self.config.code_length)
        return None

    def _logits_by_level(self, decoder_states: torch.Tensor) -> torch.Tensor:
        """Decoder states `[..., L, d]`, each against the K codes of its level: `[..., L, K]`."""
        levels = range(self.config.code_length)
        return torch.stack([self.level_logits(decoder_states[..., level, :], level) for level in levels], dim=-2)

    def _products(self, decoder_states: torch.Tensor, tokens: slice) -> torch.Tensor:
        """Decoder states `[..., d_model]` times the embeddings of a part of the vocabulary: `[..., tokens]`."""
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


def _records(outputs: ModelOutput | tuple, names: dict[str, str]) -> dict[str, tuple]:
    """What was recorded of a stack's layers, by its names in the output."""
    return {
        ours: outputs[name] for name, ours in names.items() if isinstance(outputs, ModelOutput) and name in outputs
    }


def _check_one(arguments: dict[str, object]) -> None:
    """Raises a `ValueError` if more than one of these was given."""
    given = [name for name, value in arguments.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(f'`{name}`' for name in given)} are given; each asks for another result.")


ETEGRecForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")
