"""The folder of a training run, and what its command reads."""

import sys

import torch
from transformers import TrainingArguments

from ..data.fingerprint import fingerprint
from ..data.folders import check_output_dir
from ..data.prepared import PreparedDataset
from ..data.splits import SPLIT_NAMES
from ..hub.dataset_folder import local_dataset
from ..hub.model_folder import local_folder
from ..hub.training_record import TrainingRecord
from ..training.base.checkpoints import last_checkpoint
from ..training.base.run_report import write_run_report
from ..training.base.trainer import BaseTrainer

DEFAULT_OUTPUT_DIR = TrainingArguments().output_dir  # which transformers takes where none is named


def checkpoint_of(training: TrainingArguments, resume: bool) -> str | None:
    """The checkpoint to go on from: the newest with `resume`, else `resume_from_checkpoint`.

    Raises:
        ValueError: no output folder is named.
        FileExistsError: a new run, whose output folder holds another one.
        FileNotFoundError: nothing to resume.
    """
    if training.output_dir == DEFAULT_OUTPUT_DIR:
        raise ValueError("`output_dir` isn't given; name a new folder with --output-dir.")
    if resume:
        return last_checkpoint(training.output_dir)
    if training.resume_from_checkpoint:
        return training.resume_from_checkpoint
    check_output_dir(training.output_dir, "choose another folder, remove it, or pass --resume true")
    return None


def load_prepared(name: str, stream: bool = False, map_embeddings: bool = False) -> PreparedDataset:
    """A prepared dataset, a folder or an id of the Hub; with `stream`, without its training sequences."""
    splits = SPLIT_NAMES[1:] if stream else SPLIT_NAMES
    return PreparedDataset.load(local_dataset(name, splits), splits, map_embeddings)


def load_with_embeddings(
    folder: str, stream: bool = False, map_embeddings: bool = False
) -> tuple[PreparedDataset, torch.FloatTensor]:
    """A prepared dataset as [`load_prepared`] loads it, and its embeddings `[n_items, width]`, mapped or in memory.

    Raises:
        ValueError: it has none.
    """
    data = load_prepared(folder, stream, map_embeddings)
    if data.embeddings is None:
        raise ValueError(
            f"{folder} holds no `embedding`; make one with `etegrec embed`, or prepare it again with --embedding."
        )
    return data, torch.from_numpy(data.embeddings)


def note_other_embedding(tokenizer: str, data: PreparedDataset) -> None:
    """Says so if the item tokenizer was trained on embeddings made otherwise than those of the dataset."""
    trained, found = (
        TrainingRecord.read(local_folder(tokenizer)).data.get("embedding"),
        data.statistics.get("embedding"),
    )
    if trained is not None and trained != found:
        print(
            f"note: the item tokenizer in {tokenizer!r} was trained on {trained}, and this dataset holds {found}",
            file=sys.stderr,
        )


def record_of(data: PreparedDataset, earlier: str | None = None) -> TrainingRecord:
    """The record to go on with: this dataset, and the stages of the model `earlier` (a folder or a Hub id)."""
    stages = TrainingRecord.read(local_folder(earlier)).stages if earlier else []
    return TrainingRecord(data.statistics, stages, fingerprint=fingerprint(data))


def report(trainer: BaseTrainer, *known, **options) -> None:
    """Writes the report of a run that has ended, see [`write_run_report`], in one process, and says where."""
    if trainer.is_world_process_zero():
        print(f"report: {write_run_report(trainer, *known, **options)}")
