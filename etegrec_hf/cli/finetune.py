"""`etegrec finetune`: the recommender alone, on frozen codes."""

from dataclasses import dataclass, field

from transformers import set_seed

from ..data.prepared import PreparedDataset
from ..hub.model_folder import load_recommender
from ..models.tokenization_etegrec import ETEGRecTokenizer
from ..training.arguments import FinetuningArguments
from ..training.trainer import ETEGRecTrainer
from .parsing import parse
from .run_folder import checkpoint_of, record_of
from .train import fit

EXAMPLES = """examples:
  etegrec finetune --model runs/model --data data/mine --output-dir runs/finetuned
"""


@dataclass
class FinetuneArguments:
    """What is finetuned on what."""

    model: str = field(metadata={"help": "A trained recommender: a folder or a Hub id."})
    data: str = field(metadata={"help": "The prepared dataset that it was trained on."})
    eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on so many users while training."})
    resume: bool = field(default=False, metadata={"help": "Go on from the newest checkpoint in the output folder."})


def run(argv: list[str]) -> None:
    finetune(*parse("finetune", argv, FinetuneArguments, FinetuningArguments, examples=EXAMPLES))


def finetune(arguments: FinetuneArguments, training: FinetuningArguments) -> ETEGRecTrainer:
    """Finetunes a trained recommender, and saves the best."""
    checkpoint = checkpoint_of(training, arguments.resume)
    data = PreparedDataset.load(arguments.data)
    model, tokenizer = load_recommender(arguments.model)
    check_same_items(tokenizer, data, arguments.model)
    set_seed(training.seed)
    return fit(model, training, data, record_of(data, arguments.model), arguments.eval_samples, checkpoint)


def check_same_items(tokenizer: ETEGRecTokenizer, data: PreparedDataset, model_folder: str) -> None:
    """Raises a `ValueError` if dataset and model number their items differently."""
    if tokenizer.item_ids != data.item_ids:
        raise ValueError(
            f"the dataset's {data.n_items} items are not the {len(tokenizer.item_ids)} that "
            f"{model_folder!r} was trained on, "
            "in this order; use the dataset of that run."
        )
