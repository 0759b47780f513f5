"""Configuration of the recommender."""

import math
from typing import Any

from transformers import PreTrainedConfig

from .configuration_rqvae import RQVAEConfig, check_class
from .search_options import SearchSettings
from .token_layout import TokenLayout

POSITIVE = (
    "n_items",
    "codebook_size",
    "d_model",
    "d_ff",
    "d_kv",
    "num_layers",
    "num_decoder_layers",
    "num_heads",
    "max_history",
    "item_ensemble",
)
ENCODER_ATTENTION = ("bidirectional", "causal")
ENCODER_INPUT = ("codes", "items")
ITEM_LOGITS = ("none", "exact", "detached")
CHOICES = {"encoder_attention": ENCODER_ATTENTION, "encoder_input": ENCODER_INPUT, "item_logits": ITEM_LOGITS}
DROPOUTS = ("dropout_rate", "decoder_dropout_rate", "attention_dropout_rate")


class CustomPipelines(dict):
    """A model folder's pipelines by task, which hides the tasks that transformers already has a class for.

    So `pipeline(task, model=folder)` uses the class of the installed package instead of code from the folder.
    `pipeline(model=folder)` without a task still takes the first task in this dictionary.
    """

    def __contains__(self, task) -> bool:
        from transformers.pipelines import PIPELINE_REGISTRY  # whose module imports models

        return super().__contains__(task) and task not in PIPELINE_REGISTRY.supported_tasks


class ETEGRecConfig(PreTrainedConfig):
    """Sizes and options of an [`ETEGRecForConditionalGeneration`].

    The defaults are those of the paper's model. `etegrec train` builds another one, see [`RecommenderOptions`].

    Args:
        n_items (`int`, *optional*, defaults to 1): items in the catalogue, without padding.
        code_length (`int`, *optional*, defaults to 4): L, codes per item: one per level of the RQ-VAE, and a last one,
            the suffix, which makes an item's codes unique.
        codebook_size (`int`, *optional*, defaults to 256): K, codes per level.
        d_model (`int`, *optional*, defaults to 128): width of encoder and decoder.
        d_ff (`int`, *optional*, defaults to 512): width of the feed-forward layers.
        d_kv (`int`, *optional*, defaults to 64): width of one attention head.
        num_layers (`int`, *optional*, defaults to 6): encoder layers.
        num_decoder_layers (`int`, *optional*, defaults to 6): decoder layers.
        num_heads (`int`, *optional*, defaults to 4): attention heads.
        dropout_rate (`float`, *optional*, defaults to 0.1): dropout of the T5 stacks.
        decoder_dropout_rate (`float`, *optional*): dropout of the decoder; by default `dropout_rate`. The decoder
            reads encoder states that dropout has already thinned out, so it often needs less.
        attention_dropout_rate (`float`, *optional*): dropout of the attention weights in both stacks; by default each
            stack's own rate.
        relative_attention_num_buckets (`int`, *optional*, defaults to 32): T5's position buckets.
        relative_attention_max_distance (`int`, *optional*, defaults to 128): T5's farthest bucket, in tokens.
        layer_norm_epsilon (`float`, *optional*, defaults to 1e-6): epsilon of the layer norms.
        initializer_factor (`float`, *optional*, defaults to 1.0): scale of T5's initialisation.
        feed_forward_proj (`str`, *optional*, defaults to `"relu"`): T5's feed-forward kind.
        scale_logits (`bool`, *optional*, defaults to `True`): whether decoder states are multiplied by
            `d_model ** -0.5` before they are scored, as in T5. Checkpoints converted from the authors' code need
            `False`.
        constrained_softmax (`bool`, *optional*, defaults to `False`): whether only codes that continue an item of the
            catalogue share the probability, instead of all K codes of the level. It holds in training and in decoding.
            The probabilities of all items then sum to 1, and the model needn't learn which codes no item has.
        encoder_attention (`str`, *optional*, defaults to `"bidirectional"`): which items of a history an item sees in
            the encoder: all of them, or with `"causal"` only itself and earlier items. A causal encoder trains on all
            prefixes of a user's sequence in one pass, and extends an encoded history without reading it again.
        encoder_input (`str`, *optional*, defaults to `"codes"`): content of one position of the encoder: one code of
            an item, or with `"items"` a whole item, as the sum of its codes' embeddings. Histories then have
            `code_length` times fewer positions.
        recency_buckets (`int`, *optional*, defaults to 0): buckets of a bias of the decoder's cross-attention, which
            depends on how many items ago an item was taken, see [`RecencyBias`]. With 0 there is no such bias, and the
            decoder can't tell the last item from the first.
        starts_from_last_item (`bool`, *optional*, defaults to `False`): whether a projection of the encoder's state at
            the last item is added to every position of the decoder's input.
        has_repeat_bias (`bool`, *optional*, defaults to `False`): whether the model learns how likely users are to
            take items again, as one number per level, see [`RepeatBias`]. It needs `constrained_softmax`.
        reads_items (`bool`, *optional*, defaults to `False`): whether the encoder reads, besides an item's codes, a
            vector of the item's own and its semantic embedding, see [`ItemInputs`].
        item_gain (`float`, *optional*, defaults to 1.0): factor by which the stored vectors of items are multiplied
            where they are read. With 10, what is read starts at a tenth of the size of codes' vectors, and moves ten
            times as far per update.
        item_logits (`str`, *optional*, defaults to `"none"`): whether whole items are scored too, see [`ItemLogits`].
            With `"exact"` the log-sum-exp of the logits of all items that a code leads to is added to the code's
            logit. With `"detached"` the same is added, but items' own vectors and the item logits learn from
            `item_loss` alone: the code loss and the encoder read them without a gradient. The loss of `candidates`
            is an exception: reinforcement learning shapes all that an item is scored by. Both need
            `constrained_softmax` and `reads_items`.
        recent_items (`int`, *optional*, defaults to 0): number of the newest items whose vectors the item logits are
            computed from, instead of from the encoder's state at the last item. It needs `item_logits`.
        mixed_items (`int`, *optional*, defaults to 0): number of the newest items that have a distribution of their
            own over the items that follow them, which the item logits mix in. It needs `item_logits`.
        item_ensemble (`int`, *optional*, defaults to 1): number of vectors per item, each with item logits and a loss
            of its own; the mean of their distributions recommends. More than 1 needs `item_logits`.
        num_transitions (`int`, *optional*, defaults to 0): number of transitions kept per item: the items that most
            often came next to it in training. `recommend(transition_weight=)` uses them, see [`ItemTransitions`]; 0
            keeps none.
        learns_transitions (`bool`, *optional*, defaults to `False`): whether the model learns one number per kept
            transition, which is added to the logits of items that came next to recent items, see [`PairGains`]. It
            needs `num_transitions` and `recent_items`.
        max_history (`int`, *optional*, defaults to 50): number of a history's last items that are read.
        has_semantic_embedding (`bool`, *optional*, defaults to `True`): whether the checkpoint holds the items'
            semantic embeddings, which training needs and recommending doesn't.
        has_item_tokenizer (`bool`, *optional*, defaults to `True`): whether the model holds the RQ-VAE that its codes
            come from, and the adapters that align with it. A model without it has codes that were made elsewhere and
            never change.
        search_settings (`dict`, *optional*): the model's own `num_beams`, `exclude_history`, `rerank_weight` and
            `transition_weight`, which a search follows unless a call says otherwise, see [`SearchSettings`]. Names
            left out keep their defaults. `etegrec evaluate --choose-weights` chooses and saves these settings.
        rqvae_config (`RQVAEConfig` or `dict`, *optional*): the item tokenizer's sizes; by default those that follow
            from `code_length` and `codebook_size`.

    Raises:
        ValueError: `code_length` is below 2.
        ValueError: `num_transitions` is below 0, or another size below 1.
        ValueError: `recency_buckets` is 1 or below 0, or `item_gain` isn't a positive number.
        ValueError: `encoder_attention`, `encoder_input` or `item_logits` has an unknown value.
        ValueError: `reads_items` without semantic embeddings.
        ValueError: `has_repeat_bias` without `constrained_softmax`.
        ValueError: `item_logits` without `constrained_softmax` and `reads_items`.
        ValueError: `recent_items`, `mixed_items` or several vectors per item without `item_logits`.
        ValueError: `learns_transitions` without `num_transitions` and `recent_items`.
        ValueError: a dropout rate below 0, or of 1 or more.
        ValueError: a `pad_token_id` or `decoder_start_token_id` other than 0.
        ValueError: `search_settings` that [`SearchSettings`] refuses, or that need a part which the model lacks.
        ValueError: an RQ-VAE whose levels or codebooks don't fit, or of a subclass.

    Source: specification, sections 2.1 and 6.
    """

    model_type = "etegrec"
    sub_configs = {"rqvae_config": RQVAEConfig}
    tie_word_embeddings = True  # both stacks read one embedding; always, so that no field says it
    attribute_map = {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    }

    n_items: int = 1
    code_length: int = 4
    codebook_size: int = 256
    d_model: int = 128
    d_ff: int = 512
    d_kv: int = 64
    num_layers: int = 6
    num_decoder_layers: int = 6
    num_heads: int = 4
    dropout_rate: float | int = 0.1
    decoder_dropout_rate: float | int | None = None
    attention_dropout_rate: float | int | None = None
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"
    scale_logits: bool = True
    constrained_softmax: bool = False
    has_repeat_bias: bool = False
    encoder_attention: str = "bidirectional"
    encoder_input: str = "codes"
    recency_buckets: int = 0
    starts_from_last_item: bool = False
    reads_items: bool = False
    item_gain: float | int = 1.0
    item_logits: str = "none"
    recent_items: int = 0
    mixed_items: int = 0
    item_ensemble: int = 1
    num_transitions: int = 0
    learns_transitions: bool = False
    max_history: int = 50
    has_semantic_embedding: bool = True
    has_item_tokenizer: bool = True
    search_settings: dict[str, Any] | None = None
    rqvae_config: Any = None
    is_encoder_decoder: bool = True
    use_cache: bool = True
    pad_token_id: int | None = 0
    eos_token_id: int | None = None
    decoder_start_token_id: int | None = 0

    def __post_init__(self, **kwargs):
        if self.code_length < 2:
            raise ValueError(
                f"`code_length` is {self.code_length}; an item needs at least 2 codes: one from the RQ-VAE "
                "and the suffix."
            )
        for name in POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be at least 1.")
        if self.num_transitions < 0:
            raise ValueError(
                f"`num_transitions` is {self.num_transitions}; give 0 for none, or how many to keep per item."
            )
        if self.recency_buckets < 0 or self.recency_buckets == 1:
            raise ValueError(f"`recency_buckets` is {self.recency_buckets}; give 0 for no bias, or 2 or more buckets.")
        if not 0 < self.item_gain < math.inf:
            raise ValueError(f"`item_gain` is {self.item_gain}; give a positive number.")
        for name in DROPOUTS:
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate < 1:
                raise ValueError(f"`{name}` is {rate}; give a share of at least 0 and below 1.")
        for name in ("pad_token_id", "decoder_start_token_id"):
            if getattr(self, name) != 0:
                raise ValueError(
                    f"`{name}` is {getattr(self, name)}, but token id 0 is padding and the decoder start of every "
                    "model; leave it out."
                )
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}; choose one of {', '.join(choices)}.")
        if self.item_logits != "none" and not (self.constrained_softmax and self.reads_items):
            lacking = "reads_items" if self.constrained_softmax else "constrained_softmax"
            raise ValueError(
                f"`item_logits` is {self.item_logits!r} and `{lacking}` is False. Item logits compare the catalogue's "
                f"items by the vectors that the encoder reads: set `{lacking}` to True, or `item_logits` to 'none'."
            )
        if self.has_repeat_bias and not self.constrained_softmax:
            raise ValueError(
                "`has_repeat_bias` is True and `constrained_softmax` is False. Whether a code leads to items of the "
                "history is only known for codes of the catalogue: set both to True, or both to False."
            )
        if self.reads_items and not self.has_semantic_embedding:
            raise ValueError(
                "`reads_items` is True and `has_semantic_embedding` is False, but the encoder would read semantic "
                "embeddings; set both to True, or `reads_items` to False."
            )
        for name in ("recent_items", "mixed_items"):
            number = getattr(self, name)
            if number < 0 or (number and self.item_logits == "none"):
                raise ValueError(
                    f"`{name}` is {number} and `item_logits` is {self.item_logits!r}; give 0, or a positive number "
                    "together with `item_logits` 'exact' or 'detached'."
                )
        if self.item_ensemble > 1 and self.item_logits == "none":
            raise ValueError(
                f"`item_ensemble` is {self.item_ensemble} and `item_logits` is 'none'; give 1, or `item_logits` "
                "'exact' or 'detached'."
            )
        for name in ("num_transitions", "recent_items"):
            if self.learns_transitions and not getattr(self, name):
                raise ValueError(
                    f"`learns_transitions` is True and `{name}` is 0, but a number is learned per pair of a recent "
                    f"item and an item that came next to it; raise `{name}`, or set `learns_transitions` to False."
                )
        self.search_settings = {} if self.search_settings is None else self.search_settings
        self._check_search(SearchSettings.of(self.search_settings))
        if self.rqvae_config is None:
            self.rqvae_config = RQVAEConfig(num_levels=self.code_length - 1, codebook_size=self.codebook_size)
        elif isinstance(self.rqvae_config, dict):
            check_class("rqvae_config", "RQVAEModel", self.rqvae_config.get("architectures") or ["RQVAEModel"])
            self.rqvae_config = RQVAEConfig(**self.rqvae_config)
        check_class("rqvae_config", "RQVAEConfig", [cls.__name__ for cls in type(self.rqvae_config).__mro__])
        for name, expected in (("num_levels", self.code_length - 1), ("codebook_size", self.codebook_size)):
            found = getattr(self.rqvae_config, name)
            if found != expected:
                raise ValueError(
                    f"`rqvae_config.{name}` is {found}, but `code_length` {self.code_length} and `codebook_size` "
                    f"{self.codebook_size} need {expected}; take both configurations from one item tokenizer."
                )
        if "custom_pipelines" in kwargs:
            kwargs["custom_pipelines"] = CustomPipelines(kwargs["custom_pipelines"])
        super().__post_init__(**kwargs)

    def _check_search(self, settings: SearchSettings) -> None:
        """Raises a `ValueError` for search weights that need parts which this model doesn't have."""
        if settings.transition_weight and not self.num_transitions:
            raise ValueError(
                f"`search_settings` has the `transition_weight` {settings.transition_weight}, but `num_transitions` "
                "is 0, so that no transitions are kept that could vote; raise `num_transitions`, or set the weight "
                "to 0."
            )
        if settings.rerank_weight and not (self.has_item_tokenizer and self.has_semantic_embedding):
            lacking = "has_semantic_embedding" if self.has_item_tokenizer else "has_item_tokenizer"
            raise ValueError(
                f"`search_settings` has the `rerank_weight` {settings.rerank_weight}, but `{lacking}` is False, so "
                f"that there is nothing to rank by; set `{lacking}` to True, or the weight to 0."
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as a dictionary, without traces of the training run.

        Left out are paths of the item tokenizer. `use_cache` is always True: Trainer turns it off while it trains, and
        generating without a cache would be slow.
        """
        saved = super().to_dict()
        sizes = ("model_type", *(name for name in RQVAEConfig.__annotations__ if name in saved["rqvae_config"]))
        saved["rqvae_config"] = {name: saved["rqvae_config"][name] for name in sizes}
        return saved | {"use_cache": True}

    @property
    def vocab_size(self) -> int:
        """Number of token ids: one for padding, and K for each of L levels."""
        return self.layout.vocab_size

    @property
    def layout(self) -> TokenLayout:
        """Layout of the vocabulary: the token ids of each level's codes."""
        return TokenLayout(self.code_length, self.codebook_size)

    @property
    def tokens_per_position(self) -> int:
        """Number of a history's token ids that make one position of the encoder."""
        return self.code_length if self.encoder_input == "items" else 1

    @property
    def positions_per_item(self) -> int:
        """Number of the encoder's positions that an item makes."""
        return self.code_length // self.tokens_per_position

    @property
    def max_tokens(self) -> int:
        """Number of a history's last token ids that are read."""
        return self.max_history * self.code_length

    def stack_config(self, is_decoder: bool) -> PreTrainedConfig:
        """Returns the configuration of the T5 encoder or decoder stack."""
        from transformers import T5Config  # imported late: its module imports AutoConfig, which needs this module

        rate = self.dropout_rate
        if is_decoder and self.decoder_dropout_rate is not None:
            rate = self.decoder_dropout_rate
        return T5Config(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            d_ff=self.d_ff,
            d_kv=self.d_kv,
            num_layers=self.num_decoder_layers if is_decoder else self.num_layers,
            num_heads=self.num_heads,
            dropout_rate=rate,
            relative_attention_num_buckets=self.relative_attention_num_buckets,
            relative_attention_max_distance=self.relative_attention_max_distance,
            layer_norm_epsilon=self.layer_norm_epsilon,
            initializer_factor=self.initializer_factor,
            feed_forward_proj=self.feed_forward_proj,
            is_decoder=is_decoder,
            use_cache=is_decoder,
            pad_token_id=self.pad_token_id,
            eos_token_id=None,
            attn_implementation=self._attn_implementation,
        )


ETEGRecConfig.register_for_auto_class()
