"""`etegrec fit`: makes a recommender from an interaction log in one command."""

import sys
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import ClassVar

from ..data.sources import SourceOptions
from ..training.from_log.fit import FitResult, fit
from ..training.from_log.options import FitOptions
from .parsing import parse
from .printing import PrintArguments
from .tables import print_metrics

EXAMPLES = """examples:
  etegrec fit log.csv --output-dir runs/mine
  etegrec fit log.csv --items items.csv --time-limit 30m --output-dir runs/mine
"""
FIRST = ("output_dir", "items", "preset", "time_limit", "text_model")


@dataclass
class FitArguments:
    """The log, how it is read, and the output folder."""

    help_group: ClassVar[str] = "data"
    help_all: ClassVar[tuple[str, ...]] = ("split_column", "max_malformed", "hub_config", "hub_split")

    path: str = field(metadata={"help": "The log: a file, a folder, or an id on the Hub."})
    output_dir: str = field(metadata={"help": "A new folder, or the folder of a run to resume."})
    format: str = field(default="auto", metadata={"help": "Format of the log, one of those of `etegrec prepare`."})
    items: str | None = field(default=None, metadata={"help": "A table of items, with their titles and other texts."})
    user_column: str | None = field(default=None, metadata={"help": "Column of user ids; by default it is guessed."})
    item_column: str | None = field(default=None, metadata={"help": "Column of item ids; by default it is guessed."})
    time_column: str | None = field(default=None, metadata={"help": "Column of times; by default it is guessed."})
    title_column: str | None = field(default=None, metadata={"help": "Column of titles; by default it is guessed."})
    split_column: str | None = field(
        default=None, metadata={"help": "Column of the words train, validation and test, for the split 'given'."}
    )
    separator: str | None = field(default=None, metadata={"help": "Separator of cells; by default it is guessed."})
    max_malformed: float = field(
        default=SourceOptions.max_malformed, metadata={"help": "Largest share of rows that may be unreadable."}
    )
    hub_config: str | None = field(default=None, metadata={"help": "Configuration of a dataset on the Hub."})
    hub_split: str = field(default=SourceOptions.hub_split, metadata={"help": "Split of that dataset."})

    @property
    def reading(self) -> SourceOptions:
        """Returns the options of reading the log."""
        return SourceOptions(**{option.name: getattr(self, option.name) for option in fields(SourceOptions)})


def run(argv: list[str]) -> None:
    classes = (FitArguments, FitOptions, PrintArguments)
    arguments, options, printed = parse("fit", argv, *classes, examples=EXAMPLES, works_on="path", first=FIRST)
    with printed.apart():
        tell = partial(print, file=sys.stderr, flush=True)
        result = fit(arguments.path, arguments.output_dir, options, arguments.reading, arguments.format, tell)
    printed.show(asdict(result), lambda: print_result(result))


def print_result(result: FitResult) -> None:
    """Prints metrics, the verdict, and commands that use the model."""
    print_metrics("Test split", {"this model": result.metrics, **result.baselines})
    print(result.verdict)
    for sentence in result.tries:
        print(f"try: {sentence}")
    print(f"report: {result.report}", file=sys.stderr)
    print(f"recommend: etegrec recommend {result.model} --history ID,ID", file=sys.stderr)
