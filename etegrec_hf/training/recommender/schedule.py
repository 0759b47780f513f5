"""Learning rates that advance only while their parameters are trained."""

from collections.abc import Callable

import torch


class PhaseScheduler:
    """A learning rate schedule for each parameter group, which stands still while the group is frozen.

    Args:
        optimizer (`torch.optim.Optimizer`): its groups' first learning rates are the schedules' base; as in torch, a
            group keeps them as `initial_lr`, for the schedule of a further run.
        factors (`list[Callable[[int], float]]`): for each group, the factor after a number of its own steps.
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
        """Advances the groups that are trained now."""
        for number, group in enumerate(self.optimizer.param_groups):
            self.steps[number] += group["params"][0].requires_grad
        self._apply()

    def get_last_lr(self) -> list[float]:
        """The groups' learning rates, those that are trained now first."""
        groups = sorted(self.optimizer.param_groups, key=lambda group: not group["params"][0].requires_grad)
        return [group["lr"] for group in groups]

    def state_dict(self) -> dict:
        return {"steps": list(self.steps), "base_rates": list(self.base_rates)}

    def load_state_dict(self, state: dict) -> None:
        self.steps, self.base_rates = list(state["steps"]), list(state["base_rates"])
        self._apply()
