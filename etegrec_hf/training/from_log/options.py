"""How a recommender is made of a log."""

from dataclasses import dataclass, field
from typing import ClassVar

from ...data.checks import check_choice
from .plan import AUTO, CHOICES

TEXT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class FitOptions:
    """How [`fit`] goes about it.

    Args:
        preset (`str`, *optional*, defaults to `"auto"`): `"best"`, `"fast"` or `"paper"`, or `"auto"`: the best that
            `time_limit` leaves time for.
        time_limit (`str`, *optional*): in all, like `"90s"`, `"30m"` or `"2h"`. Trainings
            become shorter, and what was left out is told.
        text_model (`str`, *optional*): a sentence-transformers model, a folder or a Hub id, for `text`; by default
            `TEXT_MODEL` where at least half of the items have titles and it can be loaded, and `"none"` for none.
        text (`str`, *optional*, defaults to `"{title}"`): template of an item's text.
        min_count (`int`, *optional*, defaults to 3): k-core of the log; three splits need as many of each user.
        split (`str`, *optional*, defaults to `"leave-one-out"`): as in [`prepare`].
        license (`str`, *optional*, defaults to `"unknown"`): of the data.
        seed (`int`, *optional*, defaults to 0): of all trainings.

    Raises:
        ValueError: an unknown preset.
        ValueError: a `time_limit` that is no time, or not above 0.
    """

    help_group: ClassVar[str] = "training"

    preset: str = field(default=AUTO, metadata={"help": "auto, fast, best or paper; auto is the best in the time."})
    time_limit: str | None = field(
        default=None, metadata={"help": "In all, like 90s, 30m or 2h; by default it takes what it takes."}
    )
    text_model: str | None = field(
        default=None,
        metadata={
            "help": f"A sentence-transformers model, or 'none'; by default {TEXT_MODEL} where there are titles."
        },
    )
    text: str = field(default="{title}", metadata={"help": "Template of the text; names in braces are columns."})
    min_count: int = field(default=3, metadata={"help": "k-core: interactions every user and item must have."})
    split: str = field(default="leave-one-out", metadata={"help": "As `etegrec prepare` has it."})
    license: str = field(default="unknown", metadata={"help": "Of the data, as the Hub abbreviates it."})
    seed: int = field(default=0, metadata={"help": "Seed of all trainings."})

    def __post_init__(self):
        check_choice("preset", self.preset, CHOICES)
        _ = self.seconds  # raises what is wrong with it

    @property
    def seconds(self) -> float | None:
        """The time limit."""
        return None if self.time_limit is None else seconds_of(self.time_limit)


def seconds_of(time_limit: str) -> float:
    """Returns a time in seconds.

    >>> seconds_of("30m"), seconds_of("1.5h"), seconds_of("90s"), seconds_of("20")
    (1800.0, 5400.0, 90.0, 20.0)

    Raises:
        ValueError: it is no time, or not above 0.
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
