"""Training in several processes that stay alike."""

import torch
from accelerate.utils import broadcast
from transformers import Trainer


class MeanGradients(Trainer):
    """A Trainer whose processes start from the same model and update it by the mean of their gradients.

    Overrides `_prepare_for_training` and `training_step`, in the place of DDP, which fixes when it is made what it
    averages, and averages after a `forward` of the whole model. Here the sides take turns, and the tokenizer phase
    calls the RQ-VAE alone.
    """

    def _prepare_for_training(self, *args, **kwargs):
        """Starts all processes from the first one's weights and codes, on models that DDP doesn't wrap.

        Accelerate leaves a model as it is that it has prepared for evaluation already.
        """
        self.accelerator.prepare_model(self.model, evaluation_mode=True)
        prepared = super()._prepare_for_training(*args, **kwargs)
        with torch.no_grad():
            broadcast([*self.model.parameters(), *self.model.buffers()])
        return prepared

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """A step of this process, and the mean of all processes' gradients."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.args.world_size > 1 and self.accelerator.sync_gradients:
            gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
            means = self.accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
            parts = means.split([gradient.numel() for gradient in gradients])
            for gradient, mean in zip(gradients, parts):
                gradient.copy_(mean.view_as(gradient))
        return loss
