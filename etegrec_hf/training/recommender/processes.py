"""Equal weights in all processes of a training."""

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn

from ...models.modeling_etegrec import ETEGRecForConditionalGeneration


@torch.no_grad()
def start_alike(model: ETEGRecForConditionalGeneration) -> None:
    """Gives all processes the weights and buffers of the first process."""
    broadcast([*model.parameters(), *model.buffers()])
    model.catalogue.tables_changed()


def average_gradients(accelerator: Accelerator, weights: Iterable[nn.Parameter]) -> None:
    """Sets the gradients of `weights` to their mean over all processes, in one reduction."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    means = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    parts = means.split([gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, parts):
        gradient.copy_(mean.view_as(gradient))
