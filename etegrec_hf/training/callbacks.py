"""What happens at the borders of epochs."""

from transformers import TrainerCallback

from ..evaluation.code_diagnostics import code_diagnostics
from .codebooks import revive_dead_codes
from .item_codes import refresh_item_codes


class AlternatingPhaseCallback(TrainerCallback):
    """Freezes and thaws the two sides as the arguments' `phase(epoch)` says.

    Evaluation is left out after tokenizer epochs: the recommender has not seen the new codes yet.

    Args:
        trainer ([`ETEGRecTrainer`]): told about each phase by `enter_phase`.
    """

    def __init__(self, trainer):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        epoch = int(state.epoch + 1e-6)  # a mid-epoch resume begins inside an epoch
        self.trainer.enter_phase(args.phase(epoch), aligned=epoch >= args.warm_epochs)

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.trainer.phase == "tokenizer":
            control.should_evaluate = False

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
        if args.revive_dead_codes and state.epoch + 1 <= args.num_train_epochs:
            figures["revived_codes"] = revive_dead_codes(model, embeddings)
        if control.should_log:
            self.trainer.log(figures)
