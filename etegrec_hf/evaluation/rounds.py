"""Rounds of users that are measured one after the other, as long as there is time."""

import time
from collections.abc import Iterator

import numpy as np

FIRST = 64  # rows of the first round, whose time tells for how many more there is time
CAUTION = 0.8  # share of the time left that a further round may take


def rounds_in_time(n_rows: int, seconds: float | None) -> Iterator[np.ndarray]:
    """Draws rows in rounds, so that the rows of all rounds are a random sample whenever the time is over.

    Without a time limit all rows are one round, and so are at most `FIRST` rows. With a limit, the first round has
    `FIRST` rows, even if there is no time for it. Each further round has as many rows as all rounds before it, or
    fewer, if the time that is left isn't enough for them at the speed of the last round. So a machine that
    is slow, or becomes slow, is noticed early.

    Args:
        n_rows (`int`): number of rows.
        seconds (`float`, *optional*): time limit. The caller's work on a round counts.

    Yields:
        `np.ndarray` of shape `(rows of the round,)`: numbers of rows, ascending; no row is in two rounds.
    """
    if seconds is None or n_rows <= FIRST:
        yield np.arange(n_rows)
        return
    begin, order = time.monotonic(), np.random.default_rng(0).permutation(n_rows)
    done, size, left = 0, FIRST, seconds
    while done < n_rows and size >= FIRST // 2:  # smaller rounds would be slow per row
        rows = np.sort(order[done : done + size])
        yield rows
        done += len(rows)
        before, left = left, seconds - (time.monotonic() - begin)
        size = min(done, int(CAUTION * left * len(rows) / max(before - left, 1e-9)))
