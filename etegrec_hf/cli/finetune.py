"""`etegrec finetune`: trains only the recommender, on fixed codes."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..data.new_items import add_items_of
from ..hub.dataset_folder import load_prepared, training_files
from ..hub.model_folder import load_recommender
from ..training.base.checkpoints import check_run_folder
from ..training.base.recording import record_of
from ..training.recommender.arguments import FinetuningArguments
from ..training.recommender.fit import RecommenderData, finetune_recommender
from ..training.recommender.trainer import ETEGRecTrainer
from .model_arguments import ModelArguments
from .parsing import parse
from .preset import PresetArguments
from .run_folder import FIRST_OF_A_RUN, RecommenderRunArguments, print_report

EXAMPLES = """examples:
  etegrec finetune runs/alternating --data data/mine --output-dir runs/model
  etegrec finetune user/published --data data/newer --add-items true --output-dir runs/newer
"""
FIRST = ("data", "preset", *FIRST_OF_A_RUN)


@dataclass
class FinetuneArguments(ModelArguments, RecommenderRunArguments, PresetArguments):
    """The recommender, and the dataset that it is finetuned on."""

    help_group: ClassVar[str] = "data"

    data: str = field(metadata={"help": "A prepared dataset: the model's own, or a newer log of the same items."})
    add_items: bool = field(
        default=False,
        metadata={"help": "Add items that only the dataset has, by embeddings made like the model's."},
    )


def run(argv: list[str]) -> None:
    classes = (FinetuneArguments, FinetuningArguments)
    finetune(*parse("finetune", argv, *classes, examples=EXAMPLES, works_on="model", first=FIRST))


def finetune(arguments: FinetuneArguments, training: FinetuningArguments) -> ETEGRecTrainer:
    """Loads a recommender, finetunes it, and prints where the report is."""
    check_run_folder(training, arguments.resume)
    prepared = load_prepared(arguments.data, arguments.stream)
    model, tokenizer = load_recommender(arguments.model)
    record = record_of(prepared, arguments.model)
    if arguments.add_items:
        add_items_of(prepared, model, tokenizer)
    files = training_files(arguments.data) if arguments.stream else None
    data = RecommenderData(prepared, files, arguments.eval_samples)
    trainer = finetune_recommender(model, tokenizer, data, training, record)
    print_report(trainer)
    return trainer
