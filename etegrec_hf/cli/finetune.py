"""`etegrec finetune`: the recommender alone, on frozen codes."""

from dataclasses import dataclass, field

import torch
from transformers import set_seed

from ..data.prepared import PreparedDataset
from ..hub.dataset_folder import training_files
from ..hub.model_folder import load_recommender
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.tokenization_etegrec import ETEGRecTokenizer
from ..training.recommender.arguments import FinetuningArguments
from ..training.recommender.trainer import ETEGRecTrainer
from .parsing import parse
from .run_folder import checkpoint_of, load_prepared, record_of
from .train import fit

EXAMPLES = """examples:
  etegrec finetune --model runs/alternating --data data/mine --output-dir runs/model
  etegrec finetune --model user/published --data data/newer --add-items true --output-dir runs/newer
"""


@dataclass
class FinetuneArguments:
    """What is finetuned on what."""

    model: str = field(metadata={"help": "A trained recommender: a folder or a Hub id."})
    data: str = field(metadata={"help": "A prepared dataset: the model's own, or a new log of its items."})
    add_items: bool = field(
        default=False,
        metadata={"help": "Add the items that only the dataset has, by its embeddings (made like the model's)."},
    )
    stream: bool = field(
        default=False,
        metadata={"help": "Read training sequences as they are needed instead of holding them in memory."},
    )
    eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on so many users while training."})
    resume: bool = field(default=False, metadata={"help": "Go on from the newest checkpoint in the output folder."})


def run(argv: list[str]) -> None:
    finetune(*parse("finetune", argv, FinetuneArguments, FinetuningArguments, examples=EXAMPLES))


def finetune(arguments: FinetuneArguments, training: FinetuningArguments) -> ETEGRecTrainer:
    """Finetunes a trained recommender, and saves the best."""
    checkpoint = checkpoint_of(training, arguments.resume)
    data = load_prepared(arguments.data, arguments.stream)
    model, tokenizer = load_recommender(arguments.model)
    record = record_of(data, arguments.model)
    if arguments.add_items:
        add_items(model, tokenizer, data)
    set_seed(training.seed)
    titles = tokenizer.item_titles | data.title_of
    files = training_files(arguments.data) if arguments.stream else None
    return fit(
        model, training, of_catalogue(data, tokenizer), record, arguments.eval_samples, checkpoint, titles, files
    )


def add_items(model: ETEGRecForConditionalGeneration, tokenizer: ETEGRecTokenizer, data: PreparedDataset) -> None:
    """Adds the items that only the dataset has to model and tokenizer.

    Raises:
        ValueError: the dataset has no embeddings, or [`add_items`] of the model raises.
    """
    if data.embeddings is None:
        raise ValueError(
            "`add_items` needs the new items' embeddings, and the dataset has none; prepare it with some."
        )
    known = set(tokenizer.item_ids)
    rows = [row for row, item_id in enumerate(data.item_ids) if item_id not in known]
    if rows:
        model.add_items([data.item_ids[row] for row in rows], torch.from_numpy(data.embeddings[rows]), tokenizer)


def of_catalogue(data: PreparedDataset, tokenizer: ETEGRecTokenizer) -> PreparedDataset:
    """The dataset over the model's catalogue, which may be larger.

    Raises:
        ValueError: the dataset has items that the model doesn't know.
    """
    if tokenizer.item_ids == data.item_ids:
        return data
    try:
        return data.with_items(tokenizer.item_ids)
    except ValueError as error:
        raise ValueError(
            f"the model doesn't know all items: {error} Use the dataset that it was trained on, or "
            "`etegrec finetune --add-items true`."
        ) from error
