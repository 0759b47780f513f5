"""Runs a command, and turns errors into one line."""

import sys
from importlib import import_module

from rich.console import Console

from etegrec_cli import COMMANDS, main

__all__ = ["COMMANDS", "USER_ERRORS", "main", "run_command"]

USER_ERRORS = (ValueError, FloatingPointError, OSError)


def run_command(command: str, argv: list[str], debug: bool = False) -> int:
    """Runs a command; with `debug` errors are raised.

    Returns:
        0, or 1 for an error of the input or an unexpected one.

    Raises:
        SystemExit: a wrong call, with code 2, or one for help.
    """
    try:
        import_module(f"{__package__}.{command.replace('-', '_')}").run(argv)
    except Exception as error:
        if debug:
            raise
        Console(stderr=True).print(
            f"etegrec {command}: {explained(error)}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        return 1
    return 0


def explained(error: Exception) -> str:
    """An error in one line, and what to do about one that is no error of the input."""
    message = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, USER_ERRORS):
        return message
    return (
        f"unexpected {type(error).__name__}: {message}; run it again with --debug, and report the trace with what "
        "`etegrec env` prints."
    )


if __name__ == "__main__":
    sys.exit(main())
