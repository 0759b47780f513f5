"""How far long work is: a bar on a terminal, and now and then a line elsewhere. Both on stderr."""

import sys
import time
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

SECONDS_BETWEEN_LINES = 30
SECONDS_OF_SPEED = 300  # whose mean it is


class WorkProgress(Progress):
    """A `rich` bar for each task, with samples a second and the time that is left; used as a context.

    Where stderr is no terminal, `work_done` prints a line every 30 seconds, and the end of the context one a task.

    Args:
        shown (`bool`, *optional*, defaults to `True`): whether anything is; one process of several shows it.
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
            redirect_stdout=sys.stdout.isatty(),  # else what is piped away would end on the terminal
        )

    def begin(self, description: str, total: int, unit: str, samples: float = 1.0, completed: int = 0) -> TaskID:
        """Adds a task of `total` steps of `samples` samples each, which are counted by the name `unit`."""
        return self.add_task(
            description, total=total, completed=completed, unit=unit, samples=samples, note="", printed=None
        )

    def work_done(self, task_id: TaskID, steps: int = 1) -> None:
        """So many more steps of a task are done."""
        self.advance(task_id, steps)
        if self.as_lines and time.monotonic() > self.next_line:
            self.tell(task_id)

    def tell(self, task_id: TaskID, note: str = "") -> None:
        """Prints a line about a task: above the bars, or where there are none instead of them."""
        if self.shown:
            self.next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            task = self._tasks[task_id]
            self.update(task_id, printed=task.completed)
            self.console.print(described(task, note), markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        super().stop()
        if self.as_lines:
            for task in self.tasks:
                if task.fields["printed"] != task.completed:
                    self.tell(task.id)


class SpeedColumn(ProgressColumn):
    """Samples a second."""

    def render(self, task: Task) -> Text:
        return Text(speed_of(task), style="progress.data.speed")


def speed_of(task: Task) -> str:
    """Samples a second in words; nothing before there is a figure."""
    steps = task.finished_speed or task.speed
    return f"{steps * task.fields['samples']:,.0f} {task.fields['unit']}/s" if steps else ""


def described(task: Task, note: str = "") -> str:
    """A task in one line: what, how far, how fast, what is left of it, and `note`."""
    left = f"{timedelta(seconds=int(task.time_remaining))} left" if task.time_remaining else ""
    parts = [f"{task.description} {task.completed:.0f}/{task.total:.0f}", speed_of(task), left, note]
    return ", ".join(part for part in parts if part)
