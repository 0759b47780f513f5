# /// script
# requires-python = ">=3.11"
# dependencies = ["etegrec_hf[text]"]
# ///
"""Makes collaborative and text embeddings of a log's items with the Python API, and prints the baselines.

    python examples/embed_items.py LOG.csv DATA RUN TEXT_MODEL [EPOCHS]

LOG.csv has the columns user_id, item_id, timestamp and title. The prepared dataset is written to DATA, and the
collaborative model to RUN. TEXT_MODEL is a sentence-transformers model: a folder, or an id on the Hub.
"""

import sys
from pathlib import Path

from etegrec_hf import CollaborativeTrainer, CollaborativeTrainingArguments, PreparedDataset, prepare
from etegrec_hf.data.named_embeddings import NamedEmbedding, write_embedding
from etegrec_hf.data.prepared import set_semantic_embedding
from etegrec_hf.data.text_embeddings import embed_texts
from etegrec_hf.evaluation.baselines import baselines
from etegrec_hf.training.collaborative.arguments import CollaborativeSizes
from etegrec_hf.training.collaborative.model import build_collaborative_model, collaborative_embedding
from etegrec_hf.training.collaborative.trainer import describe_training


def main(log: str, folder: str, run: str, text_model: str, epochs: str = "15") -> None:
    prepare(log, folder, "csv")
    data = PreparedDataset.load(folder)

    sizes = CollaborativeSizes()
    arguments = CollaborativeTrainingArguments(run, num_train_epochs=float(epochs))
    trainer = CollaborativeTrainer(build_collaborative_model(data.n_items, sizes), arguments, data)
    trainer.train()
    trainer.save_model()
    values = collaborative_embedding(trainer.model, data)
    collaborative = NamedEmbedding("collaborative", values, describe_training(trainer, sizes))
    write_embedding(Path(folder), collaborative, data.item_ids)
    text = embed_texts(folder, text_model, "{title}")
    set_semantic_embedding(folder, ["collaborative", "text"], normalize="l2")

    embeddings = {part.name: part.values for part in (collaborative, text)}
    for name, metrics in baselines(data, data.test, embeddings, trainer.model.eval()).items():
        print(f"{name:<20} Recall@10 {metrics['recall@10']:.4f}  NDCG@10 {metrics['ndcg@10']:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
