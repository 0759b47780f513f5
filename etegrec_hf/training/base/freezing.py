"""Weights that stand still for a while, and are trained again afterwards."""

from collections.abc import Iterable

from torch import nn


def freeze(weights: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Freezes those of `weights` that are trained, and returns them, so that no others are thawed later."""
    trained = [weight for weight in weights if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    return trained


def thaw(weights: Iterable[nn.Parameter]) -> None:
    """Lets weights be trained again."""
    for weight in weights:
        weight.requires_grad_(True)
