"""`etegrec train`: alternating training of recommender and item tokenizer."""

from dataclasses import asdict, dataclass, field
from functools import partial

import torch
from transformers import set_seed

from ..data.prepared import PreparedDataset
from ..data.sequences import SequenceDataset, WholeSequenceDataset
from ..data.streamed_sequences import StreamedSequences
from ..data.transitions import strongest_transitions
from ..hub.dataset_folder import training_files
from ..hub.model_folder import load_model
from ..hub.training_record import TrainingRecord
from ..models.configuration_etegrec import ETEGRecConfig
from ..models.modeling_rqvae import RQVAEModel
from ..training.item_tokenizer.item_codes import build_recommender
from ..training.recommender.arguments import ETEGRecTrainingArguments
from ..training.recommender.trainer import ETEGRecTrainer
from .parsing import parse
from .run_folder import checkpoint_of, load_with_embeddings, note_other_embedding, record_of, report

EXAMPLES = """examples:
  etegrec train --data data/mine --tokenizer runs/tokenizer --output-dir runs/model
  etegrec train --config examples/configs/instrument2018.yaml --data ... --tokenizer ... --output-dir ...
"""


@dataclass
class TrainArguments:
    """What is trained on what."""

    data: str = field(metadata={"help": "A prepared dataset with embeddings."})
    tokenizer: str = field(metadata={"help": "Output folder of train-tokenizer, or a Hub id."})
    stream: bool = field(
        default=False,
        metadata={"help": "Read training sequences as they are needed instead of holding them in memory."},
    )
    eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on so many users while training."})
    map_embeddings: bool = field(
        default=False,
        metadata={"help": "Read embeddings from disk as they are needed; memory and model don't hold them."},
    )
    resume: bool = field(default=False, metadata={"help": "Go on from the newest checkpoint in the output folder."})


@dataclass
class RecommenderSizes:
    """Fields of [`ETEGRecConfig`] that a user chooses."""

    d_model: int = field(default=ETEGRecConfig.d_model, metadata={"help": "Width of encoder and decoder."})
    d_ff: int = field(default=ETEGRecConfig.d_ff, metadata={"help": "Width of the feed-forward layers."})
    d_kv: int = field(default=ETEGRecConfig.d_kv, metadata={"help": "Width of an attention head."})
    num_layers: int = field(default=ETEGRecConfig.num_layers, metadata={"help": "Encoder layers."})
    num_decoder_layers: int = field(default=ETEGRecConfig.num_decoder_layers, metadata={"help": "Decoder layers."})
    num_heads: int = field(default=ETEGRecConfig.num_heads, metadata={"help": "Attention heads."})
    dropout_rate: float = field(default=ETEGRecConfig.dropout_rate, metadata={"help": "Dropout of the T5 stacks."})
    encoder_attention: str = field(
        default=ETEGRecConfig.encoder_attention,
        metadata={"help": "'bidirectional', or 'causal': one pass over a sequence trains all its prefixes."},
    )
    reads_items: bool = field(
        default=ETEGRecConfig.reads_items,
        metadata={
            "help": "The encoder reads each item's semantic embedding and a vector of its own beside its codes."
        },
    )
    has_repeat_bias: bool = field(
        default=ETEGRecConfig.has_repeat_bias,
        metadata={"help": "Learn how likely items of the history are to come again; with --constrained-softmax."},
    )
    constrained_softmax: bool = field(
        default=ETEGRecConfig.constrained_softmax,
        metadata={"help": "Share probability among the codes that continue an item, instead of all of a level."},
    )
    num_transitions: int = field(
        default=ETEGRecConfig.num_transitions,
        metadata={"help": "Items kept that came next to each item, for --transitions of recommend and evaluate."},
    )
    max_history: int = field(
        default=ETEGRecConfig.max_history, metadata={"help": "Items of a history that are read, the last ones."}
    )


def run(argv: list[str]) -> None:
    train(*parse("train", argv, TrainArguments, RecommenderSizes, ETEGRecTrainingArguments, examples=EXAMPLES))


def train(arguments: TrainArguments, sizes: RecommenderSizes, training: ETEGRecTrainingArguments) -> ETEGRecTrainer:
    """Builds a recommender around the item tokenizer, trains both, and saves the best."""
    if sizes.num_transitions and arguments.stream:
        raise ValueError(
            f"`num_transitions` is {sizes.num_transitions} and `stream` True, but all training sequences are counted "
            "before training; hold them in memory, or keep no transitions."
        )
    checkpoint = checkpoint_of(training, arguments.resume)
    data, embeddings = load_with_embeddings(arguments.data, arguments.stream, arguments.map_embeddings)
    item_tokenizer = load_model(RQVAEModel, arguments.tokenizer)
    note_other_embedding(arguments.tokenizer, data)
    set_seed(training.seed)
    kept = not arguments.map_embeddings
    model = build_recommender(
        item_tokenizer.cpu(), embeddings, training.code_strategy, has_semantic_embedding=kept, **asdict(sizes)
    )
    record = record_of(data, arguments.tokenizer)
    files = training_files(arguments.data) if arguments.stream else None
    mapped = None if kept else embeddings
    return fit(model, training, data, record, arguments.eval_samples, checkpoint, data.title_of, files, mapped)


def fit(
    model,
    training,
    data: PreparedDataset,
    record: TrainingRecord,
    eval_samples: int | None,
    checkpoint: str | None,
    item_titles: dict[str, str],
    files: list[str] | None = None,
    semantic_embedding: torch.FloatTensor | None = None,
) -> ETEGRecTrainer:
    """Trains a recommender on a prepared dataset, from `checkpoint` if there is one, and saves it.

    The training sequences are those of the dataset, or those in `files`, which are read as they are needed. Semantic
    embeddings `[n_items, width]` are given for a model that holds none. Transitions that a model keeps are
    counted anew, unless the sequences are streamed.
    """
    if model.transitions is not None and files is None:
        model.set_transitions(*strongest_transitions(data, model.config.num_transitions))
    max_history = model.config.max_history
    samples_of: partial[SequenceDataset | WholeSequenceDataset]
    if model.config.encoder_attention == "causal":
        noise = {"order_noise": training.order_noise, "seed": training.seed}
        samples_of = partial(WholeSequenceDataset, max_history=max_history, context=max_history // 2, **noise)
    elif training.order_noise:
        raise ValueError(
            f"`order_noise` is {training.order_noise} and `encoder_attention` {model.config.encoder_attention!r}, "
            "with which each target has a history of its own; leave it out, or train with 'causal'."
        )
    else:
        samples_of = partial(SequenceDataset.for_training, max_history=max_history)
    train_dataset: SequenceDataset | WholeSequenceDataset | StreamedSequences
    if files is None:
        train_dataset = samples_of(data.train)
    else:
        train_dataset = StreamedSequences(files, data.item_ids, samples_of)
        record.fingerprint["train"] = train_dataset.fingerprint
    evaluated = SequenceDataset.for_evaluation(data.validation, max_history, limit=eval_samples)
    trainer = ETEGRecTrainer(
        model,
        training,
        data.item_ids,
        train_dataset,
        evaluated,
        item_titles=item_titles,
        semantic_embedding=semantic_embedding,
        record=record,
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    report(trainer, data, evaluated)
    return trainer
