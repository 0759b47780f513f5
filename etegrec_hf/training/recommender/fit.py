"""Whole runs of the recommender: from a prepared dataset to a saved model with its report."""

from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from transformers import set_seed

from ...data.prepared import PreparedDataset
from ...data.sequences import SequenceDataset, WholeSequenceDataset
from ...data.streamed_sequences import StreamedSequences
from ...data.transitions import strongest_transitions
from ...hub.training_record import TrainingRecord
from ...models.configuration_etegrec import ETEGRecConfig
from ...models.modeling_etegrec import ETEGRecForConditionalGeneration
from ...models.modeling_rqvae import RQVAEModel
from ...models.tokenization_etegrec import ETEGRecTokenizer
from ..base.run_report import write_run_report
from ..item_tokenizer.item_codes import build_recommender
from .arguments import ETEGRecTrainingArguments, FinetuningArguments
from .options import RecommenderOptions
from .trainer import ETEGRecTrainer


@dataclass(frozen=True)
class RecommenderData:
    """What a recommender is trained and evaluated on.

    Args:
        prepared ([`PreparedDataset`]): items, and the sequences that are held in memory.
        streamed_files (`list[str]`, *optional*): parquet files of training rows that are read as they are needed,
            instead of the sequences of `prepared.train`.
        eval_samples (`int`, *optional*): validation users that are evaluated on while training; by default all.
        embeddings_are_mapped (`bool`, *optional*, defaults to `False`): whether those of `prepared` stay on disk. A
            model is then built without them, and the trainer reads rows as it needs them.
    """

    prepared: PreparedDataset
    streamed_files: list[str] | None = None
    eval_samples: int | None = None
    embeddings_are_mapped: bool = False

    def evaluated(self, max_history: int) -> SequenceDataset:
        """Returns the validation samples that are evaluated on while training."""
        return SequenceDataset.for_evaluation(self.prepared.validation, max_history, self.eval_samples)


def train_recommender(
    item_tokenizer: RQVAEModel,
    data: RecommenderData,
    options: RecommenderOptions,
    args: ETEGRecTrainingArguments,
    record: TrainingRecord,
) -> ETEGRecTrainer:
    """Builds a recommender around an item tokenizer, trains both, and saves the best.

    Args:
        item_tokenizer ([`RQVAEModel`]): trained on the embeddings of `data`; it is copied.
        data ([`RecommenderData`]): with embeddings.
        options ([`RecommenderOptions`]): of the recommender.
        args ([`ETEGRecTrainingArguments`]): arguments.
        record ([`TrainingRecord`]): what is known of data and earlier stages.

    Raises:
        ValueError: transitions are to be kept, and the training sequences are streamed.
        ValueError: what [`build_recommender`], [`ETEGRecTrainer`] and [`fit`] raise.
    """
    check_transitions(options, data.streamed_files is not None)
    set_seed(args.seed)
    embeddings = torch.from_numpy(data.prepared.embeddings)
    config = asdict(options) | {"has_semantic_embedding": not data.embeddings_are_mapped}
    model = build_recommender(item_tokenizer.cpu(), embeddings, args.code_strategy, **config)
    return fit(model, args, data, record)


def check_transitions(options: RecommenderOptions, stream: bool) -> None:
    """Raises a `ValueError` if transitions are to be kept of training sequences that are streamed."""
    if options.num_transitions and stream:
        raise ValueError(
            f"`num_transitions` is {options.num_transitions} and `stream` True, but all training sequences are "
            "counted before training; hold them in memory, or keep no transitions."
        )


def finetune_recommender(
    model: ETEGRecForConditionalGeneration,
    tokenizer: ETEGRecTokenizer,
    data: RecommenderData,
    args: FinetuningArguments,
    record: TrainingRecord,
) -> ETEGRecTrainer:
    """Finetunes a trained recommender, and saves the best.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): trained; it is changed in place.
        tokenizer ([`ETEGRecTokenizer`]): the model's.
        data ([`RecommenderData`]): the model's dataset, or a new log of its items.
        args ([`FinetuningArguments`]): arguments.
        record ([`TrainingRecord`]): what is known of data and earlier stages.

    Raises:
        ValueError: the dataset has items that the model doesn't know.
        ValueError: what [`ETEGRecTrainer`] and [`fit`] raise.
    """
    set_seed(args.seed)
    titles = tokenizer.item_titles | data.prepared.title_of
    data = replace(data, prepared=data.prepared.with_items(tokenizer.item_ids))
    return fit(model, args, data, record, titles)


def fit(
    model: ETEGRecForConditionalGeneration,
    args: ETEGRecTrainingArguments,
    data: RecommenderData,
    record: TrainingRecord,
    item_titles: dict[str, str] | None = None,
) -> ETEGRecTrainer:
    """Trains a recommender, from `args.resume_from_checkpoint` if it is given, and saves it with its report.

    Items are counted anew, and transitions that a model keeps unless the sequences are streamed.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): to train.
        args ([`ETEGRecTrainingArguments`]): arguments.
        data ([`RecommenderData`]): over the model's catalogue.
        record ([`TrainingRecord`]): what is known of data and earlier stages.
        item_titles (`dict[str, str]`, *optional*): titles of items, by default those of `data`.

    Raises:
        ValueError: noise in the order of items, for an encoder that isn't causal.
        ValueError: what [`ETEGRecTrainer`] raises.
    """
    prepared = data.prepared
    if model.catalogue.transitions is not None and data.streamed_files is None:
        model.catalogue.set_transitions(*strongest_transitions(prepared, model.config.num_transitions))
    train_dataset = training_samples(data, model.config, args)
    counts = prepared.item_counts
    if isinstance(train_dataset, StreamedSequences):
        record.fingerprint["train"], counts = train_dataset.fingerprint, train_dataset.item_counts
    model.catalogue.set_item_counts(torch.from_numpy(counts[1:]))
    evaluated = data.evaluated(model.config.max_history)
    trainer = ETEGRecTrainer(
        model,
        args,
        prepared.item_ids,
        train_dataset,
        eval_dataset=evaluated,
        item_titles=prepared.title_of if item_titles is None else item_titles,
        semantic_embedding=torch.from_numpy(prepared.embeddings) if data.embeddings_are_mapped else None,
        record=record,
    )
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    if trainer.is_world_process_zero():
        write_run_report(trainer, prepared, evaluated)
    return trainer


def training_samples(
    data: RecommenderData, config: ETEGRecConfig, args: ETEGRecTrainingArguments
) -> SequenceDataset | WholeSequenceDataset | StreamedSequences:
    """Returns the training samples that a model reads: whole sequences for a causal encoder, else a history each.

    Raises:
        ValueError: noise in the order of items, for an encoder that isn't causal.
        ValueError: there is no sample.
    """
    max_history = config.max_history
    samples_of: partial[SequenceDataset | WholeSequenceDataset]
    if config.encoder_attention == "causal":
        noise = {"order_noise": args.order_noise, "seed": args.seed}
        samples_of = partial(WholeSequenceDataset, max_history=max_history, context=max_history // 2, **noise)
    elif args.order_noise:
        raise ValueError(
            f"`order_noise` is {args.order_noise} and `encoder_attention` {config.encoder_attention!r}, with which "
            "each target has a history of its own; leave it out, or train with 'causal'."
        )
    else:
        samples_of = partial(SequenceDataset.for_training, max_history=max_history)
    if data.streamed_files is None:
        return samples_of(data.prepared.train)
    return StreamedSequences(data.streamed_files, data.prepared.item_ids, samples_of)
