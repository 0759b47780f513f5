"""The state of a run of `fit`, kept in its folder so that another call can resume the run."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...data.folders import check_output_dir, replace_text

FILE = "fit.json"


class RunState:
    """The folder of a run, and which of its stages have ended.

    Args:
        folder (`Path`): a new folder, or the folder of an earlier call with the same arguments. If that call ended
            before it made a plan, the arguments may differ.
        asked (`dict`): arguments of the call, as JSON stores them.
        tell (`Callable`): function that is called with each message about progress.
        seconds (`float`, *optional*): how long the run may take from now on.

    Raises:
        FileExistsError: the folder holds something else, or a run with other arguments.
        ValueError: the file with the run's state is damaged.
    """

    def __init__(self, folder: Path, asked: dict, tell: Callable[[str], object], seconds: float | None = None):
        self.folder, self.tell = folder, tell
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.known: dict[str, Any] = {"asked": asked, "ended": {}, "left_out": []}
        if (folder / FILE).is_file():
            self.known = self._read(asked)
        else:
            check_output_dir(folder)
            self.write()  # so that another call knows the folder, even if this call ends at once

    def _read(self, asked: dict) -> dict:
        try:
            known = json.loads((self.folder / FILE).read_text(encoding="utf-8"))
            before, _, _ = known["asked"], known["ended"], known["left_out"]
            is_begun = "preset" in known
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.folder / FILE} is damaged; remove the folder, or name another one.") from error
        if before != asked and not is_begun:  # the folder holds nothing but the prepared log
            return {"asked": asked, "ended": {}, "left_out": []}
        for name in dict.fromkeys([*before, *asked]):
            if before.get(name) != asked.get(name):
                raise FileExistsError(
                    f"`output_dir` {str(self.folder)!r} holds a run whose `{name}` is {before.get(name)!r}, but here "
                    f"it is {asked.get(name)!r}; name another folder, or repeat that call to resume its run."
                )
        return known

    @property
    def seconds_left(self) -> float | None:
        """Returns how many seconds are left, or `None` without a time limit."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def path(self, name: str) -> str:
        """Returns the path of a file or folder of the run."""
        return str(self.folder / name)

    def has_ended(self, stage: str) -> bool:
        """Returns whether a stage has ended, in this call or an earlier one."""
        return stage in self.known["ended"]

    def end(self, stage: str, seconds: float) -> None:
        """Records that a stage has ended, and how long it took."""
        self.known["ended"][stage] = round(seconds, 1)
        self.write()

    def leave_out(self, sentence: str) -> None:
        """Records and tells what the run leaves out; what an interrupted call recorded isn't recorded twice."""
        if sentence not in self.known["left_out"]:
            self.known["left_out"].append(sentence)
        self.tell(f"left out: {sentence}")
        self.write()

    def write(self) -> None:
        """Writes the state of the run into its folder."""
        text = json.dumps(self.known, indent=2) + "\n"
        replace_text(self.folder / FILE, text)
