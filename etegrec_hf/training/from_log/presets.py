"""Presets: arguments of the commands from a log to a recommender, fitted to the log's size."""

import math
from dataclasses import dataclass
from importlib.resources import files

import torch
import yaml

from ...data.checks import check_choice
from ...data.prepared import PreparedDataset
from ...data.splits import SPLIT_NAMES

PRESETS = ("best", "fast", "paper")
LARGE = 100_000  # training targets for which the files' numbers of epochs were chosen
TARGETS_PER_ITEM = 20  # training targets per item from which a number is learned per pair of items
MOST_SCORES = 2**24  # scores of all items for all targets of an update; memory grows with them


@dataclass(frozen=True)
class LogSize:
    """Size of a log, which decides how a recommender is trained.

    Args:
        n_users (`int`): number of training sequences.
        n_items (`int`): number of items in the catalogue.
        n_targets (`int`): number of training targets: all items of training sequences but the first of each.
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
        """Returns the size of a prepared dataset from its statistics.

        Raises:
            ValueError: the statistics lack the number of users, items or interactions.
        """
        absent = [name for name in ("users", "items", "interactions") if name not in statistics]
        if absent:
            raise ValueError(
                f"the dataset's statistics.json lacks {absent}, to which the preset is fitted; prepare the dataset "
                "again."
            )
        users = statistics["users"]
        rows = [statistics.get(f"{name}_rows", users) for name in SPLIT_NAMES]
        return cls(rows[0], statistics["items"], statistics["interactions"] - sum(rows))


def read_preset(name: str) -> dict[str, dict]:
    """Reads a preset's arguments from its file, by command.

    Raises:
        ValueError: the preset isn't one of `PRESETS`.
    """
    check_choice("preset", name, PRESETS)
    return yaml.safe_load(files("etegrec_hf").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8"))


def fitted_preset(name: str, size: LogSize) -> dict[str, dict]:
    """Returns a preset's arguments by command, fitted to a log. Arguments of `"paper"` aren't fitted.

    - *Codes per level*: the number of items divided by 16, as a power of two from 16 to 256. Catalogues of fewer than
      2,000 items have two levels instead of three.
    - *Targets per batch*: the number of training targets divided by 50, as a power of two from 128 to 1,024. From
      16,384 items on, batches are smaller.
    - *Epochs* of the recommender and of the collaborative model: see [`epochs_for`].
    - *Batches of the collaborative model*: the number of users divided by 64, as a power of two from 8 to 128.
    - *Dropout*: .5 in the encoder and .2 in the decoder from 30,000 training targets on, else .3 and .1.
    - *Pairs of items*: from 20 training targets per item on, a number is learned per pair of item and next item.
      With fewer targets most pairs occur once or twice, and the numbers would memorise training sequences.
    - *bfloat16*: turned off if the hardware lacks it.

    Args:
        name (`str`): one of `PRESETS`.
        size ([`LogSize`]): size of the log.

    Raises:
        ValueError: the preset isn't one of `PRESETS`.
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
    """Returns a number of epochs that falls with the square root of the training targets.

    It is `at_large` for 100,000 targets. Below 10,000 and above 1,000,000 targets it doesn't change any more.

    >>> epochs_for(100_000, 8), epochs_for(25_000, 8), epochs_for(100, 8), epochs_for(10**8, 8)
    (8, 16, 25, 3)
    """
    share = min(max(n_targets / LARGE, 0.1), 10)
    return max(1, round(at_large / math.sqrt(share)))


def power_of_two(number: float, least: int, most: int) -> int:
    """Returns the largest power of two up to `number`, but at least `least` and at most `most`.

    >>> power_of_two(386, 128, 1024), power_of_two(10, 128, 1024), power_of_two(9000, 128, 1024)
    (256, 128, 1024)
    """
    return min(max(2 ** int(math.log2(max(number, 1))), least), most)


def has_bfloat16() -> bool:
    """Returns whether the hardware computes in bfloat16; other hardware imitates it slowly."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
