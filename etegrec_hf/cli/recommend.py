"""`etegrec recommend`: items for one history."""

from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..hub.model_folder import load_recommender
from .parsing import parse

EXAMPLES = """examples:
  etegrec recommend --model runs/model --history "id1,id2" --top-k 10
"""


@dataclass
class RecommendArguments:
    """Whom to recommend to."""

    model: str = field(metadata={"help": "A trained recommender: a folder or a Hub id."})
    history: str = field(metadata={"help": "Item ids, oldest first, with commas between."})
    top_k: int = field(default=10, metadata={"help": "Items to recommend."})
    num_beams: int = field(default=20, metadata={"help": "Beams; at least top_k."})
    exclude_history: bool = field(default=False, metadata={"help": "Recommend no item of the history."})
    unknown: str = field(default="error", metadata={"help": "'skip' leaves out items that the model doesn't know."})


def run(argv: list[str]) -> None:
    (arguments,) = parse("recommend", argv, RecommendArguments, examples=EXAMPLES)
    history = [item_id.strip() for item_id in arguments.history.split(",") if item_id.strip()]
    model, tokenizer = load_recommender(arguments.model)
    titles = tokenizer.item_titles
    batch = tokenizer([history], return_tensors="pt", unknown=arguments.unknown).to(model.device)
    items, scores = model.recommend(
        **batch,
        top_k=arguments.top_k,
        num_beams=max(arguments.num_beams, arguments.top_k),
        exclude_history=arguments.exclude_history,
    )
    table = Table("rank", "item", *(["title"] if titles else []), "log-probability")
    for rank, (item_id, score) in enumerate(zip(tokenizer.ids_of(items[0]), scores[0].tolist()), start=1):
        shown = [Text(text) for text in (item_id, *([titles.get(item_id, "")] if titles else []))]  # no markup in data
        table.add_row(str(rank), *shown, f"{score:.3f}")
    Console().print(table)
