"""Arguments of reinforcement learning."""

from dataclasses import dataclass, field
from typing import ClassVar

from packaging.version import Version
from trl import GRPOConfig
from trl import __version__ as trl_version

from ..base.arguments import check_patience, check_ranked_metric
from ..base.refusals import REFUSED_COMPILATION, REFUSED_FIELDS, REFUSED_WITH_RANKING, refuse_fields
from .policy import ROLLOUTS

TESTED = ("1.16", "1.17")  # versions of TRL: from the first to before the second

# Options of TRL that have no meaning for items
NO_MEANING = dict.fromkeys(
    (
        "use_vllm",
        *(field for field in GRPOConfig.__dataclass_fields__ if field.startswith("vllm_")),
        "use_transformers_continuous_batching",
        "use_transformers_paged",
        "transformers_continuous_batching_config",
        "generation_kwargs",
        "cache_implementation",
        "chat_template_kwargs",
        "max_tool_calling_iterations",
        "log_multimodal",
        "trust_remote_code",
        "top_p",
        "min_p",
        "repetition_penalty",
        "pad_to_multiple_of",
        "mask_truncated_completions",
        "num_generations_eval",
        "cast_lm_head_to_fp32",
        "router_aux_loss_coef",
        "ds3_gather_for_generation",
        "sync_ref_model",
        "ref_model_mixup_alpha",
        "ref_model_sync_steps",
        "model_init_kwargs",
    ),
    "an option of TRL that has no meaning for a recommender",
)

# Fields of `TrainingArguments` that reinforcement learning refuses
REFUSED_WITH_GROUPS = dict.fromkeys(
    ("activation_checkpointing", "activation_checkpointing_kwargs", "gradient_checkpointing"),
    "but each history is encoded once for its group; give a smaller batch and accumulate gradients",
) | {
    "disable_dropout": "but reinforcement learning applies no dropout; leave it out",
}


def check_trl_version(installed: str) -> None:
    """Raises an `ImportError` for versions of TRL that weren't tested; this package overrides private methods."""
    first, beyond = (Version(bound).release for bound in TESTED)
    if not first <= Version(installed).release[:2] < beyond:  # a release candidate is of the version that it becomes
        raise ImportError(
            f"TRL {installed} is installed, but reinforcement learning needs a version from {TESTED[0]} to before "
            f"{TESTED[1]}: pip install 'trl>={TESTED[0]},<{TESTED[1]}'"
        )


check_trl_version(trl_version)


@dataclass
class ETEGRecGRPOConfig(GRPOConfig):
    """Arguments of [`ETEGRecGRPOTrainer`], besides those of TRL.

    The defaults of `num_generations`, `beta`, `temperature`, `top_k`, `learning_rate` and `epsilon` are those of the
    specification. A step reads `per_device_train_batch_size / num_generations` histories per device. TRL's options for
    text (vLLM, nucleus sampling, truncated completions, ...) have no meaning here, and setting one is an error.

    Args:
        num_generations (`int`, *optional*, defaults to 16): completions per history; together they are a group.
        beta (`float`, *optional*, defaults to 0.05): weight of the KL divergence from the starting model.
        temperature (`float`, *optional*, defaults to 1.0): temperature of the policy.
        top_k (`int`, *optional*, defaults to 50): codes per level that `rollout="sample"` draws from; 0 for all.
        learning_rate (`float`, *optional*, defaults to 1e-5): learning rate of the recommender.
        epsilon (`float`, *optional*, defaults to 0.2): probability ratios are clipped to `1 - epsilon .. 1 + epsilon`.
        max_completion_length (`int`, *optional*): tokens per completion, by default and necessarily the model's
            `code_length`.
        rollout (`str`, *optional*, defaults to `"sample"`): how completions are found: `"sample"`,
            `"without_replacement"` or `"beam"`, see [`CodePolicy.roll_out`].
        constrained (`bool`, *optional*, defaults to `True`): whether every completion is an item.
        num_beams (`int`, *optional*, defaults to 50): beams at evaluation. Metrics of longer lists are left out.
        early_stopping_patience (`int`, *optional*, defaults to 5): evaluations without a better
            `metric_for_best_model` before training stops. With 0 or `None`, training never stops early.

    Raises:
        ValueError: `rollout` is unknown.
        ValueError: `num_generations` is below 2, or a batch holds a part of a group.
        ValueError: the temperature isn't positive, or `top_k` is negative.
        ValueError: `metric_for_best_model` looks at longer lists than `num_beams` find.
        ValueError: an update would mix rounds of completions.
        ValueError: early stopping is asked for without evaluation.
        ValueError: a field of transformers or TRL would change nothing, see [docs/training.md](../training.md).
    """

    help_group: ClassVar[str] = "training"

    num_generations: int = 16
    num_generations_eval: int | None = 1  # evaluation ranks the catalogue and generates nothing
    beta: float = 0.05
    temperature: float = 1.0
    top_k: int = 50
    learning_rate: float = 1e-5
    epsilon: float = 0.2
    max_completion_length: int | None = None
    max_grad_norm: float = 1.0
    num_train_epochs: float = 1
    per_device_train_batch_size: int = 512
    per_device_eval_batch_size: int = 64
    lr_scheduler_type: str = "cosine"
    logging_steps: float = 10
    eval_strategy: str = "steps"
    eval_steps: float | None = 100
    save_strategy: str = "steps"
    save_steps: float = 100
    save_total_limit: int | None = 1
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = "ndcg@10"
    greater_is_better: bool | None = True
    dataloader_pin_memory: bool = False
    logging_nan_inf_filter: bool = False  # training stops at NaN and infinity
    pad_to_multiple_of: int | None = None  # completions have one length
    restore_callback_states_from_checkpoint: bool = True
    hub_strategy: str = "end"
    activation_checkpointing: bool | None = False
    gradient_checkpointing: bool | None = None  # the older name of `activation_checkpointing`
    bf16: bool | None = False
    rollout: str = field(default="sample", metadata={"help": f"How completions are found: {', '.join(ROLLOUTS)}."})
    constrained: bool = field(default=True, metadata={"help": "Whether every completion is an item."})
    num_beams: int = field(default=50, metadata={"help": "Beams at evaluation."})
    early_stopping_patience: int | None = field(
        default=5, metadata={"help": "Evaluations without a better score before training stops; 0 for never."}
    )

    def __post_init__(self):
        if self.rollout not in ROLLOUTS:
            raise ValueError(f"`rollout` is {self.rollout!r}; choose one of {', '.join(ROLLOUTS)}.")
        if self.num_generations < 2:
            raise ValueError(
                f"`num_generations` is {self.num_generations}; give at least 2, because each completion is compared "
                "with the others of its group."
            )
        if self.per_device_train_batch_size % self.num_generations:
            raise ValueError(
                f"`per_device_train_batch_size` is {self.per_device_train_batch_size} and `num_generations` is "
                f"{self.num_generations}; a batch must hold whole groups: give a batch size that is a multiple of "
                "`num_generations`."
            )
        if not self.temperature > 0:
            raise ValueError(f"`temperature` is {self.temperature}; it must be positive.")
        if self.top_k < 0:
            raise ValueError(f"`top_k` is {self.top_k}; give the number of codes to sample from, or 0 for all codes.")
        check_ranked_metric(self.metric_for_best_model, self.num_beams)
        refuse_fields(self, REFUSED_FIELDS | REFUSED_WITH_RANKING | REFUSED_COMPILATION)
        refuse_fields(self, REFUSED_WITH_GROUPS | NO_MEANING)
        super().__post_init__()
        if self.batches_per_round % self.gradient_accumulation_steps:
            raise ValueError(
                f"a round of completions is {self.batches_per_round} batches (`steps_per_generation` times "
                f"`num_iterations`), which isn't a multiple of `gradient_accumulation_steps` "
                f"({self.gradient_accumulation_steps}); make it one, because an update must not mix rounds."
            )
        self.early_stopping_patience = check_patience(self.early_stopping_patience, self.eval_strategy)

    @property
    def batches_per_round(self) -> int:
        """Returns the number of batches that a round of completions is trained on, over all its iterations."""
        return self.steps_per_generation * self.num_iterations
