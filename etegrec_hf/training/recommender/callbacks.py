"""The phases of alternating training."""

from accelerate.utils import broadcast
from transformers import TrainerCallback

from ...evaluation.code_diagnostics import code_diagnostics
from ..item_tokenizer.item_codes import refresh_item_codes
from .checks import check_warm_epochs


class AlternatingPhaseCallback(TrainerCallback):
    """Freezes and thaws item tokenizer and recommender in turns, by the arguments' `phase(epoch)`.

    Tokenizer epochs have no evaluation: the recommender doesn't change, and hasn't learned the new codes yet.

    Args:
        trainer ([`ETEGRecTrainer`]): the trainer, whose `enter_phase` is called at the start of each epoch.
    """

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            check_warm_epochs(args, state.num_train_epochs)

    def on_epoch_begin(self, args, state, control, **kwargs):
        epoch = int(state.epoch + 1e-6)  # a resumed run may begin in the middle of an epoch
        self.trainer.enter_phase(args.phase(epoch), aligned=epoch >= args.warm_epochs)

    def on_step_end(self, args, state, control, **kwargs):
        if self.trainer.phase == "tokenizer":
            control.should_evaluate = False

    on_epoch_end = on_step_end


class CodeRefreshCallback(TrainerCallback):
    """Computes all item codes again at the end of each tokenizer epoch, and logs code changes and code usage."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        if self.trainer.phase == "tokenizer":
            changed = refresh_item_codes(model, args.code_strategy, self.trainer.semantic_embedding)
            model.set_item_codes(
                broadcast(model.catalogue.item_codes.contiguous())
            )  # all processes get the codes of the first
            for name, figure in (
                changed | code_diagnostics(self.trainer.prefixes(), model.config.codebook_size)
            ).items():
                self.trainer.log_part(name, figure)
