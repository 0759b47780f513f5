"""What the trainers of transformers and TRL take and those of this package refuse, because it would change nothing."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Subset
from transformers import PreTrainedModel, TrainingArguments
from transformers.utils import is_peft_available

# Fields of `TrainingArguments`, each with what is wrong with another value than the default: in every training
REFUSED_FIELDS = {
    "label_smoothing_factor": "which the losses of this training don't know",
    "remove_unused_columns": "but datasets make whole batches, which hold nothing unused",
    "label_names": "but the names of targets are the datasets'",
    "include_num_input_tokens_seen": "but batches hold items, and targets are what is counted",
    "neftune_noise_alpha": "which is made for embeddings of text; choose a dropout rate instead",
    "use_liger_kernel": "and there are no Liger kernels for this model",
    "liger_kernel_config": "and there are no Liger kernels for this model",
    "auto_find_batch_size": "but steps and schedules follow from the batch size; give a smaller "
    "`per_device_train_batch_size`",
    "logging_nan_inf_filter": "but training ends at the first loss that isn't finite",
    "eval_use_gather_object": "but figures of several processes are gathered as tensors",
    "include_for_metrics": "but the metrics read predictions and targets alone",
    "batch_eval_metrics": "but the metrics are of all samples together",
    "enable_jit_checkpoint": "but SIGTERM saves a checkpoint and ends training anyway",
    "hub_always_push": "but the model is pushed once, when it is saved",
    "parallelism_config": "but each process holds the whole model; start several processes without it",
    "fsdp": "but each process holds the whole model; start several processes without it",
    "deepspeed": "but each process holds the whole model; start several processes without it",
}

# Further ones of trainings that read histories grouped by length, and rank items to evaluate
REFUSED_WITH_RANKING = {
    "train_sampling_strategy": "but batches hold histories of like length",
    "length_column_name": "but the datasets know the lengths of their histories",
    "prediction_loss_only": "but evaluation ranks items and computes no loss; evaluate less often by `eval_strategy`",
    "eval_do_concat_batches": "but ranking metrics are of all samples together",
}

# Further ones of trainings whose model reads many shapes
REFUSED_COMPILATION = dict.fromkeys(
    ("torch_compile", "torch_compile_backend", "torch_compile_mode"),
    "which isn't supported: batches have many shapes, compiled training took longer where it was measured, and its "
    "gradients were wrong for several candidates per history",
)

# Arguments of `Trainer`, each with what is there instead: in every training
REFUSED_ARGUMENTS = {
    "model_init": "give a `model`; a search over hyperparameters makes a trainer of its own for each trial",
    "data_collator": "datasets make whole batches",
    "compute_loss_func": "the losses are this trainer's; override `compute_loss` in a subclass to change them",
    "compute_metrics": "the metrics are this trainer's; measure others in the `on_evaluate` of a callback",
    "preprocess_logits_for_metrics": "the metrics are this trainer's; measure others in the `on_evaluate` of a "
    "callback",
    "optimizers": "choose by `optim`, `optim_args`, `learning_rate` and `lr_scheduler_type`, which are recorded",
    "optimizer_cls_and_kwargs": "choose by `optim`, `optim_args` and `learning_rate`, which are recorded",
}


def refuse_fields(args: TrainingArguments, refused: Mapping[str, str]) -> None:
    """Raises a `ValueError` for the first field of `refused` that isn't at its default."""
    for name, reason in refused.items():
        value, default = getattr(args, name), getattr(type(args), name, [])  # lists alone have no class attribute
        is_off = not value and default in (None, False, "no", [])
        if value != default and not is_off:
            raise ValueError(f"`{name}` is {value!r}, {reason}; leave it at {default!r}.")


def further_arguments(given: Mapping[str, object], refused: Mapping[str, str]) -> dict:
    """Returns the arguments of a trainer without those of `refused` that are given as nothing.

    Raises:
        ValueError: an argument of `refused` is given.
    """
    for name, instead in refused.items():
        if given.get(name) not in (None, (None, None)):
            raise ValueError(f"`{name}` is given, which this trainer can't use: {instead}.")
    return {name: value for name, value in given.items() if name not in refused}


def check_model(model: object, kind: type[PreTrainedModel]) -> None:
    """Raises a `ValueError` for a model of another kind, one with adapters of PEFT, or one in float16."""
    if isinstance(model, nn.Module) and has_adapters(model):
        raise ValueError(
            "`model` has adapters of PEFT, whose training wouldn't be saved whole. Give the model without them, and "
            "freeze what is to stay as it is by `requires_grad_(False)`; `merge_and_unload()` keeps what adapters "
            "have learned."
        )
    own = kind.config_class.model_type
    if not isinstance(model, PreTrainedModel) or model.config.model_type != own:  # a folder's own code is welcome
        raise ValueError(
            f"`model` is a {type(model).__name__}; give the model itself, a `{kind.__name__}`, as `from_pretrained` "
            "returns it."
        )
    if model.dtype == torch.float16:
        raise ValueError(
            "`model` is in float16, which has no room for small updates and their squares; load it with "
            "`dtype=torch.float32`, and set `bf16` or `fp16` of the arguments."
        )


def has_adapters(model: nn.Module) -> bool:
    """Whether a model holds layers of PEFT, by `get_peft_model` or by `add_adapter`."""
    if not is_peft_available():
        return False
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    return any(isinstance(module, PeftModel | BaseTunerLayer) for module in model.modules())


def check_training_arguments(args: object, kind: type[TrainingArguments]) -> None:
    """Raises a `ValueError` for arguments of another kind."""
    if not isinstance(args, kind):
        raise ValueError(f"`args` is a {type(args).__name__}; give `{kind.__name__}`.")


def check_dataset(name: str, dataset: object, kinds: tuple[type, ...]) -> None:
    """Raises a `ValueError` for a dataset of another kind."""
    if not isinstance(dataset, kinds):
        *others, last = (f"`{kind.__name__}`" for kind in kinds)
        listed = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(
            f"`{name}` is a {type(dataset).__name__}; give {listed}, of the rows that are wanted: `split.take(rows)`."
        )


def check_eval_dataset(dataset: object, kinds: tuple[type, ...]) -> None:
    """Raises a `ValueError` for evaluation datasets of another kind: one, a part of one, or several by name."""
    for name, each in named_datasets(dataset).items():
        check_dataset(name, whole_of(each), kinds)
    for key in dataset if isinstance(dataset, dict) else ():
        if not isinstance(key, str):
            raise ValueError(f"`eval_dataset` has the key {key!r}; give each dataset a name, a string.")


def whole_of(dataset: Any) -> Any:
    """Returns the dataset that a [`torch.utils.data.Subset`] is a part of, or the dataset itself."""
    return whole_of(dataset.dataset) if isinstance(dataset, Subset) else dataset


def named_datasets(dataset: object) -> dict[str, object]:
    """Returns the evaluation datasets, each by what it is called in an error; none for `None`."""
    if isinstance(dataset, dict):
        return {f"eval_dataset[{name!r}]": each for name, each in dataset.items()}
    return {} if dataset is None else {"eval_dataset": dataset}


def chooses_best(args: TrainingArguments) -> bool:
    """Whether a model is kept, or training ends, by `metric_for_best_model`."""
    is_kept = args.load_best_model_at_end or args.save_strategy == "best"
    return is_kept or getattr(args, "early_stopping_patience", None) is not None


def check_best_metric(args: TrainingArguments, eval_dataset: Dataset | dict[str, Dataset] | None) -> None:
    """Checks that the metric by which a model is kept is one that the evaluation datasets have.

    Raises:
        ValueError: several datasets, of which `metric_for_best_model` names none.
        ValueError: `metric_for_best_model` names a dataset, and there is one without a name.
    """
    metric = (args.metric_for_best_model or "").removeprefix("eval_")
    if isinstance(eval_dataset, dict):
        named, measured = {name for name in eval_dataset if metric.startswith(f"{name}_")}, metric
        if "@" in metric:  # of ranking, which has no underscore
            dataset, _, measured = metric.rpartition("_")
            named &= {dataset}
        if chooses_best(args) and not named:
            names = [f"{name}_{measured}" for name in eval_dataset]
            raise ValueError(
                f"`metric_for_best_model` is {metric!r}, which each dataset of `eval_dataset` has its own of; choose "
                f"one of {', '.join(names)}."
            )
    elif "@" in metric and "_" in metric and eval_dataset is not None:
        raise ValueError(
            f"`metric_for_best_model` is {metric!r} and `eval_dataset` no dict of datasets by name; choose "
            f"{metric.rpartition('_')[2]!r}."
        )
