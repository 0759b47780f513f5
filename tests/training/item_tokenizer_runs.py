"""Tiny runs of an item tokenizer's training."""

import torch

from etegrec_hf import RQVAEConfig, RQVAEModel, RQVAETrainer, RQVAETrainingArguments


def make_trainer(embeddings, folder, callbacks=(), evaluated=None, **options) -> RQVAETrainer:
    torch.manual_seed(0)
    sizes = {"input_size": 8, "hidden_sizes": [16], "latent_size": 4, "num_levels": 2, "codebook_size": 8}
    defaults = {"num_train_epochs": 6, "per_device_train_batch_size": 32, "use_cpu": True, "disable_tqdm": True}
    arguments = RQVAETrainingArguments(str(folder), **(defaults | options))
    return RQVAETrainer(
        RQVAEModel(RQVAEConfig(**sizes)), arguments, embeddings, callbacks=list(callbacks), eval_dataset=evaluated
    )
