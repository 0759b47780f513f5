"""What ids, times and texts in a file may be."""

import re
from datetime import UTC, datetime, time

import numpy as np


def wrong_id(name: str, value) -> str | None:
    """What is wrong with an id, if anything is."""
    if value is None or value == "":
        return f"{name!r} is empty or missing"
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        return f"{name!r} is {value!r}, neither text nor a whole number"
    if isinstance(value, str) and not is_unicode(value):
        return f"{name!r} is {value!r}, which holds half a character"
    return None


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8. JSON can also hold half a surrogate pair, as a cut emoji leaves it."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def wrong_time(name: str, value) -> str:
    """What is wrong with what [`parse_time`] can't read."""
    missing = value is None or value != value
    value = value.isoformat() if isinstance(value, time) else value  # of a day, whose date nobody knows
    return f"{name!r} is missing" if missing else f"{name!r} is {value!r}, no number and no date"


def parse_time(value) -> int | float | None:
    """A timestamp as a number: numbers as they are, dates in seconds since 1970, `None` for what is neither.

    Dates are those of ISO 8601, also with slashes or ` UTC`, or like `Fri Jul 14 02:40:00 -0700 2017`. A date without
    a time zone is one in UTC, wherever this runs.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return value if abs(value) < 2**63 else None
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if not isinstance(value, str):
        return None
    for convert in (int, float, _seconds):
        try:
            return parse_time(convert(value))
        except ValueError:
            continue
    return None


def _seconds(text: str) -> float:
    text = text.strip().removesuffix(" UTC")
    if re.match(r"\d{4}/\d\d/\d\d", text):
        text = text.replace("/", "-", 2)
    if text[:1].isalpha():
        date = datetime.strptime(text, "%a %b %d %H:%M:%S %z %Y")
    else:
        date = datetime.fromisoformat(text)
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def text_of(value) -> str:
    """A field of a metadata file as text: lists are joined, markup stays as it stands, NaN is nothing."""
    if isinstance(value, (list, tuple)):
        return " ".join(filter(None, map(text_of, value)))
    if isinstance(value, bytes):  # as some writers of parquet leave texts
        value = value.decode(errors="replace")
    missing = value is None or isinstance(value, dict) or value != value
    text = "" if missing else str(value).strip()
    return text if is_unicode(text) else text.encode(errors="replace").decode()
