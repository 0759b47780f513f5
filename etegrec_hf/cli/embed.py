"""`etegrec embed`: collaborative and text embeddings of items, and their fusion."""

from dataclasses import dataclass, field
from pathlib import Path

from transformers import set_seed

from ..data.item_embeddings import NamedEmbedding, describe, write_embedding
from ..data.prepared import PreparedDataset, set_semantic_embedding
from ..data.text_embeddings import embed_texts
from ..training.collaborative import (
    CollaborativeSizes,
    CollaborativeTrainer,
    CollaborativeTrainingArguments,
    build_collaborative_model,
    collaborative_embedding,
    describe_training,
)
from .parsing import parse
from .run_folder import checkpoint_of
from .tables import print_figures

EXAMPLES = """examples:
  etegrec embed --data data/mine --collaborative --output-dir runs/collaborative
  etegrec embed --data data/mine --text-model sentence-transformers/sentence-t5-base --text "{title} {description}"
  etegrec embed --data data/mine --fuse collaborative text --normalize l2
"""


@dataclass
class EmbedArguments:
    """What is embedded, and how the semantic embedding is made of it."""

    data: str = field(metadata={"help": "A prepared dataset; the embeddings are written into it."})
    collaborative: bool = field(
        default=False, metadata={"help": "Train a causal model of item sequences, which is kept in --output-dir."}
    )
    text_model: str | None = field(
        default=None, metadata={"help": "A sentence-transformers model: a folder or a Hub id."}
    )
    text: str = field(default="{title}", metadata={"help": "Template of the text; names in braces are columns."})
    text_name: str = field(default="text", metadata={"help": "Name of the text embedding."})
    text_batch_size: int = field(default=64, metadata={"help": "Texts at a time."})
    fuse: list[str] | None = field(
        default=None,
        metadata={
            "help": "Embeddings that are laid side by side, in this order: names or .parquet files. By default those "
            "that this call makes."
        },
    )
    normalize: str = field(default="none", metadata={"help": "Of each embedding: none, l2 or standardize."})
    resume: bool = field(default=False, metadata={"help": "Go on from the newest checkpoint in the output folder."})


def run(argv: list[str]) -> None:
    classes = (EmbedArguments, CollaborativeSizes, CollaborativeTrainingArguments)
    arguments, sizes, training = parse("embed", argv, *classes, examples=EXAMPLES)
    print_figures(arguments.data, embed(arguments, sizes, training))


def embed(
    arguments: EmbedArguments, sizes: CollaborativeSizes, training: CollaborativeTrainingArguments
) -> dict[str, object]:
    """Makes the embeddings asked for, and the dataset's semantic embedding of them; returns figures of both."""
    if not (arguments.collaborative or arguments.text_model or arguments.fuse):
        raise ValueError("nothing to do: give --collaborative, --text-model or --fuse.")
    data = PreparedDataset.load(arguments.data)
    figures: dict[str, object] = {}
    made = []
    if arguments.collaborative:
        figures |= embed_collaborative(arguments, sizes, training, data)
        made.append("collaborative")
    if arguments.text_model:
        embed_texts(
            arguments.data, arguments.text_model, arguments.text, arguments.text_name, arguments.text_batch_size
        )
        made.append(arguments.text_name)
    semantic = set_semantic_embedding(arguments.data, arguments.fuse or made, arguments.normalize)
    return figures | {"semantic_embedding": describe(semantic)}


def embed_collaborative(
    arguments: EmbedArguments,
    sizes: CollaborativeSizes,
    training: CollaborativeTrainingArguments,
    data: PreparedDataset,
) -> dict[str, object]:
    """Trains the collaborative model, keeps it and its embedding, and returns its validation metrics."""
    checkpoint = checkpoint_of(training, arguments.resume)
    set_seed(training.seed)
    trainer = CollaborativeTrainer(build_collaborative_model(data.n_items, sizes), training, data)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    made = describe_training(trainer, sizes)
    values = collaborative_embedding(trainer.model, data)
    write_embedding(Path(arguments.data), NamedEmbedding("collaborative", values, made), data.item_ids)
    return {f"validation_{name}": value for name, value in made["validation"].items()}
