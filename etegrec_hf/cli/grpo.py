"""`etegrec grpo`: reinforcement learning of a trained recommender."""

from dataclasses import dataclass, field

from transformers import set_seed

from ..data.prepared import PreparedDataset
from ..data.sequences import SequenceDataset
from ..evaluation.collaborative import load_collaborative_model
from ..hub.dataset_folder import local_dataset
from ..hub.model_folder import load_recommender
from ..training.grpo.arguments import ETEGRecGRPOConfig
from ..training.grpo.rewards import REWARDS, WEIGHTS, make_reward
from ..training.grpo.trainer import ETEGRecGRPOTrainer
from .finetune import of_catalogue
from .parsing import parse
from .printing import PrintArguments
from .run_folder import checkpoint_of, record_of, report
from .tables import print_metrics

EXAMPLES = """examples:
  etegrec grpo --model runs/model --data data/mine --output-dir runs/rewarded
  etegrec grpo --model runs/model --data data/mine --output-dir runs/rewarded --rewards hit prefix \\
      --reward-weights 1 0.2 --rollout without_replacement
"""


@dataclass
class GrpoArguments:
    """What is trained on what, by which rewards."""

    model: str = field(metadata={"help": "A trained recommender: a folder or a Hub id."})
    data: str = field(metadata={"help": "The prepared dataset that it was trained on."})
    rewards: list[str] = field(
        default_factory=lambda: ["hit", "semantic"],
        metadata={
            "help": f"Any of {', '.join(REWARDS)}; weighted by --reward-weights (by default 1, and 0.5 for semantic)."
        },
    )
    collaborative_model: str | None = field(
        default=None, metadata={"help": "Output folder of `etegrec embed --collaborative`, for its reward."}
    )
    eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on so many users while training."})
    resume: bool = field(default=False, metadata={"help": "Go on from the newest checkpoint in the output folder."})


def run(argv: list[str]) -> None:
    classes = (GrpoArguments, ETEGRecGRPOConfig, PrintArguments)
    arguments, training, printed = parse("grpo", argv, *classes, examples=EXAMPLES)
    with printed.apart():
        trainer = grpo(arguments, training)
    if trainer.is_world_process_zero():
        validation, best = trainer.validation_rows(), trainer.state.best_global_step if trainer.holds_best else None
        rows = {f"step {row['step']}" if row["step"] else "before": row for row in validation}
        kept = "" if best is None else f", best at step {best}"
        printed.show({"validation": validation, "best_step": best}, lambda: print_metrics(f"validation{kept}", rows))


def grpo(arguments: GrpoArguments, training: ETEGRecGRPOConfig) -> ETEGRecGRPOTrainer:
    """Trains a recommender by rewards, and saves the best."""
    checkpoint = checkpoint_of(training, arguments.resume)
    model, tokenizer = load_recommender(arguments.model)
    data = of_catalogue(PreparedDataset.load(local_dataset(arguments.data)), tokenizer)
    tokenizer.item_titles |= data.title_of
    collaborative = arguments.collaborative_model and load_collaborative_model(arguments.collaborative_model, data)
    rewards = [
        make_reward(name, model, data, training.num_generations, collaborative or None) for name in arguments.rewards
    ]
    if training.reward_weights is None:
        training.reward_weights = [WEIGHTS.get(name, 1.0) for name in arguments.rewards]
    set_seed(training.seed)
    max_history = model.config.max_history
    evaluated = SequenceDataset.for_evaluation(data.validation, max_history, limit=arguments.eval_samples)
    trainer = ETEGRecGRPOTrainer(
        model,
        rewards,
        training,
        SequenceDataset.for_training(data.train, max_history),
        evaluated,
        processing_class=tokenizer,
        record=record_of(data, arguments.model),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    report(trainer, data, evaluated)
    return trainer
