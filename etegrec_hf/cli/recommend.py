"""`etegrec recommend`: items for one history, or for all users of a prepared dataset."""

from dataclasses import dataclass, field
from typing import ClassVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..data.item_ids import AS_JSON, read_item_ids
from ..data.table_files import TABLE_ENDINGS
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
  etegrec recommend runs/model --data data/mine --output recommendations.parquet
  accelerate launch --config_file examples/accelerate/gpus.yaml --module etegrec_hf recommend MODEL --data ...
"""
FIRST = ("history", "data", "output", "top_k", "num_beams", "exclude_history", "rerank_weight", "transition_weight")


@dataclass
class RecommendArguments(ModelArguments):
    """Whom to recommend to."""

    help_group: ClassVar[str] = "output"

    history: str | None = field(
        default=None, metadata={"help": f"Item ids, oldest first, with commas between; {AS_JSON}."}
    )
    data: str | None = field(default=None, metadata={"help": "A prepared dataset, instead of --history."})
    output: str | None = field(default=None, metadata={"help": "With --data: .parquet, .csv or .jsonl file to write."})
    resume: bool = field(default=False, metadata={"help": "With --data: go on where an interrupted run stopped."})


def run(argv: list[str]) -> None:
    classes = (RecommendArguments, RecommendOptions, PrintArguments)
    arguments, options, printed = parse("recommend", argv, *classes, examples=EXAMPLES, works_on="model", first=FIRST)
    history, data, output = arguments.history, arguments.data, arguments.output
    if history is not None and data is None and output is None:
        with printed.apart():
            rows = recommend_one(arguments.model, history, options)
        printed.show(rows, lambda: print_items(rows))
    elif history is None and data is not None and output is not None:
        with printed.apart():
            counts = recommend_all(arguments.model, data, output, options, arguments.resume)
        if processes().is_main_process:
            summary = f"{counts['users']} users in {output}; {counts['empty']} of them have an empty list"
            printed.show(counts | {"output": output}, lambda: print(summary))
    else:
        given = [name for name in ("history", "data", "output") if getattr(arguments, name) is not None]
        raise ValueError(
            f"{' and '.join(f'`{name}`' for name in given) or 'neither `history` nor `data`'} given; give either "
            "`history`, for a list on the screen, or `data` and `output`, for a file of lists for all of its users."
        )


def recommend_one(name: str, given: str, options: RecommendOptions) -> list[dict]:
    """What is recommended for a history, best first: of each item its rank, id, title and log-probability."""
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
    """Prints a line an item, with titles where there are any."""
    titles = any(row["title"] for row in rows)
    table = Table("rank", "item", *(["title"] if titles else []), "log-probability")
    for row in rows:
        shown = [Text(row[name]) for name in (["item_id", "title"] if titles else ["item_id"])]  # no markup in data
        table.add_row(str(row["rank"]), *shown, f"{row['score']:.3f}")
    Console().print(table)


def recommend_all(name: str, data: str, output: str, options: RecommendOptions, resume: bool) -> dict[str, int]:
    """Writes what is recommended for a dataset's users, in this process or those of `accelerate launch`."""
    check_output_file(output, endings=TABLE_ENDINGS)
    processes()  # before the model is loaded, onto the process's own GPU
    model, tokenizer = load_recommender(name)
    return batch_recommend(model, tokenizer, local_dataset(data), output, options, resume)
