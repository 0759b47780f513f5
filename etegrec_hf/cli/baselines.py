"""`etegrec baselines`: measures simpler systems on a split."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..data.checks import check_choice
from ..data.named_embeddings import embedding_names, read_embedding
from ..data.prepared import PreparedDataset
from ..data.splits import SPLIT_NAMES
from ..evaluation.baselines import baseline_lists
from ..evaluation.collaborative import load_collaborative_model
from ..evaluation.memorisation import memorised_targets, metrics_by_part
from ..evaluation.metrics import metrics_of_systems
from ..evaluation.protocol import protocol_of
from ..hub.dataset_folder import local_dataset
from .output_file import check_output_file, write_results
from .parsing import parse
from .printing import PrintArguments
from .tables import print_metrics, print_parts

EXAMPLES = """examples:
  etegrec baselines data/mine
  etegrec baselines data/mine --collaborative-model runs/collaborative --output baselines.json
"""


@dataclass
class BaselineArguments:
    """The dataset, and how baselines are measured."""

    data: str = field(metadata={"help": "A prepared dataset; each of its named embeddings gets a row."})
    split: str = field(default="test", metadata={"help": "validation or test."})
    collaborative_model: str | None = field(
        default=None, metadata={"help": "Output folder of `etegrec embed --collaborative`, for the SASRec row."}
    )
    exclude_seen: bool = field(
        default=False, metadata={"help": "Leave items that the user had before out of the lists."}
    )
    output: str | None = field(default=None, metadata={"help": "JSON file to write."})


def run(argv: list[str]) -> None:
    classes = (BaselineArguments, PrintArguments)
    arguments, printed = parse("baselines", argv, *classes, examples=EXAMPLES, works_on="data")
    with printed.apart():
        output = check_output_file(arguments.output)
        results = measure_baselines(arguments)
        write_results(output, results)
    title = f"{arguments.data}, {arguments.split}, seen items {results['protocol']['seen_items']}"

    def tables() -> None:
        print_metrics(title, results["baselines"])
        print_parts(results["parts"])

    printed.show(results, tables)
    if arguments.collaborative_model is None:
        print(
            "note: there is no row for SASRec; train its model with `etegrec embed --collaborative`, and give the "
            "folder as --collaborative-model",
            file=sys.stderr,
        )


def measure_baselines(arguments: BaselineArguments) -> dict:
    """Returns metrics of every baseline that the dataset has data for, for all users and for parts of them."""
    check_choice("split", arguments.split, SPLIT_NAMES[1:])
    folder = Path(local_dataset(arguments.data))
    data = PreparedDataset.load(folder)
    embeddings: dict[str, np.ndarray] = {
        name: read_embedding(folder, name, data.item_ids).values for name in embedding_names(folder)
    }
    model = arguments.collaborative_model and load_collaborative_model(arguments.collaborative_model, data)
    split = data.split(arguments.split)
    lists = baseline_lists(data, split, embeddings, model or None, arguments.exclude_seen)
    return {
        "baselines": metrics_of_systems(lists, split.targets),
        "parts": metrics_by_part(memorised_targets(data, split), split.targets, lists),
        "protocol": protocol_of(data, arguments.split, arguments.exclude_seen),
    }
