"""Made-up users and items from a known random process, as a benchmark whose best possible result is known."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .interactions import Interactions
from .named_embeddings import NamedEmbedding
from .prepared import ItemFeatures, write_prepared
from .splits import MIN_LENGTH, leave_one_out

KINDS = (
    "guitar",
    "drum",
    "piano",
    "violin",
    "flute",
    "harp",
    "cello",
    "horn",
    "banjo",
    "organ",
    "bass",
    "lute",
    "oboe",
    "viola",
    "tuba",
    "zither",
)
LOOKS = (
    "amber",
    "black",
    "coral",
    "dusty",
    "early",
    "faded",
    "green",
    "heavy",
    "ivory",
    "jade",
    "khaki",
    "light",
    "maple",
    "noble",
    "olive",
    "plain",
)
NEXT_CLUSTERS = (0.6, 0.25, 0.15)  # probabilities of the three clusters that follow a cluster
SUCCESSORS = (0.6, 0.25, 0.15)  # probabilities of an item's three successors
SHARES = ("noise", "last_share", "before_share")  # shares of steps; the cluster walk has the rest of 1
AT_ONCE = 2**22  # probabilities that are held in memory at a time


@dataclass(frozen=True)
class SyntheticProcess:
    """Users whose next item depends on their last item, the item before it, and the last item's cluster.

    A user's first item is any item. Each further step goes one of four ways:

    - with probability `noise` to any item;
    - with probability `last_share` to one of the last item's three successors;
    - with probability `before_share` to one of three other items, the later successors of the item before the last;
    - otherwise along the cluster walk: first to a cluster that follows the last item's cluster, by a sparse transition
      matrix, then to an item of this cluster, by popularity.

    In a user's first step there is no item before the last: the cluster walk gets its share, too.

    Successors are drawn from the whole catalogue, whatever their clusters. Items of a cluster have embeddings around
    one centre and titles that name the cluster, so that neither reveals successors. Everything depends on the random
    seed alone.

    Args:
        n_users (`int`, *optional*, defaults to 3000): number of users.
        n_items (`int`, *optional*, defaults to 800): number of items.
        n_clusters (`int`, *optional*, defaults to 16): number of clusters.
        width (`int`, *optional*, defaults to 64): width of the embeddings.
        noise (`float`, *optional*, defaults to 0.1): share of steps to any item.
        last_share (`float`, *optional*, defaults to 0.35): share of steps to a successor of the last item.
        before_share (`float`, *optional*, defaults to 0.15): share of steps to a later successor of the item before
            the last.
        min_length, max_length (`int`, *optional*, default to 5 and 15): smallest and largest number of interactions
            per user.
        seed (`int`, *optional*, defaults to 0): random seed.

    Raises:
        ValueError: fewer than 3 clusters.
        ValueError: more clusters than items.
        ValueError: sequences too short to split.
        ValueError: a share outside 0..1, or shares that sum to more than 1.
    """

    n_users: int = 3000
    n_items: int = 800
    n_clusters: int = 16
    width: int = 64
    noise: float = 0.1
    last_share: float = 0.35
    before_share: float = 0.15
    min_length: int = 5
    max_length: int = 15
    seed: int = 0

    def __post_init__(self):
        least = {
            "n_clusters": (len(NEXT_CLUSTERS), "as each cluster is followed by that many"),
            "n_items": (self.n_clusters, "one per cluster (`n_clusters`)"),
            "min_length": (MIN_LENGTH, "one each for training, validation and test"),
            "max_length": (self.min_length, "which is `min_length`"),
        }
        for name, (number, reason) in least.items():
            if getattr(self, name) < number:
                raise ValueError(f"`{name}` is {getattr(self, name)}; give at least {number}, {reason}.")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but it is a share of steps; choose 0 to 1.")
        total = sum(getattr(self, name) for name in SHARES)
        if total > 1 + 1e-9:  # a smaller excess is rounding
            raise ValueError(
                f"`noise`, `last_share` and `before_share` sum to {total:.4g}; lower them to a sum of 1 at most: the "
                "cluster walk gets the rest."
            )

    @property
    def cluster_share(self) -> float:
        """Share of steps along the cluster walk, from the third item of a user on."""
        return max(0.0, 1 - sum(getattr(self, name) for name in SHARES))

    @cached_property
    def cluster_walk(self) -> tuple[np.ndarray, np.ndarray]:
        """Each item's cluster `[n_items]`, and the next item's probabilities by cluster `[n_clusters, n_items]`."""
        random = np.random.default_rng((self.seed, 0))
        cluster = random.permutation(np.arange(self.n_items) % self.n_clusters)
        popularity = np.zeros((self.n_clusters, self.n_items))
        for label in range(self.n_clusters):
            members = np.flatnonzero(cluster == label)
            weights = 1 / np.arange(1, len(members) + 1) ** 1.2
            popularity[label, members] = random.permutation(weights / weights.sum())
        transition = np.zeros((self.n_clusters, self.n_clusters))
        for label in range(self.n_clusters):
            transition[label, random.permutation(self.n_clusters)[: len(NEXT_CLUSTERS)]] = NEXT_CLUSTERS
        return cluster, transition @ popularity

    @cached_property
    def successors(self) -> np.ndarray:
        """The successors of each item, distinct and the likeliest first: `[2, n_items, 3]`, as rows of items.

        The first table holds items that follow at once, the second items that follow after one other item.
        """
        random = np.random.default_rng((self.seed, 3))
        drawn = np.empty((2, self.n_items, 0), dtype=np.int64)
        for place in range(len(SUCCESSORS)):
            fresh = random.integers(0, self.n_items - place, (2, self.n_items))  # ranks among items not yet drawn
            for taken in np.moveaxis(np.sort(drawn, axis=-1), -1, 0):
                fresh += fresh >= taken
            drawn = np.concatenate([drawn, fresh[..., None]], axis=-1)
        return drawn

    def next_item_probabilities(self, last_two: np.ndarray) -> np.ndarray:
        """Returns P(next item | last two items).

        Args:
            last_two (`np.ndarray` of shape `(users, 2)`): rows of the item before the last and of the last item.

        Returns:
            `np.ndarray` of `float64` and shape `(users, n_items)`: probabilities that sum to 1 per user.

        Raises:
            ValueError: another shape.
            ValueError: rows outside the catalogue.
        """
        if last_two.ndim != 2 or last_two.shape[1] != 2:
            shape = tuple(last_two.shape)
            raise ValueError(
                f"`last_two` has the shape {shape}; give (users, 2): the item before the last, and the last item."
            )
        if last_two.size and not 0 <= last_two.min() <= last_two.max() < self.n_items:
            raise ValueError(
                f"`last_two` holds rows from {last_two.min()} to {last_two.max()}; give 0 to {self.n_items - 1}, "
                f"as there are {self.n_items} items."
            )
        before, last = last_two.T
        cluster, walk = self.cluster_walk
        after_last, after_before = self.successors
        probabilities = self.cluster_share * walk[cluster[last]] + self.noise / self.n_items
        users = np.arange(len(last_two))[:, None]
        # successors of one item are distinct, so that indexed addition counts each of them
        probabilities[users, after_last[last]] += self.last_share * np.array(SUCCESSORS)
        probabilities[users, after_before[before]] += self.before_share * np.array(SUCCESSORS)
        return probabilities

    def sample(self) -> Interactions:
        """Draws the sequences of all users."""
        cluster, walk = self.cluster_walk
        after_last, after_before = self.successors
        random = np.random.default_rng((self.seed, 1))
        lengths = random.integers(self.min_length, self.max_length + 1, self.n_users)
        cumulative = walk.cumsum(axis=1)
        walks = np.empty((self.n_users, self.max_length), dtype=np.int64)
        walks[:, 0] = random.integers(0, self.n_items, self.n_users)
        shares = np.cumsum([getattr(self, name) for name in SHARES])
        for step in range(1, self.max_length):
            before, last = walks[:, max(step - 2, 0)], walks[:, step - 1]
            way = np.searchsorted(shares, random.random(self.n_users), side="right")  # a place in SHARES, or 3
            if step == 1:
                way[way == SHARES.index("before_share")] = len(SHARES)  # no item before the last: the cluster walk
            draws = random.random(self.n_users)
            place = np.searchsorted(np.cumsum(SUCCESSORS)[:-1], draws, side="right")
            walks[:, step] = np.choose(
                way,
                [
                    random.integers(0, self.n_items, self.n_users),
                    after_last[last, place],
                    after_before[before, place],
                    (cumulative[cluster[last]] < draws[:, None]).sum(axis=1).clip(max=self.n_items - 1),
                ],
            )
        inside = np.arange(self.max_length) < lengths[:, None]
        users = np.repeat(np.arange(self.n_users), lengths)
        user_ids = np.array([f"user{user:05d}" for user in range(self.n_users)])
        item_ids = np.array([f"item{item:05d}" for item in range(self.n_items)])
        return Interactions(user_ids, item_ids, users, walks[inside])

    def embeddings(self) -> np.ndarray:
        """Returns embeddings `[n_items, width]` of `float32`: the clusters' centres plus noise."""
        cluster, _ = self.cluster_walk
        random = np.random.default_rng((self.seed, 2))
        centres = random.standard_normal((self.n_clusters, self.width))
        return (centres[cluster] + 0.5 * random.standard_normal((self.n_items, self.width))).astype(np.float32)

    def titles(self) -> list[str]:
        """Returns the items' titles, which name the cluster."""
        cluster, _ = self.cluster_walk
        kinds = [KINDS[label % len(KINDS)] for label in cluster]
        return [f"{LOOKS[item % len(LOOKS)]} {kind} no. {item}".capitalize() for item, kind in enumerate(kinds)]

    def optimum(self, last_two: np.ndarray, ks: tuple[int, ...] = (1, 5, 10, 50)) -> dict[str, float]:
        """Returns the expected Recall and NDCG of the best possible ranking, which sorts by true probabilities.

        Args:
            last_two (`np.ndarray` of shape `(users, 2)`):
                Rows of the item before the last and of the last item of each user's history.
            ks (`tuple[int]`, *optional*): list lengths.

        Returns:
            `dict` of `recall@k` and `ndcg@k`, averaged over users.

        Raises:
            ValueError: no user.
            ValueError: the errors of [`next_item_probabilities`].
        """
        if not len(last_two):
            raise ValueError("`last_two` holds no user; give one row per user.")
        at_once = max(1, AT_ONCE // self.n_items)
        expected = np.zeros(self.n_items)  # probability of the target at each rank of the best list, summed over users
        for start in range(0, len(last_two), at_once):
            probabilities = self.next_item_probabilities(last_two[start : start + at_once])
            expected += -np.sort(-probabilities, axis=1).sum(axis=0)
        expected /= len(last_two)
        discount = 1 / np.log2(np.arange(2, self.n_items + 2))
        recall, ndcg = expected.cumsum(), (expected * discount).cumsum()
        return {
            f"{name}@{k}": float(curve[min(k, self.n_items) - 1])
            for k in ks
            for name, curve in (("recall", recall), ("ndcg", ndcg))
        }

    def write(self, output_dir: str | Path) -> dict[str, float]:
        """Draws users and writes them as a prepared dataset.

        Returns:
            `dict` of `recall@k` and `ndcg@k`: the best possible results on the test split, see [`optimum`].
        """
        interactions = self.sample()
        rows = leave_one_out(interactions)
        texts = {item_id: {"title": title} for item_id, title in zip(interactions.item_ids, self.titles())}
        statistics = {
            "source": "synthetic",
            "license": "cc0-1.0",
            "split": "leave-one-out",
            "users": self.n_users,
            "items": self.n_items,
            "interactions": len(interactions.users),
            "seed": self.seed,
        }
        made = {"method": "cluster centres with noise", "seed": self.seed}
        embedding = NamedEmbedding("clusters", self.embeddings(), made)
        write_prepared(output_dir, interactions, rows, ItemFeatures(texts, [embedding]), statistics)
        target = rows["test"].target
        return self.optimum(interactions.items[np.stack([target - 2, target - 1], axis=1)])
