"""`etegrec train`: alternating training of recommender and item tokenizer."""

from dataclasses import dataclass, field

import torch
from transformers import set_seed

from ..data.prepared import PreparedDataset
from ..data.sequences import SequenceDataset
from ..models.modeling_rqvae import RQVAEModel
from ..training.arguments import ETEGRecTrainingArguments
from ..training.checkpoints import last_checkpoint
from ..training.item_codes import build_recommender
from ..training.trainer import ETEGRecTrainer
from .parsing import parse
from .run_folder import load_model, run_folder

EXAMPLES = """examples:
  etegrec train --data data/mine --tokenizer runs/tokenizer --output-dir runs/model
  etegrec train --config examples/configs/instrument2018.yaml --data ... --tokenizer ... --output-dir ...
"""


@dataclass
class TrainArguments:
    """What is trained on what, and the recommender's sizes."""

    data: str = field(metadata={"help": "A prepared dataset with embeddings."})
    tokenizer: str = field(metadata={"help": "Output folder of train-tokenizer."})
    d_model: int = field(default=128, metadata={"help": "Width of encoder and decoder."})
    d_ff: int = field(default=512, metadata={"help": "Width of the feed-forward layers."})
    d_kv: int = field(default=64, metadata={"help": "Width of an attention head."})
    num_layers: int = field(default=6, metadata={"help": "Encoder layers."})
    num_decoder_layers: int = field(default=6, metadata={"help": "Decoder layers."})
    num_heads: int = field(default=4, metadata={"help": "Attention heads."})
    dropout_rate: float = field(default=0.1, metadata={"help": "Dropout of the T5 stacks."})
    max_history: int = field(default=50, metadata={"help": "Items of a history that are read, the last ones."})
    eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on so many users while training."})
    resume: bool = field(default=False, metadata={"help": "Go on from the newest checkpoint in the output folder."})


def run(argv: list[str]) -> None:
    train(*parse("train", argv, TrainArguments, ETEGRecTrainingArguments, examples=EXAMPLES))


def train(arguments: TrainArguments, training: ETEGRecTrainingArguments) -> ETEGRecTrainer:
    """Builds a recommender around the item tokenizer, trains both, and saves the best."""
    folder = run_folder(training.output_dir, arguments.resume)
    data = PreparedDataset.load(arguments.data)
    if data.embeddings is None:
        raise ValueError(f"{arguments.data} holds no `embedding`; prepare it again with --embedding.")
    item_tokenizer = load_model(RQVAEModel, arguments.tokenizer)
    set_seed(training.seed)
    model = build_recommender(
        item_tokenizer,
        torch.from_numpy(data.embeddings),
        training.code_strategy,
        d_model=arguments.d_model,
        d_ff=arguments.d_ff,
        d_kv=arguments.d_kv,
        num_layers=arguments.num_layers,
        num_decoder_layers=arguments.num_decoder_layers,
        num_heads=arguments.num_heads,
        dropout_rate=arguments.dropout_rate,
        max_history=arguments.max_history,
    )
    return fit(model, training, data, arguments.eval_samples, last_checkpoint(folder) if arguments.resume else None)


def fit(model, training, data: PreparedDataset, eval_samples: int | None, checkpoint: str | None) -> ETEGRecTrainer:
    """Trains a recommender on a prepared dataset, from `checkpoint` if there is one, and saves it."""
    max_history = model.config.max_history
    trainer = ETEGRecTrainer(
        model,
        training,
        data.item_ids,
        SequenceDataset(data.train, max_history, every_position=True),
        SequenceDataset(data.validation, max_history, every_position=False, limit=eval_samples),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    return trainer
