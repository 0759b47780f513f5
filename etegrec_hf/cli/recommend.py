"""`etegrec recommend`: recommends for one history, or for all users of a prepared dataset, a table or a log."""

import sys
from dataclasses import dataclass, field, fields
from typing import ClassVar

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ..data.item_ids import AS_JSON, read_item_ids
from ..data.sources import AUTO, SourceOptions
from ..data.table_files import TABLE_ENDINGS
from ..data.users.histories import read_histories
from ..data.wording import counted
from ..evaluation.batch_recommend import RecommendOptions, batch_recommend, processes
from ..hub.dataset_folder import local_dataset
from ..hub.model_folder import load_recommender
from ..models.search import reading_of, search
from .model_arguments import ModelArguments
from .output_file import check_output_file
from .parsing import parse
from .printing import PrintArguments

EXAMPLES = """examples:
  etegrec recommend runs/model --history "id1,id2" --top-k 10
  etegrec recommend runs/model --histories users.jsonl --output recommendations.parquet
  etegrec recommend runs/model --histories log.csv --unknown skip --exclude sold_out.txt --output lists.csv
  etegrec recommend runs/model --data data/mine --output recommendations.parquet
  accelerate launch --config_file examples/accelerate/gpus.yaml --module etegrec_hf recommend MODEL --data ...
"""
FIRST = (
    *("history", "histories", "data", "output", "top_k", "exclude", "allowed", "on_empty", "unknown"),
    *("num_beams", "exclude_history", "rerank_weight", "transition_weight"),
)


@dataclass
class RecommendArguments(ModelArguments):
    """The recommender, the histories, and the file that is written."""

    help_group: ClassVar[str] = "output"

    history: str | None = field(
        default=None, metadata={"help": f"Item ids, oldest first, separated by commas; {AS_JSON}."}
    )
    histories: str | None = field(
        default=None,
        metadata={
            "help": "A file of many users, instead of --history: a table with the columns `user_id` and `history` (a "
            "list of item ids, oldest first), or a log with one interaction per row."
        },
    )
    data: str | None = field(default=None, metadata={"help": "A prepared dataset, instead of --history."})
    output: str | None = field(
        default=None, metadata={"help": "With --histories or --data: .parquet, .csv or .jsonl file to write."}
    )
    resume: bool = field(default=False, metadata={"help": "With --output: continue an interrupted run."})


@dataclass
class HistoriesArguments:
    """Options for reading `--histories`; all except `format` have the names of [`SourceOptions`]."""

    help_group: ClassVar[str] = "data"

    format: str = field(default=AUTO, metadata={"help": "Format of a log, as in `etegrec prepare`."})
    user_column: str | None = field(default=None, metadata={"help": "Column of user ids; guessed by default."})
    item_column: str | None = field(
        default=None, metadata={"help": "Column of item ids of a log; guessed by default."}
    )
    time_column: str | None = field(default=None, metadata={"help": "Column of times of a log; guessed by default."})
    separator: str | None = field(default=None, metadata={"help": "Separator of cells; guessed by default."})

    max_malformed: float = field(
        default=SourceOptions.max_malformed,
        metadata={"help": "Largest share of malformed rows in a log."},
    )

    @property
    def reading(self) -> SourceOptions:
        """The options for reading the file."""
        return SourceOptions(**{option.name: getattr(self, option.name) for option in fields(self)[1:]})


def run(argv: list[str]) -> None:
    classes = (RecommendArguments, RecommendOptions, HistoriesArguments, PrintArguments)
    parsed = parse("recommend", argv, *classes, examples=EXAMPLES, works_on="model", first=FIRST)
    arguments, options, file, printed = parsed
    output = arguments.output
    given = [name for name in ("history", "histories", "data") if getattr(arguments, name) is not None]
    if given == ["history"] and output is None:
        check_for_one(options)
        check_not_given("history", options, ("split", "include_target", "batch_size", "bf16", "shard_size"))
        check_not_given("history", file)
        check_not_given("history", arguments, ("resume",))
        with printed.apart():
            rows = recommend_one(arguments.model, arguments.history, options)
        printed.show(rows, lambda: print_items(rows))
    elif given in (["histories"], ["data"]) and output is not None:
        if given == ["data"]:
            check_not_given("data", file)
        else:
            check_not_given("histories", options, ("split", "include_target"))
        with printed.apart():
            counts = recommend_all(arguments, options, file)
        if processes().is_main_process:
            users, empty = counted(counts["users"], "user"), counted(counts["empty"], "of them has", "of them have")
            told = [f"{users} in {output}", f"{empty} an empty list"]
            told += [f"{counted(counts['popular'], 'has', 'have')} popular items"] if "popular" in counts else []
            printed.show(counts | {"output": output}, lambda: print("; ".join(told)))
    else:
        given += ["output"] if output is not None else []
        what = " and ".join(f"`{name}`" for name in given) or "none of `history`, `histories` and `data` is"
        raise ValueError(
            f"{what} given; give `history` "
            "alone for a list on the screen, or `output` with `histories` or `data` for a file of lists for all users."
        )


def check_for_one(options: RecommendOptions) -> None:
    """Raises a `ValueError` for options that have no effect on a single history."""
    for name in ("exclude", "allowed", "on_empty"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"`{name}` is {getattr(options, name)!r}, but has no effect on `history`; leave it out, or give "
                "`output` with `histories` or `data`. In Python, the pipeline takes it with one history, too."
            )


def check_not_given(
    source: str, options: RecommendArguments | RecommendOptions | HistoriesArguments, names: tuple[str, ...] = ()
) -> None:
    """Raises a `ValueError` if options (by default all) are given that have no effect on this source of histories."""
    for option in fields(options):
        if option.name in (names or (option.name,)) and getattr(options, option.name) != option.default:
            raise ValueError(
                f"`{option.name}` is {getattr(options, option.name)!r}, but has no effect on `{source}`; leave it out."
            )


def recommend_one(name: str, given: str, options: RecommendOptions) -> list[dict]:
    """Returns the recommended items for a history, best first, each with rank, id, title and log-probability."""
    model, tokenizer = load_recommender(name)
    titles = tokenizer.item_titles
    history = read_item_ids(given, set(tokenizer.item_ids))
    try:
        batch = tokenizer([history], return_tensors="pt", unknown=options.unknown).to(model.device)
    except ValueError as error:
        if "," not in given:
            raise
        raise ValueError(f"{error} Note that {AS_JSON}.") from error
    beam = search(reading_of(model, **batch), options)
    item_ids, scores = tokenizer.ids_of(beam.items[0]), beam.scores[0].tolist()
    return [
        {"rank": rank, "item_id": item_id, "title": titles.get(item_id, ""), "score": score}
        for rank, (item_id, score) in enumerate(zip(item_ids, scores), start=1)
    ]


def print_items(rows: list[dict]) -> None:
    """Prints one line per item, with titles if any are known."""
    titles = any(row["title"] for row in rows)
    # folded, as half an id is of no use
    texts = [Column(name, overflow="fold") for name in (["item", "title"] if titles else ["item"])]
    table = Table("rank", *texts, "log-probability")
    for row in rows:
        shown = [Text(row[name]) for name in (["item_id", "title"] if titles else ["item_id"])]  # no markup in data
        table.add_row(str(row["rank"]), *shown, f"{row['score']:.3f}")
    Console().print(table)


def recommend_all(
    arguments: RecommendArguments, options: RecommendOptions, file: HistoriesArguments
) -> dict[str, int]:
    """Writes recommendations for many users, in this process or in those of `accelerate launch`."""
    output = check_output_file(arguments.output, endings=TABLE_ENDINGS)
    assert output is not None
    processes()  # before the model is loaded, onto the process's own GPU
    model, tokenizer = load_recommender(arguments.model)
    if arguments.histories is None:
        dataset = local_dataset(str(arguments.data))
        return batch_recommend(model, tokenizer, dataset, output, options, arguments.resume)
    histories = read_histories(arguments.histories, file.reading, file.format)
    if processes().is_main_process:
        for note in histories.notes:
            print(f"note: left out: {note}", file=sys.stderr)
    return batch_recommend(model, tokenizer, histories, output, options, arguments.resume)
