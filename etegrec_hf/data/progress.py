"""Progress of long work on stderr: a bar on a terminal, otherwise a line every 30 seconds."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from transformers.utils import logging

SECONDS_BETWEEN_LINES = 30
SECONDS_OF_SPEED = 300  # period over which the speed is averaged


@contextmanager
def bars_hidden() -> Iterator[None]:
    """Hides the bars of transformers for reading and writing weights; bars of downloads from the Hub are shown.

    In a log file, each of these bars would be a line among those of the command.
    """
    before = logging.set_tqdm_hook(lambda factory, args, kwargs: logging.EmptyTqdm(*args, **kwargs))
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


class WorkProgress(Progress):
    """A context with one `rich` bar per task, which shows samples per second and the time left.

    If stderr isn't a terminal, `work_done` prints a line every 30 seconds, and the end of the context one per task.

    Args:
        shown (`bool`, *optional*, defaults to `True`): whether anything is printed; of several processes, one should.
    """

    def __init__(self, shown: bool = True):
        console = Console(stderr=True)
        self.shown, self.as_lines = shown, shown and not console.is_terminal
        self.next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            SpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not (shown and console.is_terminal),
            speed_estimate_period=SECONDS_OF_SPEED,
            redirect_stdout=sys.stdout.isatty(),  # otherwise output for a pipe would go to the terminal
        )

    def begin(self, description: str, total: int, unit: str, samples: float = 1.0, completed: int = 0) -> TaskID:
        """Adds a task of `total` steps with `samples` samples each; `unit` is the name of the samples."""
        return self.add_task(
            description, total=total, completed=completed, unit=unit, samples=samples, note="", printed=None
        )

    def work_done(self, task_id: TaskID, steps: int = 1) -> None:
        """Counts `steps` more steps of a task as done."""
        self.advance(task_id, steps)
        if self.as_lines and time.monotonic() > self.next_line:
            self.tell(task_id)

    def tell(self, task_id: TaskID, note: str = "") -> None:
        """Prints a line about a task: above the bars, or instead of them if there are none."""
        if self.shown:
            self.next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            task = self._tasks[task_id]
            self.update(task_id, printed=task.completed)
            self.say(described(task, note))

    def say(self, line: str) -> None:
        """Prints a line above the bars."""
        if self.shown:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        super().stop()
        if self.as_lines:
            for task in self.tasks:
                if task.fields["printed"] != task.completed:
                    self.tell(task.id)


class SpeedColumn(ProgressColumn):
    """The column of samples per second."""

    def render(self, task: Task) -> Text:
        return Text(speed_of(task), style="progress.data.speed")


def speed_of(task: Task) -> str:
    """Returns samples per second as text; empty as long as there is no figure."""
    steps = task.finished_speed or task.speed
    return f"{steps * task.fields['samples']:,.0f} {task.fields['unit']}/s" if steps else ""


def described(task: Task, note: str = "") -> str:
    """Describes a task in one line: name, steps done, speed, time left and `note`."""
    left = f"{timedelta(seconds=int(task.time_remaining))} left" if task.time_remaining else ""
    parts = [f"{task.description} {task.completed:.0f}/{task.total:.0f}", speed_of(task), left, note]
    return ", ".join(part for part in parts if part)
