"""A catalogue and users from a known process: a benchmark whose ceiling is known."""

from dataclasses import dataclass
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
NEXT_CLUSTERS = (0.6, 0.25, 0.15)  # probabilities of the clusters that follow one


@dataclass(frozen=True)
class SyntheticProcess:
    """Users who walk over clusters of items.

    The next item is, with probability `noise`, any item; else its cluster follows from the last item's cluster by a
    sparse transition matrix, and the item from its cluster by a popularity law. Items of a cluster have embeddings
    around one centre. Everything follows from the seed.

    Args:
        n_users (`int`, *optional*, defaults to 3000): users.
        n_items (`int`, *optional*, defaults to 800): items.
        n_clusters (`int`, *optional*, defaults to 16): clusters.
        width (`int`, *optional*, defaults to 64): of the embeddings.
        noise (`float`, *optional*, defaults to 0.1): share of steps to any item.
        min_length, max_length (`int`, *optional*, default to 5 and 15): interactions of a user.
        seed (`int`, *optional*, defaults to 0): of everything.

    Raises:
        ValueError: fewer than 3 clusters, clusters without items, users too short to split, or a share outside 0..1.
    """

    n_users: int = 3000
    n_items: int = 800
    n_clusters: int = 16
    width: int = 64
    noise: float = 0.1
    min_length: int = 5
    max_length: int = 15
    seed: int = 0

    def __post_init__(self):
        least = {
            "n_clusters": (len(NEXT_CLUSTERS), "as each cluster leads to as many"),
            "n_items": (self.n_clusters, "one for each of `n_clusters`"),
            "min_length": (MIN_LENGTH, "one each for training, validation and test"),
            "max_length": (self.min_length, "which is `min_length`"),
        }
        for name, (number, reason) in least.items():
            if getattr(self, name) < number:
                raise ValueError(f"`{name}` is {getattr(self, name)}; give at least {number}, {reason}.")
        if not 0 <= self.noise <= 1:
            raise ValueError(f"`noise` is {self.noise}, but it is a share of steps; choose 0 to 1.")

    def next_item_probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """Each item's cluster `[n_items]`, and P(next item | last item's cluster) `[n_clusters, n_items]`."""
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
        return cluster, (1 - self.noise) * transition @ popularity + self.noise / self.n_items

    def sample(self) -> Interactions:
        """Walks of all users."""
        cluster, probabilities = self.next_item_probabilities()
        random = np.random.default_rng((self.seed, 1))
        lengths = random.integers(self.min_length, self.max_length + 1, self.n_users)
        cumulative = probabilities.cumsum(axis=1)
        walks = np.empty((self.n_users, self.max_length), dtype=np.int64)
        walks[:, 0] = random.integers(0, self.n_items, self.n_users)
        for step in range(1, self.max_length):
            draws = random.random(self.n_users)[:, None]
            walks[:, step] = (cumulative[cluster[walks[:, step - 1]]] < draws).sum(axis=1).clip(max=self.n_items - 1)
        inside = np.arange(self.max_length) < lengths[:, None]
        users = np.repeat(np.arange(self.n_users), lengths)
        user_ids = np.array([f"user{user:05d}" for user in range(self.n_users)])
        item_ids = np.array([f"item{item:05d}" for item in range(self.n_items)])
        return Interactions(user_ids, item_ids, users, walks[inside])

    def embeddings(self) -> np.ndarray:
        """Cluster centres with noise, `[n_items, width]` of `float32`."""
        cluster, _ = self.next_item_probabilities()
        random = np.random.default_rng((self.seed, 2))
        centres = random.standard_normal((self.n_clusters, self.width))
        return (centres[cluster] + 0.5 * random.standard_normal((self.n_items, self.width))).astype(np.float32)

    def titles(self) -> list[str]:
        """Titles that name an item's cluster."""
        cluster, _ = self.next_item_probabilities()
        kinds = [KINDS[label % len(KINDS)] for label in cluster]
        return [f"{LOOKS[item % len(LOOKS)]} {kind} no. {item}".capitalize() for item, kind in enumerate(kinds)]

    def optimum(self, last_items: np.ndarray, ks: tuple[int, ...] = (1, 5, 10, 50)) -> dict[str, float]:
        """Expected Recall and NDCG of the best possible ranking, by true probabilities.

        Args:
            last_items (`np.ndarray` of shape `(users,)`): row of each user's last item.
            ks (`tuple[int]`, *optional*): list lengths.

        Returns:
            `dict` of `recall@k` and `ndcg@k`, averaged over users.
        """
        cluster, probabilities = self.next_item_probabilities()
        ranked = -np.sort(-probabilities, axis=1)  # [n_clusters, n_items]
        share = np.bincount(cluster[last_items], minlength=self.n_clusters) / len(last_items)
        discount = 1 / np.log2(np.arange(2, self.n_items + 2))
        recall, ndcg = share @ ranked.cumsum(axis=1), share @ (ranked * discount).cumsum(axis=1)
        return {
            f"{name}@{k}": float(curve[min(k, self.n_items) - 1])
            for k in ks
            for name, curve in (("recall", recall), ("ndcg", ndcg))
        }

    def write(self, output_dir: str | Path) -> dict[str, float]:
        """Writes the process as a prepared dataset, and returns its test optimum."""
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
        return self.optimum(interactions.items[rows["test"].target - 1])
