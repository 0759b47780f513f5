"""`etegrec prepare`: an interaction log becomes a prepared dataset."""

import sys
from dataclasses import dataclass, field

from ..data.prepare import prepare
from ..data.sources import ROW_ORDER, Columns
from .parsing import parse
from .tables import print_figures

EXAMPLES = """examples:
  etegrec prepare log.csv --format csv --output-dir data/mine --embedding cooccurrence
  etegrec prepare Instruments.inter.json --format letter --output-dir data/instruments --embedding cooccurrence
"""


@dataclass
class PrepareArguments:
    """Arguments of the command."""

    path: str = field(metadata={"help": "The log: a file, or a folder for letter and parquet. May stand first."})
    format: str = field(metadata={"help": "letter, csv, jsonl or parquet."})
    output_dir: str = field(metadata={"help": "A new folder."})
    min_count: int = field(default=5, metadata={"help": "k-core: interactions every user and item must have."})
    split: str = field(default="leave-one-out", metadata={"help": "leave-one-out or time."})
    embedding: str | None = field(
        default=None, metadata={"help": "'cooccurrence', or an .npy, .safetensors or .parquet file."}
    )
    user_column: str = field(default="user_id", metadata={"help": "Column of user ids."})
    item_column: str = field(default="item_id", metadata={"help": "Column of item ids."})
    time_column: str | None = field(
        default=None,
        metadata={"help": "Column of timestamps; by default 'timestamp' where there is one, else rows are in order."},
    )
    max_history: int = field(default=50, metadata={"help": "Items that histories keep, the last ones."})
    seed: int = field(default=0, metadata={"help": "Seed of the co-occurrence embedding."})


def run(argv: list[str]) -> None:
    if argv and not argv[0].startswith("-"):
        argv = ["--path", *argv]
    (args,) = parse("prepare", argv, PrepareArguments, examples=EXAMPLES)
    statistics = prepare(
        args.path,
        args.format,
        args.output_dir,
        min_count=args.min_count,
        split=args.split,
        embedding=args.embedding,
        columns=Columns(args.user_column, args.item_column, args.time_column),
        max_history=args.max_history,
        seed=args.seed,
    )
    print_figures(args.output_dir, statistics)
    if args.format != "letter" and statistics["order"] == ROW_ORDER:
        print(
            "note: no time column: the rows are taken to be in order; else name one with --time-column",
            file=sys.stderr,
        )
    for name in (
        "items_with_zero_embedding",
        "users_below_3_interactions_dropped",
        "users_below_min_count_dropped",
        "items_dropped",
    ):
        if statistics.get(name):
            print(f"note: {name.replace('_', ' ')}: {statistics[name]}", file=sys.stderr)
