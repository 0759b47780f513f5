"""`etegrec recommend`: items for one history, or for all users of a prepared dataset."""

from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..evaluation.batch_recommend import RecommendOptions, batch_recommend, processes
from ..hub.dataset_folder import local_dataset
from ..hub.model_folder import load_recommender
from .output_file import check_output_file
from .parsing import parse

EXAMPLES = """examples:
  etegrec recommend --model runs/model --history "id1,id2" --top-k 10
  etegrec recommend --model runs/model --data data/mine --output recommendations.parquet
  accelerate launch --config_file examples/accelerate/gpus.yaml --module etegrec_hf recommend --model ... --data ...
"""


@dataclass
class RecommendArguments:
    """Whom to recommend to."""

    model: str = field(metadata={"help": "A trained recommender: a folder or a Hub id."})
    history: str | None = field(default=None, metadata={"help": "Item ids, oldest first, with commas between."})
    data: str | None = field(default=None, metadata={"help": "A prepared dataset, instead of --history."})
    output: str | None = field(default=None, metadata={"help": "With --data: parquet file to write."})
    resume: bool = field(default=False, metadata={"help": "With --data: go on where an interrupted run stopped."})


def run(argv: list[str]) -> None:
    arguments, options = parse("recommend", argv, RecommendArguments, RecommendOptions, examples=EXAMPLES)
    history, data, output = arguments.history, arguments.data, arguments.output
    if history is not None and data is None and output is None:
        recommend_one(arguments.model, history, options)
    elif history is None and data is not None and output is not None:
        recommend_all(arguments.model, data, output, options, arguments.resume)
    else:
        given = [name for name in ("history", "data", "output") if getattr(arguments, name) is not None]
        raise ValueError(
            f"{' and '.join(f'`{name}`' for name in given) or 'neither `history` nor `data`'} given; give either "
            "`history`, for a list on the screen, or `data` and `output`, for a file of lists for all of its users."
        )


def recommend_one(name: str, given: str, options: RecommendOptions) -> None:
    """Prints what is recommended for a history."""
    history = [item_id.strip() for item_id in given.split(",") if item_id.strip()]
    model, tokenizer = load_recommender(name)
    titles = tokenizer.item_titles
    batch = tokenizer([history], return_tensors="pt", unknown=options.unknown).to(model.device)
    items, scores = model.recommend(
        **batch,
        top_k=options.top_k,
        num_beams=max(options.num_beams, options.top_k),
        exclude_history=options.exclude_history,
    )
    table = Table("rank", "item", *(["title"] if titles else []), "log-probability")
    for rank, (item_id, score) in enumerate(zip(tokenizer.ids_of(items[0]), scores[0].tolist()), start=1):
        shown = [Text(text) for text in (item_id, *([titles.get(item_id, "")] if titles else []))]  # no markup in data
        table.add_row(str(rank), *shown, f"{score:.3f}")
    Console().print(table)


def recommend_all(name: str, data: str, output: str, options: RecommendOptions, resume: bool) -> None:
    """Writes what is recommended for a dataset's users, in this process or those of `accelerate launch`."""
    check_output_file(output)
    state = processes()  # before the model is loaded, onto the process's own GPU
    model, tokenizer = load_recommender(name)
    counts = batch_recommend(model, tokenizer, local_dataset(data), output, options, resume)
    if state.is_main_process:
        print(f"{counts['users']} users in {output}; {counts['empty']} of them have an empty list")
