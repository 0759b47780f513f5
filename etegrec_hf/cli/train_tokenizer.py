"""`etegrec train-tokenizer`: pre-trains the RQ-VAE on a prepared dataset's item embeddings."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from transformers import set_seed

from ..evaluation.code_diagnostics import tokenizer_diagnostics
from ..models.configuration_rqvae import RQVAEConfig
from ..models.modeling_rqvae import RQVAEModel
from ..training.item_tokenizer.arguments import RQVAETrainingArguments
from ..training.item_tokenizer.trainer import RQVAETrainer
from .parsing import parse
from .printing import PrintArguments
from .run_folder import checkpoint_of, load_with_embeddings, record_of, report
from .tables import print_figures

EXAMPLES = """examples:
  etegrec train-tokenizer --data data/mine --output-dir runs/tokenizer
"""

SIZES = (
    "hidden_sizes",
    "latent_size",
    "num_levels",
    "codebook_size",
    "commitment_weight",
    "quantization_weight",
    "distance",
)  # fields of both TokenizerArguments and RQVAEConfig


@dataclass
class TokenizerArguments:
    """What is trained on what."""

    data: str = field(metadata={"help": "A prepared dataset with embeddings."})
    hidden_sizes: list[int] = field(
        default_factory=lambda: list(RQVAEConfig.hidden_sizes), metadata={"help": "Widths of the MLP."}
    )
    latent_size: int = field(
        default=RQVAEConfig.latent_size, metadata={"help": "Width of latents and codebook vectors."}
    )
    num_levels: int = field(default=RQVAEConfig.num_levels, metadata={"help": "Residual codebooks."})
    codebook_size: int = field(default=RQVAEConfig.codebook_size, metadata={"help": "Codes a level."})
    commitment_weight: float = field(default=RQVAEConfig.commitment_weight, metadata={"help": "The paper's beta."})
    quantization_weight: float = field(
        default=RQVAEConfig.quantization_weight, metadata={"help": "The paper's alpha."}
    )
    distance: str = field(default=RQVAEConfig.distance, metadata={"help": "l2, cosine or dot."})
    map_embeddings: bool = field(
        default=False,
        metadata={"help": "Read embeddings from disk as they are needed, instead of holding them in memory."},
    )
    resume: bool = field(default=False, metadata={"help": "Go on from the newest checkpoint in the output folder."})


def run(argv: list[str]) -> None:
    classes = (TokenizerArguments, RQVAETrainingArguments, PrintArguments)
    arguments, training, printed = parse("train-tokenizer", argv, *classes, examples=EXAMPLES)
    with printed.apart():
        figures = train_tokenizer(arguments, training)
    printed.show(figures, lambda: print_figures(training.output_dir, figures))


def train_tokenizer(arguments: TokenizerArguments, training: RQVAETrainingArguments) -> dict[str, float]:
    """Trains, saves the RQ-VAE and `diagnostics.json`, and returns the diagnostics."""
    checkpoint = checkpoint_of(training, arguments.resume)
    data, embeddings = load_with_embeddings(arguments.data, map_embeddings=arguments.map_embeddings)
    set_seed(training.seed)
    sizes = {name: getattr(arguments, name) for name in SIZES}
    model = RQVAEModel(RQVAEConfig(input_size=embeddings.shape[1], **sizes))
    trainer = RQVAETrainer(model, training, embeddings, record=record_of(data))
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    report(trainer)
    figures = tokenizer_diagnostics(model.eval(), embeddings)  # after saving: it refuses embeddings all alike
    Path(training.output_dir, "diagnostics.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures
