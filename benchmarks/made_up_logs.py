"""Writes made-up interaction logs of three kinds, for trying `etegrec fit` on logs that no recipe was chosen on.

    python benchmarks/made_up_logs.py shop data/raw/shop

The files are `log.csv` and `items.csv`.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Kind:
    """A kind of log, by how users choose items.

    Args:
        n_users, n_items, n_groups (`int`): numbers of users, items, and groups of items.
        shortest, longest (`int`): bounds of the number of items per user, which is log-uniform between them.
        follow_last, follow_before (`float`): share of choices among the three followers of the last item, and of the
            item before it.
        same_group (`float`): share of choices within a group that the user likes. All other choices depend only on
            popularity.
        repeats (`bool`): whether a user can take an item again.
    """

    n_users: int
    n_items: int
    n_groups: int
    shortest: int
    longest: int
    follow_last: float
    follow_before: float
    same_group: float
    repeats: bool


KINDS = {
    "shop": Kind(2_500, 700, 30, 5, 40, 0.35, 0.15, 0.3, True),
    "films": Kind(1_500, 1_200, 18, 40, 250, 0.05, 0.05, 0.7, False),
    "tiny": Kind(80, 50, 5, 6, 15, 0.4, 0.1, 0.3, True),
    "million": Kind(100_000, 30_000, 400, 5, 25, 0.25, 0.1, 0.4, True),
}


def popularity(random: np.random.Generator, n_items: int) -> np.ndarray:
    """Returns probabilities of items that fall with the rank, in random order."""
    weights = 1 / (np.arange(n_items) + 10) ** 0.8
    return random.permutation(weights / weights.sum())


def sequences(kind: Kind, seed: int) -> list[np.ndarray]:
    """Returns the items of each user, oldest first."""
    random = np.random.default_rng(seed)
    group = random.integers(kind.n_groups, size=kind.n_items)
    popular = popularity(random, kind.n_items)
    followers = random.choice(kind.n_items, size=(kind.n_items, 3), p=popular)
    of_group = [np.flatnonzero(group == number) for number in range(kind.n_groups)]
    shares = [popular[items] / popular[items].sum() if len(items) else None for items in of_group]
    lengths = np.exp(random.uniform(np.log(kind.shortest), np.log(kind.longest + 1), kind.n_users)).astype(int)
    shares_of_choices = np.cumsum([kind.follow_last, kind.follow_before, kind.same_group])
    drawn = []
    for length in lengths:
        liked = random.choice([number for number in range(kind.n_groups) if len(of_group[number])], size=3)
        taken: list[int] = []
        while len(taken) < length:
            how = np.searchsorted(shares_of_choices, random.random())
            if how < 2 and len(taken) > how:
                item = followers[taken[-1 - how], random.choice(3, p=[0.6, 0.3, 0.1])]
            elif how == 2:
                number = random.choice(liked)
                item = random.choice(of_group[number], p=shares[number])
            else:
                item = random.choice(kind.n_items, p=popular)
            if kind.repeats or item not in taken:
                taken.append(int(item))
        drawn.append(np.array(taken))
    return drawn


def write_log(kind: str, folder: Path, seed: int = 0) -> Path:
    """Writes `log.csv` and `items.csv`, and returns the log's path."""
    folder.mkdir(parents=True, exist_ok=True)
    made = KINDS[kind]
    with (folder / "log.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["customer_id", "product_id", "purchased_at"])
        for user, items in enumerate(sequences(made, seed)):
            for number, item in enumerate(items):
                writer.writerow([f"c{user}", f"p{item}", 1_700_000_000 + 3600 * number + user])
    with (folder / "items.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["product_id", "title"])
        writer.writerows([f"p{item}", f"product number {item}"] for item in range(made.n_items))
    return folder / "log.csv"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(write_log(arguments.kind, arguments.folder, arguments.seed))
