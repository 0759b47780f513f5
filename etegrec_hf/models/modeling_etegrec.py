"""The recommender: reads the codes of a history and generates the codes of the next item."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from .beam_search import BeamDecoder, candidate_states
from .configuration_etegrec import ETEGRecConfig
from .decoding import CodeDecodingMixin
from .history_encoder import HistoryEncoder, additive
from .item_inputs import ItemInputs
from .item_transitions import ItemTransitions
from .model_card import ModelCardMixin
from .modeling_rqvae import RQVAEModel
from .repeat_bias import RepeatBias
from .target_decoder import TargetDecoder

if TYPE_CHECKING:  # never run: saving a model copies the files that it imports, and the pipeline belongs to it
    from .pipeline_etegrec import SequentialRecommendationPipeline  # noqa: F401


@dataclass
class ETEGRecOutput(ModelOutput):
    """Output of [`ETEGRecForConditionalGeneration`].

    Args:
        loss (`torch.FloatTensor` of shape `()`): code loss, in nats a code, given labels.
        logits (`torch.FloatTensor`): given labels `(batch, code_length, codebook_size)`, each position scored against
            its own level's codes, or `(batch, candidates, code_length, codebook_size)`; else
            `(batch, decoded, vocab_size)`, as `generate` reads them.
        sequence_latents (`torch.FloatTensor` of shape `(batch, d_model)`): mean of the unpadded encoder states.
        sequence_projection (`torch.FloatTensor` of shape `(batch, latent_size)`): the same in the RQ-VAE's latent
            space; given an item tokenizer.
        preference_latents (`torch.FloatTensor` of shape `(batch, input_size)`): the decoder's first state in the space
            of semantic embeddings; given an item tokenizer. Given `history_lengths`, these three are
            `(batch, targets, ...)`.
        past_key_values (`EncoderDecoderCache`): the decoder's cache, when it was asked for.
        encoder_last_hidden_state (`torch.FloatTensor` of shape `(batch, tokens, d_model)`): encoder states.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    sequence_latents: torch.FloatTensor | None = None
    sequence_projection: torch.FloatTensor | None = None
    preference_latents: torch.FloatTensor | None = None
    past_key_values: object | None = None
    encoder_last_hidden_state: torch.FloatTensor | None = None


class ETEGRecForConditionalGeneration(CodeDecodingMixin, ModelCardMixin, PreTrainedModel, GenerationMixin):
    """T5 over item codes with a learnable item tokenizer.

    Give it its catalogue before use: [`~ETEGRecForConditionalGeneration.set_item_codes`] and, for training,
    [`~ETEGRecForConditionalGeneration.set_semantic_embedding`]. Both are saved with the weights.

    Source: ETEGRec (doi 10.1145/3726302.3729989), section 3; seed sections 2 and 4.3. One flat vocabulary takes the
    place of the seed's table a level, and `sequence_latents` leave padding out.
    """

    config_class = ETEGRecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    accepts_loss_kwargs = False  # the loss is a mean: Trainer divides it by the accumulation steps
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["T5Block"]
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
        self.item_tokenizer = None
        if config.has_item_tokenizer:
            self.item_tokenizer = RQVAEModel(config.rqvae_config)
            self.sequence_adapter = nn.Linear(config.d_model, config.rqvae_config.latent_size)
            self.preference_adapter = nn.Linear(config.d_model, config.rqvae_config.input_size)
        self.item_inputs = ItemInputs(config) if config.reads_items else None
        self.repeat_bias = nn.Parameter(torch.zeros(config.code_length)) if config.has_repeat_bias else None
        self.transitions = ItemTransitions(config) if config.num_transitions else None
        for module in self.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = True  # its input is a linear layer's output, which nobody else needs
        self.register_buffer("item_tokens", torch.zeros(config.n_items + 1, config.code_length, dtype=torch.long))
        self.register_buffer("is_removed", torch.zeros(config.n_items + 1, dtype=torch.bool))
        semantic_embedding = None  # of a large catalogue, not even made where it isn't kept
        if config.has_semantic_embedding:
            semantic_embedding = torch.zeros(config.n_items + 1, config.rqvae_config.input_size)
        self.register_buffer("semantic_embedding", semantic_embedding)
        # Set anew for every model: loading through one auto class drops the other, and a Hub id stays in the names
        auto_classes = ("AutoModel", "AutoModelForSeq2SeqLM")
        config.auto_map = dict.fromkeys(auto_classes, "modeling_etegrec.ETEGRecForConditionalGeneration")
        pipeline = {"impl": "pipeline_etegrec.SequentialRecommendationPipeline", "pt": ["AutoModel"], "type": "text"}
        config.custom_pipelines = {"sequential-recommendation": pipeline}
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, ETEGRecForConditionalGeneration):
            init.normal_(module.shared.weight, std=self.config.initializer_factor)
            init.zeros_(module.item_tokens)
            init.zeros_(module.is_removed)
            if module.repeat_bias is not None:
                init.zeros_(module.repeat_bias)
            if module.semantic_embedding is not None:
                init.zeros_(module.semantic_embedding)
        elif isinstance(module, ItemTransitions):
            init.zeros_(module.items)
            init.zeros_(module.weights)
        elif isinstance(module, ItemInputs):
            module.init_weights(self.config.initializer_factor)
        elif isinstance(module, nn.Linear) and (self.item_inputs is None or module is not self.item_inputs.projection):
            init.xavier_normal_(module.weight)
            init.zeros_(module.bias)

    def get_input_embeddings(self):
        return self.shared

    def set_input_embeddings(self, value):
        self.shared = value
        self.encoder.set_input_embeddings(value)
        self.decoder.set_input_embeddings(value)

    def get_encoder(self):
        return self.encoder

    def get_decoder(self):
        return self.decoder

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        history_lengths: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values=None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> ETEGRecOutput | tuple:
        """Scores the codes of targets, or the next code.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, items * code_length)`): token ids of histories.
            attention_mask (`torch.LongTensor` of the same shape, *optional*): 0 on padding, left or right; by default
                on pad tokens.
            labels (`torch.LongTensor` of shape `(batch, code_length)`, *optional*): token ids of the targets. Or
                `(batch, candidates, code_length)`: several for each history, which share its encoder states and
                cross-attention keys; they are decoded without dropout, in training too. Targets of padding don't
                count.
            history_lengths (`torch.LongTensor` of shape `(batch, targets)`, *optional*): how many items of the history
                each target comes after, for a causal encoder, whose one pass serves all targets. `labels` are then
                `(batch, targets, code_length)`, or left out where only the latents are wanted. Histories are padded
                right.
            decoder_input_ids (`torch.LongTensor` of shape `(batch, decoded)`, *optional*): instead of labels, the
                decoder start and the codes so far. By default just the start: enough for both adapters.
            encoder_outputs (*optional*): encoder states to use instead of encoding `input_ids`.
            past_key_values (`EncoderDecoderCache`, *optional*): the decoder's cache.
            use_cache (`bool`, *optional*): whether to return the cache; as the configuration says without labels.
            return_dict (`bool`, *optional*): whether to return an [`ETEGRecOutput`] instead of a tuple.
        """
        if attention_mask is None and input_ids is not None:
            attention_mask = (input_ids != self.config.pad_token_id).long()
        elif input_ids is not None and encoder_outputs is None:  # what is masked wasn't had either
            input_ids = input_ids.masked_fill(attention_mask == 0, self.config.pad_token_id)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, item_vectors=self.item_vectors(input_ids)
            )
        encoder_states = encoder_outputs[0]  # [B, T*L, d]
        if attention_mask is None:
            attention_mask = torch.ones(encoder_states.shape[:2], dtype=torch.long, device=encoder_states.device)

        loss: torch.Tensor | None = None
        logits: torch.Tensor | None = None
        if history_lengths is not None:
            decoder_states = self._decode_targets(encoder_states, attention_mask, labels, history_lengths)
            past_key_values = None
            if labels is not None:
                logits = self._logits_by_level(decoder_states)  # [B, targets, L, K]
        elif labels is not None and labels.ndim == 3:
            by_level = candidate_states(BeamDecoder(self.decoder, encoder_states, attention_mask), labels)
            logits = torch.stack(
                [
                    self._level_logits(states, level).expand(-1, labels.shape[1], -1)
                    for level, states in enumerate(by_level)
                ],
                dim=2,
            )  # [B, candidates, L, K]
            decoder_states, past_key_values = by_level[0], None  # [B, 1, d]
        else:
            if decoder_input_ids is None:
                decoder_input_ids = torch.full(
                    (len(encoder_states), 1), self.config.decoder_start_token_id, device=encoder_states.device
                )
                if labels is not None:
                    decoder_input_ids = torch.cat([decoder_input_ids, labels[:, :-1]], dim=1)  # [B, L]
            if use_cache is None:
                use_cache = self.config.use_cache and labels is None and not self.training
            decoder_outputs = self.decoder(
                input_ids=decoder_input_ids,
                encoder_hidden_states=encoder_states,
                encoder_attention_mask=attention_mask,
                past_key_values=past_key_values,
                use_cache=use_cache,
            )
            decoder_states = decoder_outputs.last_hidden_state  # [B, L or decoded, d]
            past_key_values = decoder_outputs.past_key_values
            if labels is None:
                logits = self._scaled(decoder_states) @ self.shared.weight.T  # [B, decoded, vocab_size]
            else:
                logits = self._logits_by_level(decoder_states)
        if labels is not None and logits is not None:
            if self.config.constrained_softmax:
                logits = self._of_items_only(logits, labels, self._repeats(input_ids, history_lengths))
            codes = (labels - self._level_offsets()).masked_fill(labels == self.config.pad_token_id, -100)
            loss = F.cross_entropy(logits.flatten(0, -2).float(), codes.flatten())

        mask = attention_mask.unsqueeze(-1).to(encoder_states.dtype)
        sums, counts = encoder_states * mask, mask
        if history_lengths is None:
            sums, counts = sums.sum(1), counts.sum(1)  # [B, d] and [B, 1]
        else:  # up to each target's last item
            last = (history_lengths * self.config.code_length - 1).clamp(min=0).unsqueeze(-1)  # [B, targets, 1]
            sums, counts = (part.cumsum(1).take_along_dim(last, dim=1) for part in (sums, counts))
        sequence_latents = sums / counts.clamp(min=1)  # [B, d] or [B, targets, d]
        output = ETEGRecOutput(
            loss=loss,
            logits=logits,
            sequence_latents=sequence_latents,
            past_key_values=past_key_values,
            encoder_last_hidden_state=encoder_states,
        )
        if self.config.has_item_tokenizer:
            output.sequence_projection = self.sequence_adapter(sequence_latents)
            output.preference_latents = self.preference_adapter(decoder_states[..., 0, :])
        return output if return_dict is not False else output.to_tuple()

    def _decode_targets(
        self,
        encoder_states: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.LongTensor | None,
        history_lengths: torch.LongTensor,
    ) -> torch.Tensor:
        """Decoder states `[B, targets, L, d]` of all targets of each sequence; without labels, `[B, targets, 1, d]`.

        All targets of a sequence are one row of the decoder, in blocks that don't see each other.
        """
        if self.config.encoder_attention != "causal":
            raise ValueError(
                f"`history_lengths` are given and `encoder_attention` is {self.config.encoder_attention!r}, in which "
                "every item sees all of the sequence, the targets too; build the model with 'causal'."
            )
        batch, targets = history_lengths.shape
        decoder_input_ids = history_lengths.new_full((batch, targets, 1), self.config.decoder_start_token_id)
        if labels is not None:
            decoder_input_ids = torch.cat([decoder_input_ids, labels[..., :-1]], dim=2)  # [B, targets, L]
        block = decoder_input_ids.shape[2]
        own = torch.ones(block, block, dtype=torch.bool, device=history_lengths.device).tril()
        item = torch.arange(encoder_states.shape[1], device=encoder_states.device) // self.config.code_length
        read = (item < history_lengths.unsqueeze(2)) & (attention_mask.unsqueeze(1) > 0)  # [B, targets, tokens]
        dtype = encoder_states.dtype
        states = self.decoder(
            input_ids=decoder_input_ids.flatten(1),
            attention_mask=additive(own, dtype)[None, None],
            encoder_hidden_states=encoder_states,
            encoder_attention_mask=additive(read.repeat_interleave(block, dim=1), dtype).unsqueeze(1),
            use_cache=False,
        ).last_hidden_state
        return states.unflatten(1, (targets, block))

    def _logits_by_level(self, decoder_states: torch.Tensor) -> torch.Tensor:
        """Decoder states `[..., L, d]`, each against the K codes of its level: `[..., L, K]`."""
        levels = range(self.config.code_length)
        return torch.stack([self._level_logits(decoder_states[..., level, :], level) for level in levels], dim=-2)

    def _repeats(
        self, input_ids: torch.LongTensor | None, history_lengths: torch.LongTensor | None
    ) -> RepeatBias | None:
        """The repeat bias of histories, or where those are several to a row, of what stands before each target."""
        if self.repeat_bias is None:
            return None
        if input_ids is None:
            raise ValueError(
                "`input_ids` is missing, by which a model with a repeat bias knows what a user had; give it beside "
                "`encoder_outputs`."
            )
        if history_lengths is None:
            return self.repeats_of(input_ids)
        leaves = self._leaves_of(input_ids)
        before = torch.arange(leaves.shape[1], device=leaves.device) < history_lengths.unsqueeze(2)
        of_targets = leaves.unsqueeze(1).masked_fill(~before, -1)  # [batch, targets, items]
        return RepeatBias(self.code_trie, of_targets.flatten(0, 1), self.repeat_bias)

    def _of_items_only(
        self, logits: torch.Tensor, labels: torch.LongTensor, repeats: RepeatBias | None
    ) -> torch.Tensor:
        """Logits `[..., L, K]` along the paths of `labels` `[..., L]`, the lowest where no item goes on.

        Items that can't be recommended (removed ones, padding) keep all of theirs.
        """
        trie, codes = self.code_trie, labels - self._level_offsets()
        rows = -1 if repeats is None else len(repeats.had.remaining)
        node = torch.zeros_like(codes[..., 0])
        levels = []
        for level, of_level in enumerate(logits.unbind(-2)):
            goes_on = trie.children(node, level)
            if repeats is not None:
                by_row = of_level.reshape(rows, -1, of_level.shape[-1])
                of_level = repeats.biased(by_row, node.reshape(rows, -1), level).view_as(of_level)
            levels.append((of_level, goes_on))
            node = trie.advance(node, codes[..., level])
        is_item = (node >= 0).unsqueeze(-1)
        lowest = torch.finfo(logits.dtype).min
        return torch.stack([of_level.masked_fill(is_item & ~goes_on, lowest) for of_level, goes_on in levels], dim=-2)

    def _scaled(self, decoder_states: torch.Tensor) -> torch.Tensor:
        return decoder_states * self.config.d_model**-0.5 if self.config.scale_logits else decoder_states

    def _level_logits(self, decoder_states: torch.Tensor, level: int) -> torch.Tensor:
        """Decoder states `[..., d_model]` against one level's K codes: `[..., codebook_size]`."""
        start = 1 + level * self.config.codebook_size
        return self._scaled(decoder_states) @ self.shared.weight[start : start + self.config.codebook_size].T


ETEGRecForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")
