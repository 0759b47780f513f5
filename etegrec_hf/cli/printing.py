"""`--json`: prints one JSON document on stdout, and everything else on stderr."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass
class PrintArguments:
    """Options of printing a command's results."""

    help_group: ClassVar[str] = "output"

    json: bool = field(
        default=False, metadata={"help": "Print one JSON document on stdout, and everything else on stderr."}
    )

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Sends everything that is printed within the context to stderr, if `json` is True."""
        with redirect_stdout(sys.stderr) if self.json else nullcontext():
            yield

    def show(self, results: dict | list, table: Callable[[], object]) -> None:
        """Prints the results by `table`, or as a JSON document in which NaN and infinity are `null`."""
        if self.json:
            finite = json.loads(json.dumps(results), parse_constant=lambda name: None)
            print(json.dumps(finite, indent=2, ensure_ascii=False))
        else:
            table()
