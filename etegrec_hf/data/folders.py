"""Output folders that are either complete or absent, and never overwrite other files."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def check_output_dir(output_dir: str | Path, remedy: str = "choose another folder or remove it") -> Path:
    """Returns the folder as a `Path`, after a check that it is new or empty.

    Raises:
        FileExistsError: a file, the current folder, or a folder that isn't empty.
    """
    path = Path(output_dir)
    if not path.name:
        raise FileExistsError(f"`output_dir` {str(path)!r} is there already; name a new folder.")
    if path.is_file():
        raise FileExistsError(f"`output_dir` {str(path)!r} is a file; name a new folder.")
    if path.exists() and any(path.iterdir()):
        raise FileExistsError(f"`output_dir` {str(path)!r} already holds another run; {remedy}.")
    return path


def make_folder(path: Path, what: str) -> None:
    """Makes a folder and those above it, if they aren't there.

    Raises:
        ValueError: it can't be made; the error begins with `what`.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{what} can't be made ({error.strerror}); name a place where files may be written."
        ) from error


@contextmanager
def complete_or_absent(output_dir: str | Path) -> Iterator[Path]:
    """Gives a temporary folder to write into, and renames it to `output_dir` at the end of the context.

    The temporary folder is in the same parent folder. After an error or a kill, `output_dir` is unchanged.
    """
    target = Path(output_dir)
    staging = target.with_name(f".{target.name}.incomplete")
    shutil.rmtree(staging, ignore_errors=True)
    make_folder(staging, f"`output_dir` {str(target)!r}")
    try:
        yield staging
        if target.is_dir():
            target.rmdir()  # empty, as check_output_dir checked
        os.replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def sole_use(output_dir: str | Path) -> Iterator[Path]:
    """Locks a folder against other calls, in this process and in others, until the context ends.

    The folder is made if it doesn't exist.

    Raises:
        FileExistsError: another call uses the folder.
        FileExistsError: there is a file of that name.
    """
    path = Path(output_dir)
    if not path.is_dir():
        make_folder(check_output_dir(path), f"`output_dir` {str(path)!r}")
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileExistsError(
                f"`output_dir` {str(path)!r} is in use by another call; wait until that call has ended, or name "
                "another folder."
            ) from error
        yield path
    finally:
        os.close(handle)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Replaces a file: `write` writes a temporary file in the same folder, which is then renamed to `path`."""
    beside = path.with_name(f".{path.name}.incomplete")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
