from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from etegrec_hf.data import synthetic
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.synthetic import NEXT_CLUSTERS, SUCCESSORS, SyntheticProcess
from etegrec_hf.evaluation.baselines import transitions
from etegrec_hf.evaluation.metrics import ranking_metrics


@pytest.fixture(scope="module")
def tiny() -> SyntheticProcess:
    """Two items per cluster: 36 pairs of last items, so that each occurs often in walks."""
    return SyntheticProcess(n_users=100000, n_items=6, n_clusters=3, min_length=8, max_length=8, seed=2)


def pairs(n_items: int) -> np.ndarray:
    """All pairs of items, `[n_items ** 2, 2]`."""
    return np.stack(np.divmod(np.arange(n_items**2), n_items), axis=1)


def frequencies(states: np.ndarray, following: np.ndarray, n_states: int, n_items: int) -> np.ndarray:
    """Returns the shares of items that follow each state, `[n_states, n_items]`."""
    counts = np.bincount(states * n_items + following, minlength=n_states * n_items).reshape(n_states, n_items)
    return counts / counts.sum(axis=1, keepdims=True)


def last_two_and_targets(process: SyntheticProcess) -> tuple[np.ndarray, np.ndarray]:
    """Each user's last item, and the two before it."""
    log = process.sample()
    ends = log.starts[1:]
    return log.items[np.stack([ends - 3, ends - 2], axis=1)], log.items[ends - 1]


def test_everything_follows_from_the_seed(process):
    again = replace(process)
    np.testing.assert_array_equal(process.sample().items, again.sample().items)
    np.testing.assert_array_equal(process.embeddings(), again.embeddings())
    np.testing.assert_array_equal(process.successors, again.successors)
    other = replace(process, seed=4)
    assert not np.array_equal(process.embeddings(), other.embeddings())
    assert not np.array_equal(process.successors, other.successors)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_clusters": 2}, "`n_clusters` is 2; give at least 3"),
        ({"n_items": 10}, "`n_items` is 10; give at least 16, one per cluster"),
        ({"min_length": 2}, "`min_length` is 2; give at least 3, one each for training, validation and test"),
        ({"max_length": 4}, "`max_length` is 4; give at least 5, which is `min_length`"),
        ({"noise": 1.1}, "`noise` is 1.1, but it is a share of steps; choose 0 to 1"),
        ({"noise": -0.1}, "`noise` is -0.1"),
        ({"last_share": 1.5}, "`last_share` is 1.5, but it is a share of steps; choose 0 to 1"),
        ({"before_share": -0.2}, "`before_share` is -0.2, but it is a share of steps; choose 0 to 1"),
        (
            {"noise": 0.3, "last_share": 0.5, "before_share": 0.4},
            "`noise`, `last_share` and `before_share` sum to 1.2; lower them to a sum of 1 at most",
        ),
    ],
)
def test_a_process_that_cannot_be_is_an_error(sizes, message):
    with pytest.raises(ValueError, match=message):
        SyntheticProcess(**sizes)


def test_the_smallest_process_works():
    process = SyntheticProcess(n_users=5, n_items=3, n_clusters=3, min_length=3, max_length=3, noise=0)
    assert len(process.sample().items) == 15


def test_shares_may_leave_nothing_to_the_cluster_walk():
    process = SyntheticProcess(n_users=50, noise=0.1, last_share=0.7, before_share=0.2)  # their sum is rounded
    assert process.cluster_share == pytest.approx(0)
    probabilities = process.next_item_probabilities(np.array([[1, 2]]))
    assert (probabilities > 0.1 / 800 + 1e-9).sum() <= 6, "successors of two items"


def test_successors_are_distinct_and_from_the_whole_catalogue():
    process = SyntheticProcess(n_items=400, n_clusters=4)
    assert process.successors.shape == (2, 400, 3)
    assert process.successors.min() == 0
    assert process.successors.max() == 399
    assert (np.diff(np.sort(process.successors, axis=-1), axis=-1) > 0).all()
    cluster, _ = process.cluster_walk
    of_successors = frequencies(np.repeat(cluster, 3), cluster[process.successors[0]].ravel(), 4, 4)
    # a quarter in each cluster: 300 successors per cluster, a standard deviation of .025
    np.testing.assert_allclose(of_successors, 0.25, atol=0.1)


def test_every_choice_of_successors_is_as_likely():
    triples = SyntheticProcess(n_items=8000, n_clusters=3).successors.reshape(-1, 3)
    np.testing.assert_allclose(np.bincount(triples.ravel() // 2000) / triples.size, 0.25, atol=0.01)
    small = np.concatenate(
        [SyntheticProcess(n_items=4, n_clusters=3, seed=s).successors.reshape(-1, 3) for s in range(600)]
    )
    shares = np.bincount(small @ [16, 4, 1], minlength=64) / len(small)
    expected = np.zeros(64)
    expected[[16 * a + 4 * b + c for a, b, c in permutations(range(4), 3)]] = 1 / 24
    np.testing.assert_allclose(shares, expected, atol=0.012)  # 4,800 triples: four standard deviations


def test_probabilities_are_the_four_ways_by_their_shares(tiny):
    cluster, walk = tiny.cluster_walk
    probabilities = tiny.next_item_probabilities(pairs(6))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    for (before, last), row in zip(pairs(6), probabilities):
        expected = [0.1 / 6 + 0.4 * walk[cluster[last], item] for item in range(6)]
        for place, chance in enumerate(SUCCESSORS):
            expected[tiny.successors[0, last, place]] += 0.35 * chance
            expected[tiny.successors[1, before, place]] += 0.15 * chance
        np.testing.assert_allclose(row, expected)


def test_the_cluster_walk_leads_to_three_clusters_by_popularity():
    cluster, walk = SyntheticProcess(n_items=40, n_clusters=4).cluster_walk
    by_popularity = 1 / np.arange(1, 11) ** 1.2
    by_popularity /= by_popularity.sum()
    for row in walk:
        shares = np.array([row[cluster == label].sum() for label in range(4)])
        np.testing.assert_allclose(np.sort(shares)[::-1], [*NEXT_CLUSTERS, 0])
        best = np.sort(row[cluster == shares.argmax()])[::-1]
        np.testing.assert_allclose(best, shares.max() * by_popularity)


def test_walks_follow_the_stated_probabilities(tiny):
    walks = tiny.sample().items.reshape(-1, 8)
    np.testing.assert_allclose(np.bincount(walks[:, 0]) / len(walks), 1 / 6, atol=0.01)
    states, following = walks[:, :-2] * 6 + walks[:, 1:-1], walks[:, 2:]
    found = frequencies(states.ravel(), following.ravel(), 36, 6)
    np.testing.assert_allclose(found, tiny.next_item_probabilities(pairs(6)), atol=0.02)


def test_in_a_users_first_step_the_cluster_walk_has_the_share_of_the_item_before(tiny):
    walks = tiny.sample().items.reshape(-1, 8)
    found = frequencies(walks[:, 0], walks[:, 1], 6, 6)
    last = np.arange(6)
    expected = replace(tiny, before_share=0).next_item_probabilities(np.stack([last, last], axis=1))
    np.testing.assert_allclose(found, expected, atol=0.015)


@pytest.mark.parametrize(
    ("last_two", "message"),
    [
        (np.zeros(4, dtype=np.int64), r"`last_two` has the shape \(4,\); give \(users, 2\)"),
        (np.zeros((4, 3), dtype=np.int64), r"`last_two` has the shape \(4, 3\); give \(users, 2\)"),
        (np.array([[0, 6]]), "`last_two` holds rows from 0 to 6; give 0 to 5, as there are 6 items"),
        (np.array([[-1, 3]]), "`last_two` holds rows from -1 to 3; give 0 to 5"),
        (np.zeros((0, 2), dtype=np.int64), "`last_two` holds no user; give one row per user"),
    ],
)
def test_what_are_not_two_items_per_user_is_an_error(tiny, last_two, message):
    with pytest.raises(ValueError, match=message):
        tiny.optimum(last_two)


def test_the_optimum_is_the_best_of_all_rankings(tiny):
    """By trying all 720 orders of six items, user by user."""
    last_two = np.array([[0, 1], [1, 0], [5, 5], [2, 4], [2, 4]])
    orders = np.array(list(permutations(range(6))))
    best = {}
    for k in (1, 2, 5, 6):
        gains = 1 / np.log2(np.arange(2, k + 2))
        chances = tiny.next_item_probabilities(last_two)[:, orders[:, :k]]  # [users, orders, k]
        best[f"recall@{k}"] = chances.sum(axis=2).max(axis=1).mean()
        best[f"ndcg@{k}"] = (chances @ gains).max(axis=1).mean()
    assert tiny.optimum(last_two, (1, 2, 5, 6)) == pytest.approx(best)
    assert tiny.optimum(last_two, (10,))["recall@10"] == pytest.approx(1), "a list of all items"


def test_the_optimum_is_the_same_in_chunks(tiny, monkeypatch):
    whole = tiny.optimum(pairs(6))
    monkeypatch.setattr(synthetic, "AT_ONCE", 42)  # seven users of six items, and one in the last chunk
    assert tiny.optimum(pairs(6)) == pytest.approx(whole)


def test_ranking_by_the_true_probabilities_reaches_the_optimum():
    process = SyntheticProcess(n_users=30000, n_items=40, n_clusters=4)
    last_two, target = last_two_and_targets(process)
    ranked = np.argsort(-process.next_item_probabilities(last_two), axis=1) + 1
    reached, optimum = ranking_metrics(ranked, target + 1), process.optimum(last_two)
    for k in (1, 5, 10):
        assert reached[f"recall@{k}"] == pytest.approx(optimum[f"recall@{k}"], abs=0.01)
        assert reached[f"ndcg@{k}"] == pytest.approx(optimum[f"ndcg@{k}"], abs=0.01)


def test_no_ranking_that_knows_less_reaches_the_optimum():
    """Not even one that knows the true probabilities of some of the ways, or confuses the two items."""
    process = SyntheticProcess(n_items=40, n_clusters=4)
    last_two = pairs(40)
    optimum, chances = process.optimum(last_two), process.next_item_probabilities(last_two)
    cluster, walk = process.cluster_walk
    knows = {
        "the clusters": walk[cluster[last_two[:, 1]]],
        "the last item": replace(process, before_share=0).next_item_probabilities(last_two),
        "the successors": replace(process, last_share=0.7, before_share=0.2).next_item_probabilities(last_two),
        "not which is the last": process.next_item_probabilities(last_two[:, ::-1]),
        "how often items occur": np.broadcast_to(chances.mean(axis=0), chances.shape),
    }
    for name, scores in knows.items():
        listed = np.take_along_axis(chances, np.argsort(-scores, axis=1, kind="stable"), axis=1)
        gains = 1 / np.log2(np.arange(2, 12))
        assert (listed[:, :10] @ gains).mean() < optimum["ndcg@10"], name
        for k in (1, 5, 10):
            assert listed[:, :k].sum(axis=1).mean() < optimum[f"recall@{k}"], (name, k)


def test_the_dataset_comes_with_the_optimum_of_its_test_split(tmp_path):
    process = SyntheticProcess(n_users=400, n_items=40, n_clusters=4, width=8, min_length=3, max_length=6)
    optimum = process.write(tmp_path / "data")
    data = PreparedDataset.load(tmp_path / "data")
    rows = [data.test.row(user) for user in range(400)]
    last_two = np.array([row[-3:-1] for row in rows]) - 1
    assert optimum == process.optimum(last_two)
    assert [row[-2] for row in rows] == data.validation.targets.tolist()
    counted = ranking_metrics(transitions(data, data.test), data.test.targets)
    for metric in ("recall@1", "recall@5", "recall@10", "ndcg@10"):
        assert counted[metric] < optimum[metric]
