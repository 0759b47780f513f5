"""Learning rate schedules that advance only while their parameters are trained."""

from collections.abc import Callable

import torch
from transformers import SchedulerType, get_scheduler

from .arguments import ETEGRecTrainingArguments


class PhaseScheduler:
    """A learning rate schedule per parameter group, which pauses while the group is frozen.

    Args:
        optimizer (`torch.optim.Optimizer`): the optimizer. The first learning rate of a group is the base of its
            schedule, also after a state was loaded. As in torch, the group keeps it as `initial_lr`, for the schedule
            of a further run.
        factors (`list[Callable[[int], float]]`): one function per group, from the number of the group's own steps to
            the factor of its learning rate.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, factors: list[Callable[[int], float]]):
        self.optimizer, self.factors = optimizer, factors
        self.base_rates = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self.steps = [0] * len(factors)
        self._apply()

    def _apply(self) -> None:
        for group, base, factor, steps in zip(self.optimizer.param_groups, self.base_rates, self.factors, self.steps):
            group["lr"] = base * factor(steps)

    def step(self) -> None:
        """Advances the schedules of the groups that are trained now."""
        for number, group in enumerate(self.optimizer.param_groups):
            self.steps[number] += is_trained(group)
        self._apply()

    def get_last_lr(self) -> list[float]:
        """Returns the groups' learning rates; groups that are trained now come first."""
        groups = sorted(self.optimizer.param_groups, key=lambda group: not is_trained(group))
        return [group["lr"] for group in groups]

    def state_dict(self) -> dict:
        return {"steps": list(self.steps)}

    def load_state_dict(self, state: dict) -> None:
        self.steps = list(state["steps"])
        self._apply()


def is_trained(group: dict) -> bool:
    """Returns whether any weight of the group is trained now; callers may have frozen some."""
    return any(weight.requires_grad for weight in group["params"])


def phase_scheduler(
    optimizer: torch.optim.Optimizer, args: ETEGRecTrainingArguments, n_steps: int, epoch_steps: int
) -> PhaseScheduler:
    """Returns a schedule of `lr_scheduler_type` per group, over the steps of the group's own phase.

    Args:
        optimizer (`torch.optim.Optimizer`): optimizer with groups of the recommender and, if there is one, of the item
            tokenizer.
        args ([`ETEGRecTrainingArguments`]): arguments with the phases of epochs and the kind of schedule.
        n_steps (`int`): steps of the run.
        epoch_steps (`int`): steps per epoch.

    Raises:
        ValueError: the run ends in a tokenizer epoch.
        ValueError: the schedule doesn't follow steps.
    """
    phases = [args.phase(step // epoch_steps) for step in range(n_steps)]
    if phases[-1] == "tokenizer":
        raise ValueError(
            f"`max_steps` {n_steps} ends in a tokenizer epoch ({epoch_steps} steps per epoch, `cycle` {args.cycle}), "
            "and the recommender wouldn't learn the new codes; end training in a recommender epoch."
        )
    tokenizer_steps = phases.count("tokenizer")
    factors = []
    for steps, group in zip((n_steps - tokenizer_steps, tokenizer_steps), optimizer.param_groups):
        schedule = get_scheduler(
            args.lr_scheduler_type,
            torch.optim.SGD([torch.zeros(1)], lr=group.get("initial_lr", group["lr"])),
            num_warmup_steps=args.get_warmup_steps(steps),
            num_training_steps=max(1, steps),
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,
        )
        if not hasattr(schedule, "lr_lambdas"):
            kind = SchedulerType(args.lr_scheduler_type).value
            raise ValueError(
                f"`lr_scheduler_type` is {kind!r}, which follows metrics and not steps; choose one "
                "like 'cosine', 'linear' or 'constant'."
            )
        factors.append(schedule.lr_lambdas[0])
    return PhaseScheduler(optimizer, factors)
