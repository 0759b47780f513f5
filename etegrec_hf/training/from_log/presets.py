"""Presets: arguments of all commands that turn a log into a recommender, fitted to the log's size."""

import math
from dataclasses import dataclass
from importlib.resources import files

import torch
import yaml

from ...data.checks import check_choice
from ...data.prepared import PreparedDataset
from ...data.splits import SPLIT_NAMES

PRESETS = ("best", "fast", "paper")
LARGE = 100_000  # training targets of logs by which lengths were chosen
TARGETS_PER_ITEM = 20  # from which on a number is learned for each pair of items
MOST_SCORES = 2**24  # of all items for all targets of an update, by which memory grows


@dataclass(frozen=True)
class LogSize:
    """What of a log decides how a recommender of it is trained.

    Args:
        n_users (`int`): training sequences.
        n_items (`int`): items of the catalogue.
        n_targets (`int`): items of training sequences that come after another one.
    """

    n_users: int
    n_items: int
    n_targets: int

    @classmethod
    def of(cls, data: PreparedDataset) -> "LogSize":
        """Returns the size of a prepared dataset."""
        n_users = len(data.train)
        return cls(n_users, data.n_items, len(data.train.sequences) - n_users)

    @classmethod
    def of_statistics(cls, statistics: dict) -> "LogSize":
        """Returns the size of a prepared dataset by its statistics.

        Raises:
            KeyError: they lack the numbers of users, items and interactions.
        """
        users = statistics["users"]
        rows = [statistics.get(f"{name}_rows", users) for name in SPLIT_NAMES]
        return cls(rows[0], statistics["items"], statistics["interactions"] - sum(rows))


def read_preset(name: str) -> dict[str, dict]:
    """Returns a preset's arguments as they stand in its file, by command.

    Raises:
        ValueError: none of `PRESETS`.
    """
    check_choice("preset", name, PRESETS)
    return yaml.safe_load(files("etegrec_hf").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8"))


def fitted_preset(name: str, size: LogSize) -> dict[str, dict]:
    """Returns a preset's arguments by command, fitted to a log. Those of the paper stay as they are.

    - *Codes*: a level has a sixteenth of the items' number of codes, as a power of two from 16 to 256, and
      catalogues of fewer than 2,000 items have two levels instead of three.
    - *Batches* hold a fiftieth of the training targets, as a power of two from 128 to 1,024, and fewer from 16,384
      items on.
    - *Epochs* of the recommender and of the collaborative model fall with the square root of the targets. The files
      have those at 100,000; more than 10 times or less than 10 times as many targets have as many.
    - The *collaborative model* has batches of a 64th of the users, as a power of two from 8 to 128.
    - *Dropout* is .5 in the encoder and .2 in the decoder from 30,000 targets, and .3 and .1 below.
    - *Pairs of items* learn a number each from 20 training targets per item on: with fewer, most pairs come once or
      twice, and their numbers remember training sequences.
    - bfloat16 is left out where the hardware lacks it.

    Args:
        name (`str`): of `PRESETS`.
        size ([`LogSize`]): of the log.

    Raises:
        ValueError: none of `PRESETS`.
    """
    values = read_preset(name)
    if name == "paper":
        return values
    num_levels = 2 if size.n_items < 2_000 else 3
    values["train-tokenizer"] |= {
        "num_levels": num_levels,
        "codebook_size": power_of_two(size.n_items / 16, 16, 256),
        "per_device_train_batch_size": power_of_two(size.n_items / 8, 64, 1024),
    }
    is_small = size.n_targets < 30_000
    values["train"] |= {"dropout_rate": 0.3 if is_small else 0.5, "decoder_dropout_rate": 0.1 if is_small else 0.2}
    values["train"]["learns_transitions"] = size.n_targets >= TARGETS_PER_ITEM * size.n_items
    targets = min(size.n_targets / 50, MOST_SCORES / size.n_items)
    tokens = power_of_two(targets, 128, 1024) * (num_levels + 1)
    for command in ("train", "finetune"):
        values[command]["max_tokens_per_batch"] = tokens
    values["embed"]["per_device_train_batch_size"] = power_of_two(size.n_users / 64, 8, 128)
    lasting = ["embed", "finetune"] + ["train"] * values["train"].get("freeze_tokenizer", False)
    for command in lasting:
        values[command]["num_train_epochs"] = epochs_for(size.n_targets, values[command]["num_train_epochs"])
    for command, arguments in values.items():
        if not has_bfloat16():
            arguments.pop("bf16", None)
        elif command != "evaluate" and not torch.cuda.is_available():
            arguments["use_cpu"] = True  # else transformers refuses bfloat16
    return values


def epochs_for(n_targets: int, at_large: int) -> int:
    """Returns epochs, `at_large` at 100,000 training targets and the fewer the more there are.

    >>> epochs_for(100_000, 8), epochs_for(25_000, 8), epochs_for(100, 8), epochs_for(10**8, 8)
    (8, 16, 25, 3)
    """
    share = min(max(n_targets / LARGE, 0.1), 10)
    return max(1, round(at_large / math.sqrt(share)))


def power_of_two(number: float, least: int, most: int) -> int:
    """Returns the largest power of two up to a number, within two powers of two.

    >>> power_of_two(386, 128, 1024), power_of_two(10, 128, 1024), power_of_two(9000, 128, 1024)
    (256, 128, 1024)
    """
    return min(max(2 ** int(math.log2(max(number, 1))), least), most)


def has_bfloat16() -> bool:
    """Whether the hardware multiplies in bfloat16 by itself; others imitate it slowly."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
