"""`etegrec fit`: makes a recommender from an interaction log in one command."""

import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import ClassVar

from ..data.sources import SourceOptions
from ..evaluation.metrics import OURS
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
    """The log, and the output folder."""

    help_group: ClassVar[str] = "data"
    help_all: ClassVar[tuple[str, ...]] = ("split_column", "max_malformed", "hub_config", "hub_split")

    path: str = field(metadata={"help": "The log: a file, a folder, or an id on the Hub."})
    output_dir: str = field(metadata={"help": "A new folder, or the folder of a run to resume."})
    format: str = field(default="auto", metadata={"help": "Format of the log, one of those of `etegrec prepare`."})


def run(argv: list[str]) -> None:
    classes = (FitArguments, SourceOptions, FitOptions, PrintArguments)
    arguments, reading, options, printed = parse(
        "fit", argv, *classes, examples=EXAMPLES, works_on="path", first=FIRST
    )
    with printed.apart():
        tell = partial(print, file=sys.stderr, flush=True)
        result = fit(arguments.path, arguments.output_dir, options, reading, arguments.format, tell)
    printed.show(asdict(result), lambda: print_result(result))


def print_result(result: FitResult) -> None:
    """Prints metrics, the verdict, and commands that use the model."""
    print_metrics("Test split", {OURS: result.metrics, **result.baselines})
    print(result.verdict)
    for sentence in result.tries:
        print(f"try: {sentence}")
    print(f"report: {result.report}", file=sys.stderr)
    print(f"recommend: etegrec recommend {result.model} --history ID,ID", file=sys.stderr)
