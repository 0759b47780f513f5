"""`etegrec grpo`: trains a recommender further by reinforcement learning."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..evaluation.collaborative import load_collaborative_model
from ..hub.dataset_folder import load_prepared
from ..hub.model_folder import load_recommender
from ..training.base.checkpoints import check_run_folder
from ..training.base.recording import record_of
from ..training.grpo.arguments import ETEGRecGRPOConfig
from ..training.grpo.fit import train_by_rewards
from ..training.grpo.rewards import REWARDS, default_weights, make_reward
from ..training.grpo.trainer import ETEGRecGRPOTrainer
from ..training.recommender.fit import RecommenderData
from .model_arguments import ModelArguments
from .parsing import parse
from .printing import PrintArguments
from .run_folder import FIRST_OF_A_RUN, RunArguments, print_report
from .tables import print_metrics

EXAMPLES = """examples:
  etegrec grpo runs/model --data data/mine --output-dir runs/rewarded
  etegrec grpo runs/model --data data/mine --output-dir runs/rewarded --rewards hit prefix \\
      --reward-weights 1 0.2 --rollout without_replacement
"""
FIRST = ("data", "rewards", "reward_weights", *FIRST_OF_A_RUN)


@dataclass
class GrpoArguments(ModelArguments, RunArguments):
    """The recommender, the dataset, and the rewards."""

    help_group: ClassVar[str] = "training"

    data: str = field(metadata={"help": "The prepared dataset that the model was trained on."})
    rewards: list[str] = field(
        default_factory=lambda: ["hit", "semantic"],
        metadata={"help": f"Any of {', '.join(REWARDS)}, with --reward-weights (by default 1, and 0.5 for semantic)."},
    )
    collaborative_model: str | None = field(
        default=None,
        metadata={"help": "Output folder of `etegrec embed --collaborative`, for the reward collaborative."},
    )
    eval_samples: int | None = field(default=None, metadata={"help": "How many validation users to evaluate on."})


def run(argv: list[str]) -> None:
    classes = (GrpoArguments, ETEGRecGRPOConfig, PrintArguments)
    arguments, training, printed = parse("grpo", argv, *classes, examples=EXAMPLES, works_on="model", first=FIRST)
    with printed.apart():
        trainer = grpo(arguments, training)
    if trainer.is_world_process_zero():
        validation, best = trainer.validation_rows(), trainer.state.best_global_step if trainer.holds_best else None
        rows = {f"step {row['step']}" if row["step"] else "before": row for row in validation}
        title = "validation" if best is None else f"validation, best at step {best}"
        printed.show({"validation": validation, "best_step": best}, lambda: print_metrics(title, rows))


def grpo(arguments: GrpoArguments, training: ETEGRecGRPOConfig) -> ETEGRecGRPOTrainer:
    """Loads a recommender, trains it by rewards, and prints the path of the report."""
    check_run_folder(training, arguments.resume)
    model, tokenizer = load_recommender(arguments.model)
    prepared = load_prepared(arguments.data).with_items(tokenizer.item_ids)
    folder = arguments.collaborative_model
    collaborative = load_collaborative_model(folder, prepared) if folder else None
    rewards = [
        make_reward(name, model, prepared, training.num_generations, collaborative) for name in arguments.rewards
    ]
    if training.reward_weights is None:
        training.reward_weights = default_weights(arguments.rewards)
    data = RecommenderData(prepared, eval_samples=arguments.eval_samples)
    trainer = train_by_rewards(model, tokenizer, data, rewards, training, record_of(prepared, arguments.model))
    print_report(trainer)
    return trainer
