"""Complete runs of the item tokenizer: from embeddings to a saved RQ-VAE with report and diagnostics."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import set_seed

from ...data.folders import replace_text
from ...evaluation.code_diagnostics import tokenizer_diagnostics
from ...hub.training_record import TrainingRecord
from ...models.configuration_rqvae import RQVAEConfig
from ...models.modeling_rqvae import RQVAEModel
from ..base.run_report import write_run_report
from .arguments import RQVAETrainingArguments
from .item_codes import check_capacity
from .options import ItemTokenizerOptions
from .trainer import RQVAETrainer


def train_item_tokenizer(
    embeddings: torch.FloatTensor,
    options: ItemTokenizerOptions,
    args: RQVAETrainingArguments,
    record: TrainingRecord,
) -> RQVAETrainer:
    """Trains an RQ-VAE, from `args.resume_from_checkpoint` if it is given, and saves it with its report.

    Args:
        embeddings (`torch.FloatTensor` of shape `(n_items, input_size)`): semantic embeddings, maybe mapped.
        options ([`ItemTokenizerOptions`]): sizes and weights of the RQ-VAE.
        args ([`RQVAETrainingArguments`]): arguments.
        record ([`TrainingRecord`]): record of the data.

    Raises:
        ValueError: there are more items than codes.
        ValueError: as [`RQVAEConfig`] and [`RQVAETrainer`].
    """
    set_seed(args.seed)
    config = RQVAEConfig(input_size=embeddings.shape[1], **asdict(options))
    check_capacity(len(embeddings), config)
    model = RQVAEModel(config)
    trainer = RQVAETrainer(model, args, embeddings, record=record)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    if trainer.is_world_process_zero():
        write_run_report(trainer)
    return trainer


def write_diagnostics(trainer: RQVAETrainer) -> dict[str, float]:
    """Writes `diagnostics.json` into the folder of a trained RQ-VAE, and returns its content."""
    figures = tokenizer_diagnostics(trainer.model.eval(), trainer.train_dataset.embeddings)
    path = Path(trainer.args.output_dir, "diagnostics.json")
    replace_text(path, json.dumps(figures, indent=2) + "\n")
    return figures
