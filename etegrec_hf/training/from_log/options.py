"""Options of making a recommender from a log."""

from dataclasses import dataclass, field
from typing import ClassVar

from ...data.checks import check_choice, check_seed
from .plan import AUTO, CHOICES

TEXT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class FitOptions:
    """Options of [`fit`].

    Args:
        preset (`str`, *optional*, defaults to `"auto"`): `"best"`, `"fast"` or `"paper"`. `"auto"` is `"best"` if
            `time_limit` leaves enough time for it, else `"fast"`.
        time_limit (`str`, *optional*): time limit of the whole run, like `"90s"`, `"30m"` or `"2h"`. If it is short,
            fewer users are measured and trainings become shorter, and messages say what is left out.
        text_model (`str`, *optional*): a sentence-transformers model for `text`, as a folder or a Hub id; `"none"` for
            no text embeddings. The default is `TEXT_MODEL`, if at least half of the items have titles and the model
            can be loaded.
        text (`str`, *optional*, defaults to `"{title}"`): template of an item's text.
        min_count (`int`, *optional*, defaults to 3): interactions that each user and item has at least; rarer users
            and items are left out. The three splits need at least 3 per user.
        split (`str`, *optional*, defaults to `"leave-one-out"`): how the log is split, as in [`prepare`].
        license (`str`, *optional*, defaults to `"unknown"`): license of the data.
        seed (`int`, *optional*, defaults to 0): random seed of all trainings.

    Raises:
        ValueError: the preset is unknown.
        ValueError: `time_limit` isn't a time above 0.
    """

    help_group: ClassVar[str] = "training"

    preset: str = field(
        default=AUTO,
        metadata={"help": "How long to train: fast, best or paper; auto is best if time allows, and fast otherwise."},
    )
    time_limit: str | None = field(
        default=None, metadata={"help": "Time limit of the whole run, like 90s, 30m or 2h; by default there is none."}
    )
    text_model: str | None = field(
        default=None,
        metadata={"help": f"A sentence-transformers model, or 'none'; by default {TEXT_MODEL} if there are titles."},
    )
    text: str = field(
        default="{title}", metadata={"help": "Template of the text that is embedded; names in braces are columns."}
    )
    min_count: int = field(default=3, metadata={"help": "Leave out users and items with fewer interactions (k-core)."})
    split: str = field(
        default="leave-one-out",
        metadata={"help": "How the log is split: leave-one-out, time, ratio or given."},
    )
    license: str = field(default="unknown", metadata={"help": "License of the data, as the Hub abbreviates it."})
    seed: int = field(default=0, metadata={"help": "Random seed of all trainings."})

    def __post_init__(self):
        check_choice("preset", self.preset, CHOICES)
        check_seed(self.seed)
        _ = self.seconds  # raises what is wrong with it

    @property
    def seconds(self) -> float | None:
        """Returns the time limit in seconds, or `None`."""
        return None if self.time_limit is None else seconds_of(self.time_limit)


def seconds_of(time_limit: str) -> float:
    """Returns the seconds of a time like `"30m"`; a number without unit is seconds.

    >>> seconds_of("30m"), seconds_of("1.5h"), seconds_of("90s"), seconds_of("20")
    (1800.0, 5400.0, 90.0, 20.0)

    Raises:
        ValueError: it isn't a time above 0.
    """
    text = str(time_limit).strip().lower()
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    try:
        seconds = float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"`time_limit` is {time_limit!r}; give a time above 0 like '90s', '30m' or '2h'.")
    return seconds
