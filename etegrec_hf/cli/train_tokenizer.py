"""`etegrec train-tokenizer`: pre-trains the RQ-VAE on a prepared dataset's item embeddings."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import set_seed

from ..data.prepared import PreparedDataset
from ..evaluation.code_diagnostics import code_diagnostics
from ..models.configuration_rqvae import RQVAEConfig
from ..models.modeling_rqvae import RQVAEModel
from ..training.arguments import RQVAETrainingArguments
from ..training.checkpoints import last_checkpoint
from ..training.rqvae_trainer import RQVAETrainer
from .parsing import parse
from .run_folder import run_folder
from .tables import print_figures

EXAMPLES = """examples:
  etegrec train-tokenizer --data data/mine --output-dir runs/tokenizer
"""


@dataclass
class TokenizerArguments:
    """What is trained on what."""

    data: str = field(metadata={"help": "A prepared dataset with embeddings."})
    hidden_sizes: list[int] = field(default_factory=lambda: [512, 256], metadata={"help": "Widths of the MLP."})
    latent_size: int = field(default=128, metadata={"help": "Width of latents and codebook vectors."})
    num_levels: int = field(default=3, metadata={"help": "Residual codebooks."})
    codebook_size: int = field(default=256, metadata={"help": "Codes a level."})
    commitment_weight: float = field(default=0.25, metadata={"help": "The paper's beta."})
    quantization_weight: float = field(default=1.0, metadata={"help": "The paper's alpha."})
    distance: str = field(default="l2", metadata={"help": "l2, cosine or dot."})
    resume: bool = field(default=False, metadata={"help": "Go on from the newest checkpoint in the output folder."})


def run(argv: list[str]) -> None:
    arguments, training = parse("train-tokenizer", argv, TokenizerArguments, RQVAETrainingArguments, examples=EXAMPLES)
    figures = train_tokenizer(arguments, training)
    print_figures(training.output_dir, figures)


def train_tokenizer(arguments: TokenizerArguments, training: RQVAETrainingArguments) -> dict[str, float]:
    """Trains, saves the RQ-VAE and `diagnostics.json`, and returns the diagnostics."""
    folder = run_folder(training.output_dir, arguments.resume)
    data = PreparedDataset.load(arguments.data)
    if data.embeddings is None:
        raise ValueError(f"{arguments.data} holds no `embedding`; prepare it again with --embedding.")
    set_seed(training.seed)
    model = RQVAEModel(
        RQVAEConfig(
            input_size=data.embeddings.shape[1],
            hidden_sizes=arguments.hidden_sizes,
            latent_size=arguments.latent_size,
            num_levels=arguments.num_levels,
            codebook_size=arguments.codebook_size,
            commitment_weight=arguments.commitment_weight,
            quantization_weight=arguments.quantization_weight,
            distance=arguments.distance,
        )
    )
    embeddings = torch.from_numpy(data.embeddings)
    trainer = RQVAETrainer(model, training, embeddings)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder) if arguments.resume else None)
    figures = code_diagnostics(model.encode(embeddings.to(model.device)), model.config.codebook_size)
    figures["reconstruction_loss"] = model(embeddings.to(model.device)).reconstruction_loss.item()
    Path(folder, "diagnostics.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    trainer.save_model()
    return figures
