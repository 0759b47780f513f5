"""Modes of files that were written under a umask."""

import os
import stat
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def umask(mask: int):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def unusual_modes(folder: Path, mask: int) -> dict[str, str]:
    """The files that have another mode than a file that was opened under that umask."""
    modes = {str(path): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}
    assert modes
    return {name: oct(mode) for name, mode in modes.items() if mode != 0o666 & ~mask}
