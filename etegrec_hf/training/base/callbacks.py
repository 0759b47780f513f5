"""Callbacks of all trainings: borders of epochs, SIGTERM, and the time that training takes and may take."""

import signal
import threading
import time

import torch
import transformers
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import IntervalStrategy, SaveStrategy


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


class EarlyStoppingCallback(transformers.EarlyStoppingCallback):
    """Transformers', asked for evaluations of the dataset alone that `metric_for_best_model` names.

    It has its parent's name, by which checkpoints know its state.
    """

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        if f"eval_{args.metric_for_best_model.removeprefix('eval_')}" in metrics:
            super().on_evaluate(args, state, control, metrics, **kwargs)


class TerminationCallback(TrainerCallback):
    """Ends training on SIGTERM: with a checkpoint as soon as one can be resumed exactly, and exit status 143.

    A second SIGTERM ends the process at once. Several processes end together as soon as one of them gets the signal.

    Args:
        trainer (`Trainer`): its processes agree.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.is_requested = self.is_ending = False
        self.handler = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.is_requested = self.is_ending = False
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            self.handler = signal.signal(signal.SIGTERM, self.note)

    def note(self, number, frame) -> None:
        """Remembers that SIGTERM came."""
        self.is_requested = True
        signal.signal(signal.SIGTERM, self.handler)

    def on_step_end(self, args, state, control, **kwargs):
        if args.world_size > 1:
            requests = torch.tensor(float(self.is_requested), device=args.device)
            self.is_requested = self.trainer.accelerator.reduce(requests, "sum").item() > 0
        if self.is_requested:
            self.is_ending = control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        if self.is_ending:
            raise SystemExit(128 + signal.SIGTERM)

    def close(self) -> None:
        """Gives the signal back, also where training broke off."""
        if self.handler is not None:
            signal.signal(signal.SIGTERM, self.handler)
            self.handler = None


class TimeLimitCallback(TrainerCallback):
    """Ends training once it has taken `args.max_seconds`, with an evaluation and a checkpoint where runs have those.

    Seconds before an interruption don't count: each call has the whole time. Several processes go by the main one's
    clock.

    Args:
        trainer ([`BaseTrainer`]): asked by its `may_end` whether the model is one to end with.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.start = 0.0
        self.has_ended_it = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        is_over = time.monotonic() - self.start >= args.max_seconds
        if args.world_size > 1:
            is_over = broadcast_object_list([is_over])[0]
        if is_over and self.trainer.may_end:
            control.should_training_stop = self.has_ended_it = True
            # strategies by epoch take the end for that of an epoch
            control.should_evaluate |= args.eval_strategy == IntervalStrategy.STEPS
            control.should_save |= args.save_strategy == SaveStrategy.STEPS


class StageClock(TrainerCallback, ExportableState):
    """Counts the seconds of training, those before an interruption too."""

    def __init__(self):
        self.seconds_before, self.started = 0.0, None

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = time.perf_counter()

    def on_train_end(self, args, state, control, **kwargs):
        self.seconds_before, self.started = self.seconds, None

    @property
    def seconds(self) -> float:
        return self.seconds_before + (time.perf_counter() - self.started if self.started is not None else 0.0)

    def state(self) -> dict:
        return {"args": {}, "attributes": {"seconds_before": round(self.seconds, 1)}}
