"""Complete runs of the recommender: from a prepared dataset to a saved model with its report."""

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
    """Data that a recommender is trained and evaluated on.

    Args:
        prepared ([`PreparedDataset`]): items, and the sequences in memory.
        streamed_files (`list[str]`, *optional*): parquet files of training rows that are read during training, instead
            of the sequences in `prepared.train`.
        eval_samples (`int`, *optional*): how many validation users training evaluates on; by default all.
        embeddings_are_mapped (`bool`, *optional*, defaults to `False`): whether the embeddings of `prepared` stay on
            disk. The model is then built without them, and the trainer reads rows when it needs them.
    """

    prepared: PreparedDataset
    streamed_files: list[str] | None = None
    eval_samples: int | None = None
    embeddings_are_mapped: bool = False

    def evaluated(self, max_history: int) -> SequenceDataset:
        """Returns the validation samples that training evaluates on."""
        return SequenceDataset.for_evaluation(self.prepared.validation, max_history, self.eval_samples)


def train_recommender(
    item_tokenizer: RQVAEModel,
    data: RecommenderData,
    options: RecommenderOptions,
    args: ETEGRecTrainingArguments,
    record: TrainingRecord,
) -> ETEGRecTrainer:
    """Builds a recommender around an item tokenizer, trains both, and saves the best weights.

    Args:
        item_tokenizer ([`RQVAEModel`]): RQ-VAE that was trained on the embeddings of `data`; it is copied.
        data ([`RecommenderData`]): dataset with embeddings.
        options ([`RecommenderOptions`]): sizes and options of the recommender.
        args ([`ETEGRecTrainingArguments`]): arguments.
        record ([`TrainingRecord`]): record of the data and of earlier stages.

    Raises:
        ValueError: the model is to keep transitions, but the training sequences are streamed.
        ValueError: as [`build_recommender`], [`ETEGRecTrainer`] and [`fit`].
    """
    check_transitions(options, data.streamed_files is not None)
    set_seed(args.seed)
    embeddings = torch.from_numpy(data.prepared.embeddings)
    config = asdict(options) | {"has_semantic_embedding": not data.embeddings_are_mapped}
    model = build_recommender(item_tokenizer.cpu(), embeddings, args.code_strategy, **config)
    return fit(model, args, data, record)


def check_transitions(options: RecommenderOptions, stream: bool) -> None:
    """Raises a `ValueError` if the model is to keep transitions, but the training sequences are streamed."""
    if options.num_transitions and stream:
        raise ValueError(
            f"`num_transitions` is {options.num_transitions} and `stream` is True, but transitions are counted over "
            "all training sequences in memory; leave `stream` out, or set `num_transitions` to 0."
        )


def finetune_recommender(
    model: ETEGRecForConditionalGeneration,
    tokenizer: ETEGRecTokenizer,
    data: RecommenderData,
    args: FinetuningArguments,
    record: TrainingRecord,
) -> ETEGRecTrainer:
    """Finetunes a trained recommender, and saves the best weights.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the trained recommender, which is changed in place.
        tokenizer ([`ETEGRecTokenizer`]): the model's tokenizer.
        data ([`RecommenderData`]): the model's dataset, or a newer log of the same items.
        args ([`FinetuningArguments`]): arguments.
        record ([`TrainingRecord`]): record of the data and of earlier stages.

    Raises:
        ValueError: the dataset has items that the model doesn't know.
        ValueError: as [`ETEGRecTrainer`] and [`fit`].
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

    How often items occur is counted anew. If the model keeps transitions, they are counted anew too, unless the
    sequences are streamed.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the model to train.
        args ([`ETEGRecTrainingArguments`]): arguments.
        data ([`RecommenderData`]): dataset with the model's items.
        record ([`TrainingRecord`]): record of the data and of earlier stages.
        item_titles (`dict[str, str]`, *optional*): titles by item id, by default those of `data`.

    Raises:
        ValueError: `order_noise` is set, but the encoder isn't causal.
        ValueError: as [`ETEGRecTrainer`].
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
    """Returns a model's training samples: whole sequences for a causal encoder, else one history per target.

    Raises:
        ValueError: `order_noise` is set, but the encoder isn't causal.
        ValueError: there are no samples.
    """
    max_history = config.max_history
    samples_of: partial[SequenceDataset | WholeSequenceDataset]
    if config.encoder_attention == "causal":
        noise = {"order_noise": args.order_noise, "seed": args.seed}
        samples_of = partial(WholeSequenceDataset, max_history=max_history, context=max_history // 2, **noise)
    elif args.order_noise:
        raise ValueError(
            f"`order_noise` is {args.order_noise}, but it needs `encoder_attention` 'causal', and here it is "
            f"{config.encoder_attention!r}; leave `order_noise` out, or train with 'causal'."
        )
    else:
        samples_of = partial(SequenceDataset.for_training, max_history=max_history)
    if data.streamed_files is None:
        return samples_of(data.prepared.train)
    return StreamedSequences(data.streamed_files, data.prepared.item_ids, samples_of)
