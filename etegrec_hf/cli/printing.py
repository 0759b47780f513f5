"""`--json`: one document on stdout, and all else that is told on stderr."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass
class PrintArguments:
    """How a command prints its results."""

    help_group: ClassVar[str] = "output"

    json: bool = field(
        default=False, metadata={"help": "Print one JSON document on stdout instead of tables, all else on stderr."}
    )

    @contextmanager
    def apart(self) -> Iterator[None]:
        """While results are being made: with `json`, what is printed meanwhile goes to stderr."""
        with redirect_stdout(sys.stderr) if self.json else nullcontext():
            yield

    def show(self, results: dict | list, table: Callable[[], object]) -> None:
        """Prints the results: as a document, in which NaN and infinity are `null`, or by `table`."""
        if self.json:
            finite = json.loads(json.dumps(results), parse_constant=lambda name: None)
            print(json.dumps(finite, indent=2, ensure_ascii=False))
        else:
            table()
