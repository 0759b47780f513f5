"""`etegrec COMMAND ...`: runs the command, and turns errors into one line. Help is shown without importing torch."""

import difflib
import os
import select
import sys
from importlib import import_module
from importlib.metadata import version
from typing import TextIO

from rich.console import Console

from .commands import COMMANDS
from .options import check_command

UNREAD = 141  # the code of a program that the system ends since nobody reads what it prints
USER_ERRORS = (ValueError, FloatingPointError, OSError)
USAGE = "\n".join(
    [
        "usage: etegrec COMMAND [--help] [--debug] ...",
        "       etegrec --version",
        "",
        "Turns interaction logs into recommenders. Begin with `quickstart`, which needs no data, or with `fit`.",
        "",
        *(f"  {name:<16} {purpose}" for name, purpose in COMMANDS.items()),
        "",
        "`etegrec COMMAND --help` shows a command's options with their defaults, and examples.",
    ]
)


def main(argv: list[str] | None = None) -> int:
    """Runs a command.

    Returns:
        the exit code: 0, or 1 for an error, 2 for a wrong call, 130 for an interruption. It is 141 if the reader of
        the output has gone, as in `etegrec env | head -1`.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # some services start programs with closed streams
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the program ends
    try:
        try:
            return run_arguments(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()  # otherwise a closed pipe would be an error when Python ends
    except (BrokenPipeError, SystemExit) as error:
        if not isinstance(error, BrokenPipeError) and not isinstance(error.__context__, BrokenPipeError):
            raise  # rich raises SystemExit for a closed pipe
        for stream in (sys.stdout, sys.stderr):
            if is_unread(stream):
                discard(stream)
        return UNREAD


def is_unread(stream: TextIO) -> bool:
    """Returns whether a stream is a pipe whose reader has gone."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), 0)
    except (OSError, ValueError):  # it isn't a file, because another program calls this function
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def discard(stream: TextIO) -> None:
    """Makes a stream drop its buffered output and all later output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def run_arguments(argv: list[str]) -> int:
    """Runs the command that the first argument names, or prints the list of commands."""
    debug = "--debug" in argv
    if debug:
        argv.remove("--debug")
    if argv and argv[0] in COMMANDS:
        try:
            return run_command(argv[0], argv[1:], debug)
        except KeyboardInterrupt:
            print(f"etegrec {argv[0]}: interrupted", file=sys.stderr)
            return 130
    if argv and argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if argv and argv[0] == "--version":
        print(f"etegrec_hf {version('etegrec_hf')}")
        return 0
    if not argv:
        print(USAGE, file=sys.stderr)
        return 2
    near = difflib.get_close_matches(argv[0], [*COMMANDS, "--help", "--version"], n=1)
    remedy = f"did you mean {near[0]!r}?" if near else "`etegrec --help` lists them."
    print(f"etegrec: unknown command {argv[0]!r}; {remedy}", file=sys.stderr)
    return 2


def run_command(command: str, argv: list[str], debug: bool = False) -> int:
    """Runs a command; with `debug`, errors are raised instead of printed.

    Returns:
        the exit code: 0, or 1 for an error.

    Raises:
        SystemExit: the call is wrong (code 2), or help was shown.
        BrokenPipeError: the reader of the output has gone.
    """
    try:
        check_command(command, argv)
        from ..data.progress import bars_hidden  # here, because it imports transformers

        with bars_hidden():
            import_module(f"{__package__}.{command.replace('-', '_')}").run(argv)
    except Exception as error:
        if debug or (isinstance(error, BrokenPipeError) and (is_unread(sys.stdout) or is_unread(sys.stderr))):
            raise
        Console(stderr=True).print(
            f"etegrec {command}: {explained(error)}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        return 1
    return 0


def explained(error: Exception) -> str:
    """Returns an error as one line; an unexpected error gets advice how to report it."""
    message = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, USER_ERRORS) or (isinstance(error, ImportError) and error.name is None):
        return message  # an import that fails by itself has a name; without one it is raised on purpose, with a remedy
    return (
        f"unexpected {type(error).__name__}: {message}; run the command again with --debug, and report the trace "
        "together with the output of `etegrec env`."
    )


if __name__ == "__main__":
    sys.exit(main())
