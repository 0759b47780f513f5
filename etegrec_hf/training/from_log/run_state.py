"""What a run of `fit` has done, kept in its folder so that another call can go on with it."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...data.folders import check_output_dir, replace_file

FILE = "fit.json"


class RunState:
    """The folder of a run, and which of its stages have ended.

    Args:
        folder (`Path`): a new one, or that of an earlier call with the same arguments; those of a call that ended
            before it made a plan may differ.
        asked (`dict`): the arguments, as JSON keeps them.
        tell (`Callable`): is given each sentence about what happens.
        seconds (`float`, *optional*): that the run may take from now on.

    Raises:
        FileExistsError: the folder holds something else, or a run with other arguments.
        ValueError: what is known of the run is damaged.
    """

    def __init__(self, folder: Path, asked: dict, tell: Callable[[str], object], seconds: float | None = None):
        self.folder, self.tell = folder, tell
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.known: dict[str, Any] = {"asked": asked, "ended": {}, "left_out": []}
        if (folder / FILE).is_file():
            self.known = self._read(asked)
        else:
            check_output_dir(folder)
            self.write()  # so that another call knows the folder, whenever this one ends

    def _read(self, asked: dict) -> dict:
        try:
            known = json.loads((self.folder / FILE).read_text(encoding="utf-8"))
            before, _, _ = known["asked"], known["ended"], known["left_out"]
            is_begun = "preset" in known
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.folder / FILE} is damaged; remove the folder, or name another.") from error
        if before != asked and not is_begun:  # nothing is there but the prepared log
            return {"asked": asked, "ended": {}, "left_out": []}
        for name in dict.fromkeys([*before, *asked]):
            if before.get(name) != asked.get(name):
                raise FileExistsError(
                    f"`output_dir` {str(self.folder)!r} holds a run whose `{name}` is {before.get(name)!r}, and here "
                    f"it is {asked.get(name)!r}; name another folder, or repeat that call to go on with its run."
                )
        return known

    @property
    def seconds_left(self) -> float | None:
        """Seconds that are left, if the run has a limit."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def path(self, name: str) -> str:
        """Returns the path of a file or folder of the run."""
        return str(self.folder / name)

    def has_ended(self, stage: str) -> bool:
        """Whether a stage ended, in this call or in one before."""
        return stage in self.known["ended"]

    def end(self, stage: str, seconds: float) -> None:
        """Keeps that a stage has ended."""
        self.known["ended"][stage] = round(seconds, 1)
        self.write()

    def leave_out(self, sentence: str) -> None:
        """Keeps and tells what the run doesn't do; what an interrupted call kept isn't kept twice."""
        if sentence not in self.known["left_out"]:
            self.known["left_out"].append(sentence)
        self.tell(f"left out: {sentence}")
        self.write()

    def write(self) -> None:
        """Writes what is known."""
        text = json.dumps(self.known, indent=2) + "\n"
        replace_file(self.folder / FILE, lambda beside: beside.write_text(text, encoding="utf-8"))
