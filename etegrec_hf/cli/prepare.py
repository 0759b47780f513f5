"""`etegrec prepare`: turns an interaction log into a prepared dataset."""

import sys
from dataclasses import dataclass, field
from typing import ClassVar

from ..data.prepare import note_of_order, prepare
from ..data.sources import AUTO, READERS, SourceOptions
from ..data.splits import SPLITTERS
from .parsing import parse
from .printing import PrintArguments
from .tables import print_figures

EXAMPLES = """examples:
  etegrec prepare log.csv --output-dir data/mine --embedding cooccurrence
  etegrec prepare Instruments.inter.json --output-dir data/instruments
  etegrec prepare reviews/Office_Products_5.json.gz --format amazon2018 --output-dir data/office
  etegrec prepare user/log --user-column who --item-column what --output-dir data/mine
"""
FIRST = (
    *("format", "output_dir", "user_column", "item_column", "time_column", "title_column", "items"),
    *("embedding", "min_count", "split", "max_history"),
)


@dataclass
class PrepareArguments:
    """The log, how it is filtered and split, and the output folder."""

    help_group: ClassVar[str] = "data"

    path: str = field(metadata={"help": "The log: a file, a folder, or an id on the Hub.", "metavar": "LOG"})
    output_dir: str = field(metadata={"help": "A new folder."})
    format: str = field(
        default=AUTO, metadata={"help": f"Format of the log; by default it is recognised; or {', '.join(READERS)}."}
    )
    min_count: int = field(default=5, metadata={"help": "Leave out users and items with fewer interactions (k-core)."})
    split: str = field(default="leave-one-out", metadata={"help": f"{', '.join(SPLITTERS)}."})
    duplicates: str = field(
        default="exact",
        metadata={"help": "Dropped repeats: 'exact' (same user, item and time), 'item' (same user and item), 'none'."},
    )
    embedding: list[str] | None = field(
        default=None,
        metadata={"help": "'cooccurrence', or .npy, .safetensors or .parquet files; several are concatenated."},
    )
    normalize: str = field(default="none", metadata={"help": "How each embedding is scaled: none, l2 or standardize."})
    max_history: int = field(default=50, metadata={"help": "How many items histories keep, the last ones."})
    license: str = field(default="unknown", metadata={"help": "License of the data, as the Hub abbreviates it."})
    seed: int = field(default=0, metadata={"help": "Random seed of the co-occurrence embedding."})


def run(argv: list[str]) -> None:
    classes = (PrepareArguments, SourceOptions, PrintArguments)
    args, options, printed = parse("prepare", argv, *classes, examples=EXAMPLES, works_on="path", first=FIRST)
    with printed.apart():
        statistics = prepare_dataset(args, options)
    malformed, notes = statistics.pop("malformed"), statistics.pop("notes")
    printed.show(statistics, lambda: print_figures(args.output_dir, statistics))
    order = note_of_order(statistics)
    if order is not None:
        print(f"note: {order}", file=sys.stderr)
    for note in malformed:
        print(f"note: left out: {note}", file=sys.stderr)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    no_texts = statistics["items_without_texts"] == statistics["items"]
    if no_texts and (notes or "items_in_file_of_texts" not in statistics):  # a log without texts needs no note
        statistics |= {"items_without_texts": 0, "items_without_title": 0}
    for name, remedy in NOTES.items():
        if statistics.get(name):
            print(f"note: {name.replace('_', ' ')}: {statistics[name]}{remedy}", file=sys.stderr)


def prepare_dataset(args: PrepareArguments, options: SourceOptions) -> dict:
    """Prepares the log as the arguments say, and returns the dataset's statistics."""
    return prepare(
        args.path,
        args.output_dir,
        args.format,
        min_count=args.min_count,
        split=args.split,
        duplicates=args.duplicates,
        embedding=args.embedding,
        normalize=args.normalize,
        options=options,
        max_history=args.max_history,
        license=args.license,
        seed=args.seed,
    )


# Statistics that are printed as notes, each with a reason or remedy
NOTES = {
    "items_with_zero_embedding": " (they are too rare in training sequences)",
    "duplicates_dropped": " (--duplicates none keeps them)",
    "users_below_3_interactions_dropped": "",
    "users_below_min_count_dropped": " (--min-count)",
    "items_dropped": " (--min-count)",
    "users_sorted_by_time": " (their rows were in another order)",
    "items_without_texts": " (they aren't in the file of texts; text embeddings will be zero)",
    "items_without_title": " (their embeddings will be zero if only titles are embedded)",
}
