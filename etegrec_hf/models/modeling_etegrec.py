"""The recommender: reads the codes of a history and generates the codes of the next item."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.t5.modeling_t5 import T5Stack
from transformers.utils import ModelOutput

from .configuration_etegrec import ETEGRecConfig
from .decoding_etegrec import CodeDecodingMixin
from .model_card_etegrec import ModelCardMixin
from .modeling_rqvae import RQVAEModel

if TYPE_CHECKING:  # never run: saving a model copies the files that it imports, and the pipeline belongs to it
    from .pipeline_etegrec import SequentialRecommendationPipeline  # noqa: F401


@dataclass
class ETEGRecOutput(ModelOutput):
    """Output of [`ETEGRecForConditionalGeneration`].

    Args:
        loss (`torch.FloatTensor` of shape `()`): code loss, in nats a code, given labels.
        logits (`torch.FloatTensor`): given labels `(batch, code_length, codebook_size)`, each position scored against
            its own level's codes; else `(batch, decoded, vocab_size)`, as `generate` reads them.
        sequence_latents (`torch.FloatTensor` of shape `(batch, d_model)`): mean of the unpadded encoder states.
        sequence_projection (`torch.FloatTensor` of shape `(batch, latent_size)`): the same in the RQ-VAE's latent
            space; given an item tokenizer.
        preference_latents (`torch.FloatTensor` of shape `(batch, input_size)`): the decoder's first state in the space
            of semantic embeddings; given an item tokenizer.
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
        self.encoder = T5Stack(config.stack_config(is_decoder=False))
        self.decoder = T5Stack(config.stack_config(is_decoder=True))
        self.encoder.set_input_embeddings(self.shared)
        self.decoder.set_input_embeddings(self.shared)
        self.item_tokenizer = None
        if config.has_item_tokenizer:
            self.item_tokenizer = RQVAEModel(config.rqvae_config)
            self.sequence_adapter = nn.Linear(config.d_model, config.rqvae_config.latent_size)
            self.preference_adapter = nn.Linear(config.d_model, config.rqvae_config.input_size)
        for module in self.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = True  # its input is a linear layer's output, which nobody else needs
        self.register_buffer("item_tokens", torch.zeros(config.n_items + 1, config.code_length, dtype=torch.long))
        self.register_buffer("is_removed", torch.zeros(config.n_items + 1, dtype=torch.bool))
        semantic_embedding = torch.zeros(config.n_items + 1, config.rqvae_config.input_size)
        self.register_buffer("semantic_embedding", semantic_embedding if config.has_semantic_embedding else None)
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
            if module.semantic_embedding is not None:
                init.zeros_(module.semantic_embedding)
        elif isinstance(module, nn.Linear):
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
            labels (`torch.LongTensor` of shape `(batch, code_length)`, *optional*): token ids of the targets.
            decoder_input_ids (`torch.LongTensor` of shape `(batch, decoded)`, *optional*): instead of labels, the
                decoder start and the codes so far. By default just the start: enough for both adapters.
            encoder_outputs (*optional*): encoder states to use instead of encoding `input_ids`.
            past_key_values (`EncoderDecoderCache`, *optional*): the decoder's cache.
            use_cache (`bool`, *optional*): whether to return the cache; as the configuration says without labels.
            return_dict (`bool`, *optional*): whether to return an [`ETEGRecOutput`] instead of a tuple.
        """
        if attention_mask is None and input_ids is not None:
            attention_mask = (input_ids != self.config.pad_token_id).long()
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        encoder_states = encoder_outputs[0]  # [B, T*L, d]
        if attention_mask is None:
            attention_mask = torch.ones(encoder_states.shape[:2], dtype=torch.long, device=encoder_states.device)

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

        loss = None
        if labels is None:
            logits = self._scaled(decoder_states) @ self.shared.weight.T  # [B, decoded, vocab_size]
        else:
            levels = range(self.config.code_length)
            logits = torch.stack([self._level_logits(decoder_states[:, level], level) for level in levels], dim=1)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), (labels - self._level_offsets()).flatten())

        mask = attention_mask.unsqueeze(-1).to(encoder_states.dtype)
        sequence_latents = (encoder_states * mask).sum(1) / mask.sum(1).clamp(min=1)  # [B, d]
        output = ETEGRecOutput(
            loss=loss,
            logits=logits,
            sequence_latents=sequence_latents,
            past_key_values=decoder_outputs.past_key_values,
            encoder_last_hidden_state=encoder_states,
        )
        if self.config.has_item_tokenizer:
            output.sequence_projection = self.sequence_adapter(sequence_latents)
            output.preference_latents = self.preference_adapter(decoder_states[:, 0])
        return output if return_dict is not False else output.to_tuple()

    def _scaled(self, decoder_states: torch.Tensor) -> torch.Tensor:
        return decoder_states * self.config.d_model**-0.5 if self.config.scale_logits else decoder_states

    def _level_logits(self, decoder_states: torch.Tensor, level: int) -> torch.Tensor:
        """Decoder states `[..., d_model]` against one level's K codes: `[..., codebook_size]`."""
        start = 1 + level * self.config.codebook_size
        return self._scaled(decoder_states) @ self.shared.weight[start : start + self.config.codebook_size].T


ETEGRecForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")
