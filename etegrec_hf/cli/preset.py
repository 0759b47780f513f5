"""`--preset`: values of arguments that neither the call nor its `--config` gives."""

import argparse
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..data.checks import check_choice
from ..data.prepared import read_statistics
from ..hub.dataset_folder import local_dataset
from ..hub.model_folder import local_folder, model_config
from ..training.from_log.presets import PRESETS, LogSize, fitted_preset
from .options import true_or_false

# Arguments of a preset that have no effect, or are wrong, if another argument is given
REPLACED_BY = {
    "per_device_train_batch_size": "max_tokens_per_batch",
    "max_steps": "num_train_epochs",
    "eval_strategy": "early_stopping_patience",
    "fp16": "bf16",
}

# Arguments of models that learn pairs of items, each with the value for no such pairs
NEEDED_TO_LEARN_PAIRS = {"num_transitions": "0", "recent_items": "0", "item_logits": "none"}


@dataclass(kw_only=True)
class PresetArguments:
    """The preset of a training."""

    help_group: ClassVar[str] = "training"

    preset: str = field(
        default=PRESETS[0],
        metadata={"help": "Values of all options that aren't given: best, fast or paper."},
    )


def preset_values(command: str, argv: list[str], values: dict) -> dict:
    """Returns the arguments of a call's preset, without those that other arguments of the call replace.

    Args:
        command (`str`): name of the command.
        argv (`list[str]`): arguments of the call, with the names of their options.
        values (`dict`): entries of the call's `--config`.

    Raises:
        ValueError: the preset is unknown.
        ValueError: the dataset's statistics lack what a preset is fitted to.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("preset", "data", "model"):
        parser.add_argument(f"--{name}", default=values.get(name))
    parser.add_argument("--stream", nargs="?", const=True, default=values.get("stream", False), type=true_or_false)
    for name in NEEDED_TO_LEARN_PAIRS:
        parser.add_argument(f"--{name.replace('_', '-')}", f"--{name}", dest=name, default=values.get(name))
    call = parser.parse_known_args(argv)[0]
    preset = call.preset or PresetArguments.preset
    check_choice("preset", preset, PRESETS)
    given = {argument.partition("=")[0][2:].replace("-", "_") for argument in argv if argument.startswith("--")}
    given |= values.keys()
    try:
        statistics = read_statistics(Path(local_dataset(call.data, ())))
    except (OSError, ValueError, TypeError):
        return {}  # the command itself says what is wrong with the dataset
    size = LogSize.of_statistics(statistics)
    found = fitted_preset(preset, size)[command]
    left_out = {replaced for name, replaced in REPLACED_BY.items() if name in given}
    if call.stream:
        left_out |= {"num_transitions", "learns_transitions"}  # these are counted in sequences in memory
    if any(str(getattr(call, name)) == without for name, without in NEEDED_TO_LEARN_PAIRS.items()):
        left_out.add("learns_transitions")
    if call.item_logits == "none":
        left_out.add("item_ensemble")
    if command == "finetune" and not aligns(call.model):
        left_out |= {"psa_weight", "sia_weight"}
    return {name: value for name, value in found.items() if name not in left_out}


def aligns(model: str) -> bool:
    """Returns whether a model has an item tokenizer and embeddings, which alignment needs."""
    try:
        config = model_config(local_folder(model))
    except (OSError, ValueError, TypeError):
        return False  # the command itself says what is wrong with the model
    return all(config.get(name, True) for name in ("has_item_tokenizer", "has_semantic_embedding"))


def preset_names(command: str) -> Collection[str]:
    """Returns the names of a command's arguments that a preset gives."""
    return fitted_preset(PRESETS[0], LogSize(1, 1, 1))[command].keys() - {"use_cpu"}
