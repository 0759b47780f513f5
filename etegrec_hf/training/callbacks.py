"""What happens at the borders of epochs."""

from transformers import TrainerCallback

from ..evaluation.code_diagnostics import code_diagnostics
from .codebooks import revive_dead_codes
from .item_codes import refresh_item_codes


class EpochBorderCallback(TrainerCallback):
    """Postpones what is due at an epoch's last step until the epoch has ended.

    Codes are refreshed or revived when an epoch ends. A checkpoint or evaluation of the step before would miss that,
    and a run resumed from it would never make up for it.
    """

    def on_step_end(self, args, state, control, **kwargs):
        border = float(state.epoch).is_integer()
        self.save, self.evaluate = border and control.should_save, border and control.should_evaluate
        if border:
            control.should_save = control.should_evaluate = False

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_save |= self.save
        control.should_evaluate |= self.evaluate


class AlternatingPhaseCallback(TrainerCallback):
    """Freezes and thaws the two sides as the arguments' `phase(epoch)` says.

    Evaluation is left out in tokenizer epochs: the recommender stands still, and at their end it has not seen the new
    codes yet.

    Args:
        trainer ([`ETEGRecTrainer`]): told about each phase by `enter_phase`.
    """

    def __init__(self, trainer):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        epoch = int(state.epoch + 1e-6)  # a mid-epoch resume begins inside an epoch
        self.trainer.enter_phase(args.phase(epoch), aligned=epoch >= args.warm_epochs)

    def on_step_end(self, args, state, control, **kwargs):
        if self.trainer.phase == "tokenizer":
            control.should_evaluate = False

    on_epoch_end = on_step_end

    def on_train_end(self, args, state, control, model=None, **kwargs):
        model.requires_grad_(True)


class CodeRefreshCallback(TrainerCallback):
    """Computes all item codes again at the end of each tokenizer epoch, and logs the share that changed."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        if self.trainer.phase == "tokenizer":
            self.trainer.log_part("changed_codes", refresh_item_codes(model, args.code_strategy))


class CodeUsageCallback(TrainerCallback):
    """Revives dead codes after each epoch of RQ-VAE training but the last, and logs usage and collisions.

    The figures are those before the revival, logged as often as the loss.

    Args:
        trainer ([`RQVAETrainer`]): its training items are all items.
    """

    def __init__(self, trainer):
        self.trainer = trainer

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        embeddings = self.trainer.train_dataset.embeddings.to(model.device)
        figures = code_diagnostics(model.encode(embeddings), model.config.codebook_size) if control.should_log else {}
        if args.revive_dead_codes and state.global_step < state.max_steps:
            figures["revived_codes"] = revive_dead_codes(model, embeddings)
        if control.should_log:
            self.trainer.log(figures)
