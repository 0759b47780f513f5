"""Callbacks of all trainings, for the borders of epochs, early stopping, SIGTERM, time limits and measured time."""

import signal
import threading
import time

import torch
import transformers
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ...data.wording import counted


class EpochBorderCallback(TrainerCallback):
    """Postpones evaluations and checkpoints that are due at an epoch's last step until the epoch has ended.

    Item codes are computed again, and unused codes are moved, when an epoch ends. A checkpoint of the last step before
    would lack that, and a run resumed from the checkpoint would never do it.
    """

    def on_step_end(self, args, state, control, **kwargs):
        border = float(state.epoch).is_integer()
        self.save, self.evaluate = border and control.should_save, border and control.should_evaluate
        if border:
            control.should_save = control.should_evaluate = False

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_save |= self.save
        control.should_evaluate |= self.evaluate


class SamplerEpochCallback(TrainerCallback):
    """Tells the sampler of training samples which epoch begins, also when an epoch is resumed in its middle.

    accelerate wraps the loader of a resumed epoch once more, and with several processes neither its `set_epoch` nor
    transformers' reaches the sampler through these layers. Samples would come in the order of the first epoch.
    """

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        train_dataloader.set_epoch(int(state.epoch + 1e-6))  # of a resumed run, the epoch has a fraction


class EarlyStoppingCallback(transformers.EarlyStoppingCallback):
    """Early stopping of transformers, which looks only at the dataset that `metric_for_best_model` names.

    The class has its parent's name, because checkpoints store its state by that name. When it ends a training,
    `reason` is a sentence that says where and why; otherwise it is empty.
    """

    reason = ""

    def on_train_begin(self, args, state, control, **kwargs):
        self.reason = ""
        super().on_train_begin(args, state, control, **kwargs)

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        metric = args.metric_for_best_model.removeprefix("eval_")
        if f"eval_{metric}" not in metrics:
            return
        super().on_evaluate(args, state, control, metrics, **kwargs)
        worse = self.early_stopping_patience_counter
        if worse >= self.early_stopping_patience:
            self.reason = (
                f"stopped early at step {state.global_step} of {state.max_steps} (epoch {state.epoch:.4g}): {metric} "
                f"hasn't improved for {counted(worse, 'evaluation')}, its best is {state.best_metric:.4g}"
            )


class TerminationCallback(TrainerCallback):
    """Ends training on SIGTERM, with a checkpoint and exit status 143.

    Training goes on until the next step whose checkpoint can be resumed exactly. If there is none, because the last
    update is made, it ends without one. A second SIGTERM ends the process at once. If one of several processes gets
    the signal, all end together.

    Args:
        trainer (`Trainer`): the trainer whose processes end.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.is_requested = self.is_ending = False
        self.handler = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.is_requested = self.is_ending = False
        if threading.current_thread() is threading.main_thread():  # other threads may not handle signals
            self.handler = signal.signal(signal.SIGTERM, self.note)

    def note(self, number, frame) -> None:
        """Handles SIGTERM: training ends when it can."""
        self.is_requested = True
        signal.signal(signal.SIGTERM, self.handler)

    def on_step_end(self, args, state, control, **kwargs):
        if self._is_requested_anywhere(args):
            self.is_ending = control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        if self.is_ending:
            raise SystemExit(128 + signal.SIGTERM)

    def on_train_end(self, args, state, control, **kwargs):
        if self._is_requested_anywhere(args):
            raise SystemExit(128 + signal.SIGTERM)

    def _is_requested_anywhere(self, args) -> bool:
        """Returns whether any of the processes has got the signal."""
        if args.world_size > 1:
            requests = torch.tensor(float(self.is_requested), device=args.device)
            self.is_requested = self.trainer.accelerator.reduce(requests, "sum").item() > 0
        return self.is_requested

    def close(self) -> None:
        """Restores the earlier handler of SIGTERM, also after an error."""
        if self.handler is not None:
            signal.signal(signal.SIGTERM, self.handler)
            self.handler = None


class TimeLimitCallback(TrainerCallback):
    """Ends training after `args.max_seconds`, with an evaluation and a checkpoint if the run has those.

    A resumed run has the whole time again. Several processes read the clock of the main process.

    Args:
        trainer ([`BaseTrainer`]): training ends at a step where the trainer's `may_end` is true.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.start = 0.0
        self.has_ended_it = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.monotonic()
        self.has_ended_it = False

    def on_step_end(self, args, state, control, **kwargs):
        is_over = time.monotonic() - self.start >= args.max_seconds
        if args.world_size > 1:
            is_over = broadcast_object_list([is_over])[0]
        if is_over and self.trainer.may_end:
            control.should_training_stop = self.has_ended_it = True
            # evaluation and saving by epoch take the end of training for the end of an epoch
            control.should_evaluate |= args.eval_strategy == IntervalStrategy.STEPS
            control.should_save |= args.save_strategy == SaveStrategy.STEPS


class StageClock(TrainerCallback, ExportableState):
    """Counts the seconds of training, including those before an interruption."""

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
