"""`etegrec evaluate`: measures Recall and NDCG of a recommender and of baselines on a split."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..evaluation.choose_settings import check_chooses, choose_settings
from ..evaluation.evaluate import EvaluateOptions, evaluate
from ..evaluation.metrics import OURS
from ..evaluation.results import write_ranks
from ..hub.dataset_folder import load_prepared
from ..hub.model_folder import load_recommender, local_folder, record_evaluation, save_search_settings
from ..hub.training_record import TrainingRecord
from ..models.model_card import written_settings
from .model_arguments import ModelArguments
from .output_file import check_output_file, write_results
from .parsing import parse
from .printing import PrintArguments
from .tables import print_metrics, print_parts

EXAMPLES = """examples:
  etegrec evaluate runs/model --data data/mine --split test --output metrics.json
  etegrec evaluate runs/model --data data/mine --split validation --choose-weights true
  etegrec evaluate runs/model --data data/mine --update-card true
"""
FIRST = ("data", "split", "num_beams", "rerank_weight", "transition_weight", "output", "update_card")


@dataclass
class EvaluateArguments(ModelArguments):
    """The recommender, the dataset, and where results are written."""

    help_group: ClassVar[str] = "output"

    data: str = field(metadata={"help": "The prepared dataset that the model was trained on."})
    output: str | None = field(default=None, metadata={"help": "JSON file to write."})
    ranks: str | None = field(
        default=None,
        metadata={"help": "Parquet file to write, with each user's id and the rank of the target (0: not listed)."},
    )
    update_card: bool = field(
        default=False,
        metadata={
            "help": "Write the results into the model's card and training record; for a dataset on the Hub, into "
            ".eval_results too."
        },
    )
    choose_weights: bool = field(
        default=False,
        metadata={
            "help": "With --split validation: choose the weights of transition votes and re-ranking, save them as the "
            "model's own search settings, and write the results with these settings into the card."
        },
    )


def run(argv: list[str]) -> None:
    classes = (EvaluateArguments, EvaluateOptions, PrintArguments)
    arguments, options, printed = parse("evaluate", argv, *classes, examples=EXAMPLES, works_on="model", first=FIRST)
    with printed.apart():
        output = check_output_file(arguments.output)
        ranks = check_output_file(arguments.ranks, "ranks", (".parquet",))
        for name in ("update_card", "choose_weights"):
            if getattr(arguments, name) and not Path(arguments.model).is_dir():
                raise ValueError(f"`{name}` needs a folder, and {arguments.model!r} isn't one; name a local copy.")
        if arguments.choose_weights:
            check_chooses(options)
        model, tokenizer = load_recommender(arguments.model)
        data = load_prepared(arguments.data)
        tried = []
        if arguments.choose_weights:
            chosen = choose_settings(model, tokenizer, data, options)
            tried = chosen.tried
            model.config.search_settings = save_search_settings(arguments.model, chosen.settings).search_settings
        evaluation = evaluate(model, tokenizer, data, options)
        if arguments.update_card or arguments.choose_weights:
            dataset = None if Path(arguments.data).is_dir() else arguments.data
            record_evaluation(arguments.model, model.config, evaluation, dataset)
        seeds = TrainingRecord.read(local_folder(arguments.model)).seeds()
        figures = evaluation.figures() | {"seeds": seeds}
        results = {figures.pop("split"): figures.pop("metrics"), **figures}
        if tried:
            results |= {"search_settings": model.config.search_settings, "tried": tried}
        if ranks is not None:
            write_ranks(ranks, data.split(options.split).user_ids, evaluation.ranks)
            results["ranks"] = os.path.relpath(ranks, output.parent if output else ".")  # from where they are read
        write_results(output, results)
    title = f"{arguments.data}, {options.split}, seen items {evaluation.protocol['seen_items']}"
    rows = {OURS: evaluation.metrics | evaluation.spread, **evaluation.baselines}

    def tables() -> None:
        if tried:
            print_metrics("weights of votes and of re-ranking", {weights_of(one): one for one in tried})
            print(f"Saved with the model: {written_settings(model.config.search_settings)}")
        print_metrics(title, rows)
        print_parts(evaluation.parts)

    printed.show(results, tables)


def weights_of(tried: dict[str, float]) -> str:
    """Returns the name of a pair of weights in a table."""
    return f"{tried['transition_weight']:g}, {tried['rerank_weight']:g}"
