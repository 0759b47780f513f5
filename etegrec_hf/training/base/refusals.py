"""Arguments of transformers and TRL that this package's trainers refuse, because they would change nothing."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Subset
from transformers import PreTrainedModel, TrainingArguments
from transformers.utils import is_peft_available

# Fields of `TrainingArguments` that every training refuses, with the reason, which ends the message
REFUSED_FIELDS = {
    "label_smoothing_factor": "which the losses of this training don't use",
    "remove_unused_columns": "but the datasets make whole batches, without unused columns",
    "label_names": "but the datasets name the targets",
    "include_num_input_tokens_seen": "but batches hold items, and targets are counted instead of tokens",
    "neftune_noise_alpha": "which is made for embeddings of text; choose a dropout rate instead",
    "use_liger_kernel": "but there are no Liger kernels for this model",
    "liger_kernel_config": "but there are no Liger kernels for this model",
    "auto_find_batch_size": "but the number of steps and the schedule depend on the batch size; give a smaller "
    "`per_device_train_batch_size`",
    "logging_nan_inf_filter": "but training ends at the first loss that isn't finite",
    "eval_use_gather_object": "but results of several processes are gathered as tensors",
    "include_for_metrics": "but the metrics read only predictions and targets",
    "batch_eval_metrics": "but the metrics are computed over all samples together",
    "enable_jit_checkpoint": "but SIGTERM saves a checkpoint and ends training anyway",
    "hub_always_push": "but the model is pushed only once, when it is saved",
    "parallelism_config": "but each process holds the whole model; start several processes without it",
    "fsdp": "but each process holds the whole model; start several processes without it",
    "deepspeed": "but each process holds the whole model; start several processes without it",
}

# Further fields that are refused by trainings that group histories by length and evaluate by ranking items
REFUSED_WITH_RANKING = {
    "train_sampling_strategy": "but batches always hold histories of similar length",
    "length_column_name": "but the datasets know the lengths of their histories",
    "prediction_loss_only": "but evaluation ranks items and computes no loss; evaluate less often by `eval_strategy`",
    "eval_do_concat_batches": "but ranking metrics are computed over all samples together",
}

# Further fields that are refused by trainings whose model reads batches of many shapes
REFUSED_COMPILATION = dict.fromkeys(
    ("torch_compile", "torch_compile_backend", "torch_compile_mode"),
    "which isn't supported: batches have many shapes, compiled training took longer where it was measured, and its "
    "gradients were wrong for several candidates per history",
)

# Arguments of `Trainer` that every training refuses, with the remedy, which ends the message
REFUSED_ARGUMENTS = {
    "model_init": "give a `model`; for a search over hyperparameters, make a new trainer for each trial",
    "data_collator": "datasets make whole batches",
    "compute_loss_func": "it has its own losses; override `compute_loss` in a subclass to change them",
    "compute_metrics": "it has its own metrics; measure others in the `on_evaluate` of a callback",
    "preprocess_logits_for_metrics": "it has its own metrics; measure others in the `on_evaluate` of a callback",
    "optimizers": "set `optim`, `optim_args`, `learning_rate` and `lr_scheduler_type`, which are recorded",
    "optimizer_cls_and_kwargs": "set `optim`, `optim_args` and `learning_rate`, which are recorded",
}


def refuse_fields(args: TrainingArguments, refused: Mapping[str, str]) -> None:
    """Raises a `ValueError` for the first field in `refused` whose value isn't its default."""
    for name, reason in refused.items():
        value, default = getattr(args, name), getattr(type(args), name, [])  # only lists have no class attribute
        is_off = not value and default in (None, False, "no", [])
        if value != default and not is_off:
            raise ValueError(f"`{name}` is {value!r}, {reason}; leave it at {default!r}.")


def further_arguments(given: Mapping[str, object], refused: Mapping[str, str]) -> dict:
    """Returns the arguments of a trainer without those in `refused`, which may only be empty.

    Raises:
        ValueError: an argument in `refused` isn't empty.
    """
    for name, instead in refused.items():
        if given.get(name) not in (None, (None, None)):
            raise ValueError(f"`{name}` is given, which this trainer can't use: {instead}.")
    return {name: value for name, value in given.items() if name not in refused}


def check_model(model: object, kind: type[PreTrainedModel]) -> None:
    """Checks the model that a trainer is given.

    Raises:
        ValueError: the model is of another kind.
        ValueError: the model has adapters of PEFT.
        ValueError: the model is in float16.
    """
    if isinstance(model, nn.Module) and has_adapters(model):
        raise ValueError(
            "`model` has adapters of PEFT, which this trainer can't save completely. Give the model without adapters, "
            "and freeze weights by `requires_grad_(False)`; `merge_and_unload()` keeps what the adapters have learned."
        )
    own = kind.config_class.model_type
    if not isinstance(model, PreTrainedModel) or model.config.model_type != own:  # a folder's own class is accepted
        raise ValueError(
            f"`model` is a {type(model).__name__}; give the model itself, a `{kind.__name__}`, as `from_pretrained` "
            "returns it."
        )
    if model.dtype == torch.float16:
        raise ValueError(
            "`model` is in float16, which rounds small updates and their squares to 0; load it with "
            "`dtype=torch.float32`, and set `bf16` or `fp16` of the arguments."
        )


def has_adapters(model: nn.Module) -> bool:
    """Returns whether a model holds layers of PEFT, from `get_peft_model` or `add_adapter`."""
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
            f"`{name}` is a {type(dataset).__name__}; give {listed}. For some rows only, make it from "
            "`split.take(rows)`."
        )


def check_eval_dataset(dataset: object, kinds: tuple[type, ...]) -> None:
    """Raises a `ValueError` for evaluation datasets of another kind; there may be one dataset, or several by name."""
    for name, each in named_datasets(dataset).items():
        check_dataset(name, whole_of(each), kinds)
    for key in dataset if isinstance(dataset, dict) else ():
        if not isinstance(key, str):
            raise ValueError(f"`eval_dataset` has the key {key!r}; name each dataset by a string.")


def whole_of(dataset: Any) -> Any:
    """Returns the dataset that a [`torch.utils.data.Subset`] is a part of, or the dataset itself."""
    return whole_of(dataset.dataset) if isinstance(dataset, Subset) else dataset


def named_datasets(dataset: object) -> dict[str, object]:
    """Returns the evaluation datasets by their names in errors; an empty dict for `None`."""
    if isinstance(dataset, dict):
        return {f"eval_dataset[{name!r}]": each for name, each in dataset.items()}
    return {} if dataset is None else {"eval_dataset": dataset}


def chooses_best(args: TrainingArguments) -> bool:
    """Returns whether `metric_for_best_model` chooses the weights that are kept, or ends training early."""
    is_kept = args.load_best_model_at_end or args.save_strategy == "best"
    return is_kept or getattr(args, "early_stopping_patience", None) is not None


def check_best_metric(args: TrainingArguments, eval_dataset: Dataset | dict[str, Dataset] | None) -> None:
    """Checks that `metric_for_best_model` is measured on one of the evaluation datasets.

    Raises:
        ValueError: there are several datasets, and `metric_for_best_model` names none of them.
        ValueError: `metric_for_best_model` names a dataset, but the only dataset has no name.
    """
    metric = (args.metric_for_best_model or "").removeprefix("eval_")
    if isinstance(eval_dataset, dict):
        named, measured = {name for name in eval_dataset if metric.startswith(f"{name}_")}, metric
        if "@" in metric:  # a ranking metric, whose own name has no underscore
            dataset, _, measured = metric.rpartition("_")
            named &= {dataset}
        if chooses_best(args) and not named:
            names = [f"{name}_{measured}" for name in eval_dataset]
            raise ValueError(
                f"`metric_for_best_model` is {metric!r}, which is measured on each dataset of `eval_dataset`; choose "
                f"one of {', '.join(names)}."
            )
    elif "@" in metric and "_" in metric and eval_dataset is not None:
        raise ValueError(
            f"`metric_for_best_model` is {metric!r}, but `eval_dataset` isn't a dict of datasets by name; choose "
            f"{metric.rpartition('_')[2]!r}."
        )
