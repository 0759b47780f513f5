"""Entries of runs in training records, and the check that a checkpoint belongs to the same run."""

import dataclasses
import platform

import torch
from transformers import TrainingArguments

from ...data.fingerprint import fingerprint
from ...data.prepared import PreparedDataset
from ...hub.model_folder import local_folder
from ...hub.training_record import TrainingRecord, versions
from .callbacks import StageClock

# Arguments that say where and how often something is written; they don't change the model
UNRECORDED = (
    "output_dir",
    "run_name",
    "hub_token",
    "hub_model_id",
    "push_to_hub",
    "disable_tqdm",
    "resume_from_checkpoint",
    "do_eval",
    "do_train",
    "do_predict",
)
RECORDED_TYPES = (int, float, str, bool, type(None))
# Arguments that decide which samples a step reads and in which phase; a run can't be resumed with other values
ORDERING = (
    "seed",
    "data_seed",
    "per_device_train_batch_size",
    "max_tokens_per_batch",
    "gradient_accumulation_steps",
    "dataloader_drop_last",
    "train_sampling_strategy",
    "cycle",
    "warm_epochs",
    "freeze_tokenizer",
    "order_noise",
    "num_generations",
    "num_iterations",
    "steps_per_generation",
    "generation_batch_size",
    "shuffle_dataset",
)

# Fields that have no effect if another field is True or above 0
OVERRIDDEN = {
    "max_steps": {"num_train_epochs"},
    "max_tokens_per_batch": {"per_device_train_batch_size"},
    "freeze_tokenizer": {"tokenizer_learning_rate", "vq_weight", "cycle", "code_strategy"},
}


def record_of(data: PreparedDataset, earlier: str | None = None) -> TrainingRecord:
    """Returns the training record that a run continues.

    Args:
        data ([`PreparedDataset`]): the training data.
        earlier (`str`, *optional*): folder or Hub id of the model that training starts from; its stages come first.
    """
    stages = TrainingRecord.read(local_folder(earlier)).stages if earlier else []
    return TrainingRecord(data.statistics, stages, fingerprint=fingerprint(data))


def check_same_run(saved: TrainingRecord, folder: str, record: TrainingRecord, args: TrainingArguments) -> None:
    """Checks that a checkpoint belongs to this dataset, and to a run that reads the dataset in this order.

    Args:
        saved ([`TrainingRecord`]): record of the checkpoint.
        folder (`str`): folder of the checkpoint, for errors.
        record ([`TrainingRecord`]): record of the run that is to be resumed.
        args (`TrainingArguments`): arguments of that run.

    Raises:
        ValueError: the dataset or an argument differs; the message names the first difference.
    """
    for name, own_hash in record.fingerprint.items():
        other = saved.fingerprint.get(name, own_hash)  # runs from Python and earlier versions may lack it
        if other != own_hash:
            raise ValueError(
                f"the checkpoint {folder!r} is of another dataset: the fingerprint of its `{name}` is {other}, "
                f"and here {own_hash}; resume with the dataset of that run, with the same --stream, or "
                "start a new run."
            )
    if not saved.stages:
        return
    stage = saved.stages[-1]
    defaults = {field.name: field.default for field in dataclasses.fields(args)}
    ours = {"processes": args.world_size} | {name: getattr(args, name, None) for name in ORDERING}
    theirs = {"processes": stage.get("processes", args.world_size)} | {
        name: stage.get("arguments", {}).get(name, defaults.get(name)) for name in ORDERING
    }
    unused = overridden(args)
    for name, value in ours.items():
        if name not in unused and value != theirs[name]:
            raise ValueError(
                f"`{name}` is {value}, but {theirs[name]} in the checkpoint {folder!r}, whose steps read other "
                f"samples; resume with {theirs[name]}, or start a new run."
            )


def stage_of_run(trainer) -> dict:
    """Returns the entry of a run in a training record, with the steps that it has trained so far."""
    args, state = trainer.args, trainer.state
    clock = next(callback for callback in trainer.callback_handler.callbacks if isinstance(callback, StageClock))
    losses: dict[str, float] = {}
    for entry in state.log_history:  # the last value of each
        losses |= {name: value for name, value in entry.items() if name == "loss" or name.startswith("loss_")}
    step = state.best_global_step if trainer.holds_best else state.global_step  # the step of the current weights
    return {
        "stage": trainer.stage,
        "data": trainer.record.data.get("source", "unknown"),
        "epochs": round(state.epoch or 0.0, 2),
        "steps": state.global_step,
        "seconds": round(clock.seconds),
        "device": describe_device(args.device),
        "processes": args.world_size,
        "seed": args.seed,
        "losses": losses,
        "validation": validation_metrics(state.log_history).get(step, {}),
        "arguments": changed_arguments(args),
        "versions": versions(),
    }


def validation_metrics(log_history: list[dict]) -> dict[int, dict[str, float]]:
    """Returns the ranking metrics that a run logged, by step, in the order of evaluations.

    >>> validation_metrics([{"step": 5, "loss": 2.0}, {"step": 5, "eval_ndcg@10": 0.25}])
    {5: {'ndcg@10': 0.25}}
    """
    by_step: dict[int, dict[str, float]] = {}
    for entry in log_history:
        metrics = {name.removeprefix("eval_"): value for name, value in entry.items() if "@" in name}
        if metrics:
            by_step.setdefault(entry["step"], {}).update(metrics)
    return by_step


def changed_arguments(args: TrainingArguments) -> dict:
    """Returns the arguments that differ from the defaults of transformers or of this package.

    Arguments that others override are left out, because they changed nothing.
    """
    values, unrecorded = args.to_dict(), overridden(args).union(UNRECORDED)
    changed = {}
    for field in dataclasses.fields(args):
        value = values.get(field.name)
        is_default = value == (False if field.default is None and isinstance(value, bool) else field.default)
        if field.init and not is_default and field.name not in unrecorded and isinstance(value, RECORDED_TYPES):
            changed[field.name] = value
    return changed


def overridden(args: TrainingArguments) -> set[str]:
    """Returns the fields that have no effect because of the values of other fields."""
    fields: set[str] = set()
    for name, others in OVERRIDDEN.items():
        if (getattr(args, name, None) or 0) > 0:
            fields |= others
    if getattr(args, "psa_weight", 1) == 0:
        fields |= {"temperature", "gather_negatives"}
    return fields


def describe_device(device: torch.device) -> str:
    """Returns the hardware that a run used, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(device)}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
