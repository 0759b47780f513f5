"""Numbers in sentences."""


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
