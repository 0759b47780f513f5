"""The progress of a run on a terminal or in a log file."""

import math

from rich.progress import TaskID
from transformers import TrainerCallback
from transformers.trainer_utils import has_length

from ...data.progress import WorkProgress

# Entries of a log that the bar already shows, or that are of no use on a terminal
HIDDEN = ("total_flos", "epoch", "step", "grad_norm", "learning_rate")
HIDDEN_PARTS = ("runtime", "_per_second", "train_loss", "num_tokens", "perplexity_", "gini_", "prefixes_")
MOMENTS = 12  # logs of a run that are printed, evenly spread; as many evaluations are printed too


class TrainingProgressCallback(TrainerCallback):
    """Shows phase, step, samples per second, remaining time and the last loss, instead of transformers' bar.

    About 12 times per run, evenly spread, and at the end, a line of logged values is printed; on a terminal, above
    the bar. As many evaluations are printed, with Recall@10 and NDCG@10 if they are measured. Everything logged at one
    step is one line. If early stopping ended the run, a last line says why. Only the main process shows progress.

    Args:
        trainer ([`BaseTrainer`]): the trainer. `progress_title` names the phase, and `samples_per_epoch()` are
            counted as `unit`.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.progress = WorkProgress(trainer.is_world_process_zero())
        self.training: TaskID | None = None
        self.evaluation: TaskID | None = None
        self.last_moment: dict[str, float] = {}  # step of the last printed log, and of the last printed evaluation
        self.figures: dict[str, str] = {}  # values of this step, to be printed when the step is over

    def close(self) -> None:
        """Ends the display, also in the middle of training, and restores the terminal."""
        self.tell_figures()
        if self.progress.task_ids:
            self.progress.stop()
        for task in self.progress.task_ids:
            self.progress.remove_task(task)
        self.training = self.evaluation = None

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        self.close()
        steps = len(train_dataloader) / args.gradient_accumulation_steps  # of an epoch
        samples = self.trainer.samples_per_epoch() / steps
        self.last_moment = {}
        self.progress.start()
        self.training = self.progress.begin(
            self.trainer.progress_title, state.max_steps, self.trainer.unit, samples, state.global_step
        )

    def on_step_begin(self, args, state, control, **kwargs):
        self.tell_figures()

    def on_step_end(self, args, state, control, **kwargs):
        if self.training is not None:
            self.progress.update(self.training, description=self.trainer.progress_title)
            self.progress.work_done(self.training)

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        if not has_length(eval_dataloader):
            return
        if self.evaluation is None:
            batches = len(eval_dataloader)
            self.progress.start()
            self.evaluation = self.progress.begin(
                "evaluation", batches, "users", samples=len(eval_dataloader.dataset) / batches
            )
        self.progress.work_done(self.evaluation)

    def on_evaluate(self, args, state, control, **kwargs):
        if self.training is None:
            self.close()
        elif self.evaluation is not None:
            self.progress.remove_task(self.evaluation)
            self.evaluation = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        figures = {name.removeprefix("eval_"): f"{value:.4g}" for name, value in logs.items() if is_shown(name, value)}
        if self.training is None or not figures:
            return
        if "loss" in logs:
            self.progress.update(self.training, note=f"loss {figures['loss']}")
        is_evaluation = any(name.startswith("eval_") for name in logs)
        if self.is_moment("evaluation" if is_evaluation else "training", state):
            at_ten = {name: value for name, value in figures.items() if name.endswith("@10")}
            self.figures |= at_ten or figures

    def is_moment(self, kind: str, state) -> bool:
        """Returns whether values of this kind that are logged at the current step are printed."""
        since = state.global_step - self.last_moment.get(kind, -math.inf)
        if 0 < since < state.max_steps / MOMENTS and state.global_step < state.max_steps:
            return False
        self.last_moment[kind] = state.global_step
        return True

    def tell_figures(self) -> None:
        """Prints the collected values of a step in one line."""
        if self.figures and self.training is not None:
            self.progress.tell(self.training, ", ".join(f"{name} {value}" for name, value in self.figures.items()))
        self.figures = {}

    def on_train_end(self, args, state, control, **kwargs):
        self.close()
        if self.trainer.early_stop:
            self.progress.say(self.trainer.early_stop)


def is_shown(name: str, value: object) -> bool:
    """Returns whether a printed line shows this entry of a log."""
    return isinstance(value, int | float) and name not in HIDDEN and not any(part in name for part in HIDDEN_PARTS)
