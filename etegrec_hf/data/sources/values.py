"""Checks and conversion of ids, times and texts in files."""

import re
from datetime import UTC, datetime, time

import numpy as np


def wrong_id(name: str, value) -> str | None:
    """Returns what is wrong with an id, or `None`."""
    if value is None or value == "":
        return f"{name!r} is empty or missing"
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        return f"{name!r} is {value!r}, neither text nor a whole number"
    if isinstance(value, str) and not is_unicode(value):
        return f"{name!r} is {value!r}, which holds half a character (a lone surrogate)"
    return None


def is_unicode(text: str) -> bool:
    """Returns whether a text can be written as UTF-8; JSON may hold half a surrogate pair, such as a cut emoji."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def wrong_time(name: str, value) -> str:
    """Returns what is wrong with a time that [`parse_time`] can't read."""
    missing = value is None or value != value
    value = value.isoformat() if isinstance(value, time) else value  # a time of day without its date
    return f"{name!r} is missing" if missing else f"{name!r} is {value!r}, neither a number nor a date like 2020-09-05"


def parse_time(value) -> int | float | None:
    """Converts a timestamp to a number: numbers are kept, dates become seconds since 1970, other values `None`.

    Dates are in ISO 8601, also with slashes or ` UTC`, or like `Fri Jul 14 02:40:00 -0700 2017`. A date without a time
    zone is taken to be in UTC, whatever the machine's time zone.
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
    """Converts a field of a metadata file to text: lists are joined, markup is kept, NaN becomes an empty text."""
    if isinstance(value, (list, tuple)):
        return " ".join(filter(None, map(text_of, value)))
    if isinstance(value, bytes):  # some writers of parquet store texts as bytes
        value = value.decode(errors="replace")
    missing = value is None or isinstance(value, dict) or value != value
    text = "" if missing else str(value).strip()
    return text if is_unicode(text) else text.encode(errors="replace").decode()
