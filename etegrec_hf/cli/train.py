"""`etegrec train`: trains recommender and item tokenizer in turns."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..data.hub_ids import at_revision
from ..hub.dataset_folder import load_with_embeddings, training_files
from ..hub.model_folder import load_model
from ..models.modeling_rqvae import RQVAEModel
from ..training.base.checkpoints import check_run_folder
from ..training.base.recording import record_of
from ..training.recommender.arguments import ETEGRecTrainingArguments
from ..training.recommender.fit import RecommenderData, check_transitions, train_recommender
from ..training.recommender.options import RecommenderOptions
from ..training.recommender.trainer import ETEGRecTrainer
from .model_arguments import REVISION_HELP
from .parsing import parse
from .preset import PresetArguments
from .run_folder import FIRST_OF_A_RUN, RecommenderRunArguments, note_other_embedding, print_report

EXAMPLES = """examples:
  etegrec train data/mine --tokenizer runs/tokenizer --output-dir runs/model
  etegrec train data/mine --tokenizer runs/tokenizer --output-dir runs/tiger --config examples/configs/tiger.yaml
"""
FIRST = ("tokenizer", "preset", *FIRST_OF_A_RUN)


@dataclass
class TrainArguments(RecommenderRunArguments, PresetArguments):
    """The dataset, and the item tokenizer that training starts from."""

    help_group: ClassVar[str] = "data"

    data: str = field(metadata={"help": "A prepared dataset with embeddings."})
    tokenizer: str = field(metadata={"help": "Output folder of train-tokenizer, or a Hub id."})
    revision: str | None = field(default=None, metadata={"help": REVISION_HELP.format("tokenizer")})
    map_embeddings: bool = field(
        default=False,
        metadata={"help": "Read embeddings from disk when they are needed; memory and model don't hold them."},
    )

    def __post_init__(self):
        self.tokenizer, self.revision = at_revision(self.tokenizer, self.revision), None


def run(argv: list[str]) -> None:
    classes = (TrainArguments, RecommenderOptions, ETEGRecTrainingArguments)
    train(*parse("train", argv, *classes, examples=EXAMPLES, works_on="data", first=FIRST))


def train(
    arguments: TrainArguments, options: RecommenderOptions, training: ETEGRecTrainingArguments
) -> ETEGRecTrainer:
    """Loads dataset and item tokenizer, trains a recommender, and prints the path of its report."""
    check_transitions(options, arguments.stream)
    check_run_folder(training, arguments.resume)
    prepared, _ = load_with_embeddings(arguments.data, arguments.stream, arguments.map_embeddings)
    note_other_embedding(arguments.tokenizer, prepared)
    files = training_files(arguments.data) if arguments.stream else None
    data = RecommenderData(prepared, files, arguments.eval_samples, arguments.map_embeddings)
    item_tokenizer = load_model(RQVAEModel, arguments.tokenizer)
    trainer = train_recommender(item_tokenizer, data, options, training, record_of(prepared, arguments.tokenizer))
    print_report(trainer)
    return trainer
