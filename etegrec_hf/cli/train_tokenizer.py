"""`etegrec train-tokenizer`: trains the RQ-VAE on a prepared dataset's item embeddings."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..hub.dataset_folder import load_with_embeddings
from ..training.base.checkpoints import check_run_folder
from ..training.base.recording import record_of
from ..training.item_tokenizer.arguments import RQVAETrainingArguments
from ..training.item_tokenizer.fit import train_item_tokenizer, write_diagnostics
from ..training.item_tokenizer.options import ItemTokenizerOptions
from .parsing import parse
from .preset import PresetArguments
from .printing import PrintArguments
from .run_folder import FIRST_OF_A_RUN, RunArguments, print_report
from .tables import print_figures

EXAMPLES = """examples:
  etegrec train-tokenizer data/mine --output-dir runs/tokenizer
"""
FIRST = ("preset", *FIRST_OF_A_RUN, "num_levels", "codebook_size")


@dataclass
class TokenizerArguments(RunArguments, PresetArguments):
    """The dataset whose item embeddings are trained on."""

    help_group: ClassVar[str] = "data"

    data: str = field(metadata={"help": "A prepared dataset with embeddings."})
    map_embeddings: bool = field(
        default=False,
        metadata={"help": "Read embeddings from disk when they are needed, instead of holding them in memory."},
    )


def run(argv: list[str]) -> None:
    classes = (TokenizerArguments, ItemTokenizerOptions, RQVAETrainingArguments, PrintArguments)
    arguments, options, training, printed = parse(
        "train-tokenizer", argv, *classes, examples=EXAMPLES, works_on="data", first=FIRST
    )
    with printed.apart():
        figures = train_tokenizer(arguments, options, training)
    printed.show(figures, lambda: print_figures(training.output_dir, figures))


def train_tokenizer(
    arguments: TokenizerArguments, options: ItemTokenizerOptions, training: RQVAETrainingArguments
) -> dict[str, float]:
    """Trains an RQ-VAE, prints the path of its report, and returns the diagnostics."""
    check_run_folder(training, arguments.resume)
    data, embeddings = load_with_embeddings(arguments.data, map_embeddings=arguments.map_embeddings)
    trainer = train_item_tokenizer(embeddings, options, training, record_of(data))
    print_report(trainer)
    return write_diagnostics(trainer)
