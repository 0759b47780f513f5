"""What happens at the borders of epochs."""

import signal
import threading

import torch
from transformers import TrainerCallback


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
