"""Output folders: complete or absent, and never somebody else's."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def check_output_dir(output_dir: str | Path, remedy: str = "choose another folder or remove it") -> Path:
    """The folder as a `Path`, if it is new or empty.

    Raises:
        FileExistsError: something else is already there.
    """
    path = Path(output_dir)
    if path.exists() and (path.is_file() or any(path.iterdir())):
        raise FileExistsError(f"`output_dir` {str(path)!r} already holds another run; {remedy}.")
    return path


@contextmanager
def complete_or_absent(output_dir: str | Path) -> Iterator[Path]:
    """A folder to write into, which becomes `output_dir` only when everything was written.

    The work is done in a folder beside it. An error or a kill leaves `output_dir` as it was.
    """
    target = Path(output_dir)
    staging = target.with_name(f".{target.name}.incomplete")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        if target.is_dir():
            target.rmdir()  # check_output_dir let it pass, so it is empty
        os.replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def sole_use(output_dir: str | Path) -> Iterator[Path]:
    """A folder that no other call may use meanwhile, in this process or another one. It is made if it is new.

    Raises:
        FileExistsError: another call uses it, or it is a file.
    """
    path = Path(output_dir)
    if not path.is_dir():
        check_output_dir(path).mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileExistsError(
                f"`output_dir` {str(path)!r} is in use by another call; wait until that has ended, or name another."
            ) from error
        yield path
    finally:
        os.close(handle)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` write a file beside `path`, and puts it into its place when that is done."""
    beside = path.with_name(f".{path.name}.incomplete")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
