"""Calls of `etegrec` in this process."""

from etegrec_hf.cli.main import main


def call(*argv) -> None:
    """Calls a command, which must succeed."""
    assert main([str(argument) for argument in argv]) == 0


def failure(capsys, *argv) -> str:
    """Calls a command with wrong input, and returns its error with single spaces."""
    assert main([str(argument) for argument in argv]) == 1
    return " ".join(capsys.readouterr().err.split())
