"""Freezing weights for a while, and training them again afterwards."""

from collections.abc import Iterable

from torch import nn


def freeze(weights: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Freezes the weights that aren't frozen yet, and returns them, so that only these are thawed later."""
    trained = [weight for weight in weights if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    return trained


def thaw(weights: Iterable[nn.Parameter]) -> None:
    """Lets weights be trained again."""
    for weight in weights:
        weight.requires_grad_(True)
