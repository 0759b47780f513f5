"""Complete runs of the collaborative model: from a prepared dataset to item embeddings in its folder."""

from pathlib import Path

from transformers import set_seed

from ...data.named_embeddings import NamedEmbedding, write_embedding
from ...data.prepared import PreparedDataset
from .arguments import CollaborativeSizes, CollaborativeTrainingArguments
from .model import build_collaborative_model, collaborative_embedding
from .trainer import CollaborativeTrainer, describe_training


def embed_collaborative(
    data: PreparedDataset, folder: str | Path, sizes: CollaborativeSizes, args: CollaborativeTrainingArguments
) -> NamedEmbedding:
    """Trains a collaborative model, saves it, and writes its item embeddings into the folder of the dataset.

    Args:
        data ([`PreparedDataset`]): dataset whose sequences are learned from.
        folder (`str` or `Path`): folder of `data`.
        sizes ([`CollaborativeSizes`]): sizes of the model.
        args ([`CollaborativeTrainingArguments`]): arguments; with `resume_from_checkpoint`, training is resumed.

    Returns:
        [`NamedEmbedding`]: the embedding `"collaborative"`, with a description of how it was made.
    """
    set_seed(args.seed)
    trainer = CollaborativeTrainer(build_collaborative_model(data.n_items, sizes), args, data)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    values = collaborative_embedding(trainer.model, data)
    embedding = NamedEmbedding("collaborative", values, describe_training(trainer, sizes))
    write_embedding(Path(folder), embedding, data.item_ids)
    return embedding
