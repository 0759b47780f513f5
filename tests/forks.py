"""`etegrec` in copies of this process, which have imported already what a new process imports for seconds."""

import multiprocessing
import os
import subprocess
import sys

from etegrec_hf.cli.main import main


def run(command: list[str], stdout=None, stderr=None, check=False, env=None) -> subprocess.CompletedProcess:
    """Runs `python -m etegrec_hf ...` as `subprocess.run` does, but for `env`, which comes too late for a copy."""
    assert command[:3] == [sys.executable, "-m", "etegrec_hf"]
    copy = multiprocessing.get_context("fork").Process(target=_call, args=(command[3:], stdout, stderr))
    copy.start()
    copy.join()
    done = subprocess.CompletedProcess(command, copy.exitcode)
    if check:
        done.check_returncode()
    return done


def _call(arguments: list[str], *files) -> None:
    """Calls the command line with its output in these files, or where it is now."""
    for number, file in enumerate(files, start=1):
        if file is not None:
            os.dup2(file.fileno(), number)
    with open(1, "w", closefd=False) as sys.stdout, open(2, "w", closefd=False) as sys.stderr:
        code = main(arguments)
    os._exit(code)  # what comes at the end of a process expects that it began in its main thread
