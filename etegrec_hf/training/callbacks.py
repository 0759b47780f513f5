"""What happens at the borders of epochs."""

import signal
import threading

import torch
from accelerate.utils import broadcast
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
    """Computes all item codes again at the end of each tokenizer epoch; logs what changed and how they are used."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        if self.trainer.phase == "tokenizer":
            changed = refresh_item_codes(model, args.code_strategy, self.trainer.semantic_embedding)
            model.set_item_codes(broadcast(model.item_codes.contiguous()))  # the first process's, on all devices
            for name, figure in (
                changed | code_diagnostics(self.trainer.prefixes(), model.config.codebook_size)
            ).items():
                self.trainer.log_part(name, figure)


class CodeUsageCallback(TrainerCallback):
    """Revives dead codes after each epoch of RQ-VAE training but the last, and logs usage and collisions.

    The figures are those before the revival, logged with the loss where that is logged by epochs.

    Args:
        trainer ([`RQVAETrainer`]): its training items are all items.
    """

    def __init__(self, trainer):
        self.trainer = trainer

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        embeddings = self.trainer.train_dataset.embeddings
        is_due = control.should_log
        figures = code_diagnostics(model.encode(embeddings), model.config.codebook_size) if is_due else {}
        if args.revive_dead_codes and state.global_step < state.max_steps:
            figures["revived_codes"] = revive_dead_codes(model, embeddings)
        if is_due:
            self.trainer.log(figures)
            control.should_log = True  # which every log takes back; the loss is still to come


class StartingPointCallback(TrainerCallback):
    """Evaluates the model before its first step, so that whatever training does is seen beside it.

    Where the best checkpoint is kept, the starting model is one, and is what remains if nothing gets better.

    Args:
        trainer (`Trainer`): it is evaluated and saved by its own methods.
    """

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.log_history and args.eval_strategy != "no":
            metrics = self.trainer.evaluate()
            if args.load_best_model_at_end:
                self.trainer._determine_best_metric(metrics, trial=None)
                self.trainer._save_checkpoint(self.trainer.model_wrapped, trial=None)


class GenerationBorderCallback(TrainerCallback):
    """Postpones what is due while completions are still being trained on until new ones are to be generated.

    Completions in use are in no checkpoint, so a run resumed from one in between would generate others.

    Args:
        batches (`int`): that a round of completions is trained on.
    """

    def __init__(self, batches: int):
        self.batches = batches
        self.save = self.evaluate = False

    def on_step_end(self, args, state, control, **kwargs):
        self.save |= control.should_save
        self.evaluate |= control.should_evaluate
        border = state.global_step * args.gradient_accumulation_steps % self.batches == 0
        if border or control.should_training_stop:
            control.should_save, control.should_evaluate = self.save, self.evaluate
            self.save = self.evaluate = False
        else:
            control.should_save = control.should_evaluate = False


class TerminationCallback(TrainerCallback):
    """Ends training on SIGTERM: with a checkpoint as soon as one can be resumed exactly, and exit status 143.

    A second SIGTERM ends the process at once. In several processes, all end together as soon as one was told to.

    Args:
        trainer (`Trainer`): whose processes agree.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.told = self.ending = False
        self.handler = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.told = self.ending = False
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            self.handler = signal.signal(signal.SIGTERM, self.note)

    def note(self, number, frame) -> None:
        """Remembers that SIGTERM came."""
        self.told = True
        signal.signal(signal.SIGTERM, self.handler)

    def on_step_end(self, args, state, control, **kwargs):
        if args.world_size > 1:
            told = torch.tensor(float(self.told), device=args.device)
            self.told = self.trainer.accelerator.reduce(told, "sum").item() > 0
        if self.told:
            self.ending = control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        if self.ending:
            raise SystemExit(128 + signal.SIGTERM)

    def close(self) -> None:
        """Gives the signal back, also where training broke off."""
        if self.handler is not None:
            signal.signal(signal.SIGTERM, self.handler)
            self.handler = None
