"""Complete runs of reinforcement learning: from a trained recommender to a saved one with its report."""

from collections.abc import Callable

from transformers import set_seed

from ...data.sequences import SequenceDataset
from ...hub.training_record import TrainingRecord
from ...models.modeling_etegrec import ETEGRecForConditionalGeneration
from ...models.tokenization_etegrec import ETEGRecTokenizer
from ..base.run_report import write_run_report
from ..recommender.fit import RecommenderData
from .arguments import ETEGRecGRPOConfig
from .trainer import ETEGRecGRPOTrainer


def train_by_rewards(
    model: ETEGRecForConditionalGeneration,
    tokenizer: ETEGRecTokenizer,
    data: RecommenderData,
    rewards: list[Callable],
    args: ETEGRecGRPOConfig,
    record: TrainingRecord,
) -> ETEGRecGRPOTrainer:
    """Trains a recommender by rewards, from `args.resume_from_checkpoint` if given, and saves it with its report.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the trained recommender, which is changed in place.
        tokenizer ([`ETEGRecTokenizer`]): the model's tokenizer, which gets the titles of the dataset.
        data ([`RecommenderData`]): dataset with the model's items, and with training sequences in memory.
        rewards (`list[Callable]`): reward functions, see [`make_reward`].
        args ([`ETEGRecGRPOConfig`]): arguments.
        record ([`TrainingRecord`]): record of the data and of earlier stages.

    Raises:
        ValueError: as [`ETEGRecGRPOTrainer`].
    """
    set_seed(args.seed)
    tokenizer.item_titles |= data.prepared.title_of
    max_history = model.config.max_history
    evaluated = data.evaluated(max_history)
    trainer = ETEGRecGRPOTrainer(
        model,
        rewards,
        args,
        SequenceDataset.for_training(data.prepared.train, max_history),
        evaluated,
        processing_class=tokenizer,
        record=record,
    )
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    if trainer.is_world_process_zero():
        write_run_report(trainer, data.prepared, evaluated)
    return trainer
