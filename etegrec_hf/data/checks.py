"""Checks of arguments; their errors name the argument, its value and a remedy."""

from collections.abc import Iterable
from pathlib import Path


def check_positive(name: str, number: float) -> None:
    """Raises a `ValueError` unless a number is 1 or more."""
    if number < 1:
        raise ValueError(f"`{name}` is {number}; give 1 or more.")


def check_seed(seed: int) -> None:
    """Raises a `ValueError` unless a number can seed the generators of random numbers."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"`seed` is {seed}; give a whole number from 0 to {2**32 - 1}.")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises a `ValueError` unless a value is one of the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` is {value!r}; choose one of {', '.join(choices)}.")


def check_named(name: str, path: str | Path) -> Path:
    """Returns a path. An empty text is a `ValueError`, since it would mean the current folder."""
    if path == "":
        raise ValueError(f"`{name}` is '', an empty text; name a file or folder.")
    return Path(path)


def damaged(path: str | Path, error: object) -> ValueError:
    """Returns the error about a file of a prepared dataset that can't be read because of `error`."""
    return ValueError(f"{path} is damaged ({error}); copy the dataset again, or prepare it again.")
