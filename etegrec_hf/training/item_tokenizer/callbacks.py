"""Moving unused codes between the epochs of RQ-VAE training."""

from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy

from ...evaluation.code_diagnostics import code_diagnostics
from .codebooks import revive_dead_codes


class CodeUsageCallback(TrainerCallback):
    """Moves unused codes after each epoch of RQ-VAE training but the last, and logs code usage and collisions.

    The last epoch may also be one that a time limit ended: nothing would train the codes any more. The logged figures
    are those before codes are moved.

    Args:
        trainer ([`RQVAETrainer`]): the trainer, whose training items are all items.
    """

    def __init__(self, trainer):
        self.trainer = trainer

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        embeddings = self.trainer.train_dataset.embeddings
        logs = args.logging_strategy != IntervalStrategy.NO
        figures = code_diagnostics(model.encode(embeddings), model.config.codebook_size) if logs else {}
        learns = model.quantizer.codebooks.requires_grad  # the caller may have frozen them
        goes_on = state.global_step < state.max_steps and not self.trainer.updates_left_out
        if args.revive_dead_codes and learns and goes_on:
            figures["revived_codes"] = revive_dead_codes(model, embeddings)
        if logs:
            is_due = control.should_log
            self.trainer.log(figures)
            control.should_log = is_due  # logging the figures has reset it, and the loss isn't logged yet
