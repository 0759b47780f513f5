"""Numbers in sentences and names."""

from collections.abc import Container
from itertools import count


def counted(number: int, noun: str, plural: str = "") -> str:
    """Returns a number and its noun, which is in the singular after 1.

    Args:
        number (`int`): the number.
        noun (`str`): the noun in the singular, with words before it that don't change.
        plural (`str`, *optional*): the plural; by default the noun with an s.

    >>> counted(1, "malformed row"), counted(2000, "malformed row"), counted(0, "history", "histories")
    ('1 malformed row', '2,000 malformed rows', '0 histories')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def numbered(name: str, taken: Container[str]) -> str:
    """Returns a name, with the first number from 2 on that makes it one that isn't taken.

    >>> numbered("a", []), numbered("a", ["a"]), numbered("a", ["a", "a-2"])
    ('a', 'a-2', 'a-3')
    """
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(candidate for candidate in names if candidate not in taken)
