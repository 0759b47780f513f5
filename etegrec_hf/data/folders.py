"""Output folders that are either complete or absent, and never overwrite other files."""

import fcntl
import glob
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

INCOMPLETE = ".incomplete"  # ending of temporary folders


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

    The temporary folder has the same parent folder as `output_dir`, or as the folder that a symbolic link points to.
    After an error or a kill, `output_dir` is unchanged.

    Raises:
        FileExistsError: `output_dir` can't be replaced, for instance as another call has filled it. What was written
            is kept in a folder that the error names.
        ValueError: the temporary folder can't be made.
    """
    target = Path(os.path.realpath(output_dir))
    folder = _folder_beside(target)
    make_folder(folder, f"`output_dir` {str(output_dir)!r}")
    with _held(folder):
        staging = folder / target.name
        staging.mkdir()
        yield staging
        try:
            os.replace(staging, target)  # replaces an empty folder, as check_output_dir checked
        except OSError as error:
            kept = target.with_name(f"{target.name}-{uuid4().hex[:8]}")
            os.replace(staging, kept)
            raise FileExistsError(
                f"`output_dir` {str(output_dir)!r} can't be replaced ({error.strerror}), so the finished folder is "
                f"{str(kept)!r}; use it from there, or rename it."
            ) from error


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
    """Replaces a file: `write` writes it into a temporary folder next to `path`, from where it is renamed."""
    folder = _folder_beside(path)
    folder.mkdir()
    with _held(folder):
        beside = folder / path.name
        write(beside)
        os.replace(beside, path)


def replace_text(path: Path, text: str) -> None:
    """Replaces a file by a text in UTF-8, as [`replace_file`] does."""
    replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def _folder_beside(path: Path) -> Path:
    """Returns a new name of a hidden folder next to `path`, after removing the folders of calls that were killed."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*{INCOMPLETE}"):
        with suppress(OSError):  # BlockingIOError: another call is using it
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if any(folder.iterdir()):  # a call that hasn't locked its folder yet has written nothing into it
                    shutil.rmtree(folder)
            finally:
                os.close(handle)
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}{INCOMPLETE}")


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Locks a folder, so that no other call takes it for one of a killed call, and removes it at the end."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks, where no call removes another's folder
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)
