"""`etegrec evaluate`: Recall and NDCG of a recommender and of the baselines on a split."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..evaluation.evaluate import EvaluateOptions, evaluate
from ..evaluation.results import write_ranks
from ..hub.dataset_folder import load_prepared
from ..hub.model_folder import load_recommender, local_folder, record_evaluation
from ..hub.training_record import TrainingRecord
from .model_arguments import ModelArguments
from .output_file import check_output_file, write_results
from .parsing import parse
from .printing import PrintArguments
from .tables import print_metrics, print_parts

EXAMPLES = """examples:
  etegrec evaluate runs/model --data data/mine --split test --output metrics.json
  etegrec evaluate runs/model --data data/mine --update-card true
"""
FIRST = ("data", "split", "num_beams", "rerank_weight", "transition_weight", "output", "update_card")


@dataclass
class EvaluateArguments(ModelArguments):
    """Whose results go where."""

    help_group: ClassVar[str] = "output"

    data: str = field(metadata={"help": "The prepared dataset that it was trained on."})
    output: str | None = field(default=None, metadata={"help": "JSON file to write."})
    ranks: str | None = field(
        default=None,
        metadata={"help": "Parquet file to write, of each user's id and the rank of the target (0: not listed)."},
    )
    update_card: bool = field(
        default=False, metadata={"help": "Write the results into the model's card and training record."}
    )


def run(argv: list[str]) -> None:
    classes = (EvaluateArguments, EvaluateOptions, PrintArguments)
    arguments, options, printed = parse("evaluate", argv, *classes, examples=EXAMPLES, works_on="model", first=FIRST)
    with printed.apart():
        output = check_output_file(arguments.output)
        ranks = check_output_file(arguments.ranks, "ranks", (".parquet",))
        if arguments.update_card and not Path(arguments.model).is_dir():
            raise ValueError(f"`update_card` needs a folder, and {arguments.model!r} isn't one; name a local copy.")
        model, tokenizer = load_recommender(arguments.model)
        data = load_prepared(arguments.data)
        evaluation = evaluate(model, tokenizer, data, options)
        if arguments.update_card:
            record_evaluation(arguments.model, model.config, evaluation)
        seeds = TrainingRecord.read(local_folder(arguments.model)).seeds()
        figures = evaluation.figures() | {"seeds": seeds}
        results = {figures.pop("split"): figures.pop("metrics"), **figures}
        if ranks is not None:
            write_ranks(ranks, data.split(options.split).user_ids, evaluation.ranks)
            results["ranks"] = os.path.relpath(ranks, output.parent if output else ".")  # from where they are read
        write_results(output, results)
    title = f"{arguments.data}, {options.split}, seen items {evaluation.protocol['seen_items']}"
    rows = {"this model": evaluation.metrics | evaluation.spread, **evaluation.baselines}

    def tables() -> None:
        print_metrics(title, rows)
        print_parts(evaluation.parts)

    printed.show(results, tables)
