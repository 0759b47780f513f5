import numpy as np
import pytest

from etegrec_hf.data.synthetic import SyntheticProcess


def test_everything_follows_from_the_seed(process):
    again = SyntheticProcess(n_users=120, n_items=60, n_clusters=4, width=12, seed=3)
    np.testing.assert_array_equal(process.sample().items, again.sample().items)
    np.testing.assert_array_equal(process.embeddings(), again.embeddings())
    other = SyntheticProcess(n_users=120, n_items=60, n_clusters=4, width=12, seed=4)
    assert not np.array_equal(process.embeddings(), other.embeddings())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_clusters": 2}, "`n_clusters` is 2; give at least 3"),
        ({"n_items": 10}, "`n_items` is 10; give at least 16, one for each of `n_clusters`"),
        ({"min_length": 2}, "`min_length` is 2; give at least 3, one each for training, validation and test"),
        ({"max_length": 4}, "`max_length` is 4; give at least 5, which is `min_length`"),
        ({"noise": 1.1}, "`noise` is 1.1, but it is a share of steps; choose 0 to 1"),
        ({"noise": -0.1}, "`noise` is -0.1"),
    ],
)
def test_a_process_that_cannot_be_is_an_error(sizes, message):
    with pytest.raises(ValueError, match=message):
        SyntheticProcess(**sizes)


def test_the_smallest_process_works():
    process = SyntheticProcess(n_users=5, n_items=3, n_clusters=3, min_length=3, max_length=3, noise=0)
    assert len(process.sample().items) == 15


def test_walks_follow_the_stated_probabilities():
    process = SyntheticProcess(n_users=20000, n_items=12, n_clusters=3, min_length=6, max_length=6)
    cluster, probabilities = process.next_item_probabilities()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    walks = process.sample().items.reshape(-1, 6)
    last, following = cluster[walks[:, :-1].ravel()], walks[:, 1:].ravel()
    for label in range(3):
        share = np.bincount(following[last == label], minlength=12) / (last == label).sum()
        np.testing.assert_allclose(share, probabilities[label], atol=0.015)


def test_no_ranking_beats_the_optimum_and_the_true_one_reaches_it():
    process = SyntheticProcess(n_users=30000, n_items=40, n_clusters=4)
    log = process.sample()
    ends = log.starts[1:]
    last, target = log.items[ends - 2], log.items[ends - 1]
    cluster, probabilities = process.next_item_probabilities()
    ranked = np.argsort(-probabilities, axis=1)[cluster[last]]
    position = (ranked == target[:, None]).argmax(axis=1)
    optimum = process.optimum(last)
    for k in (1, 5, 10):
        assert (position < k).mean() == pytest.approx(optimum[f"recall@{k}"], abs=0.01)
        gain = np.where(position < k, 1 / np.log2(position + 2), 0).mean()
        assert gain == pytest.approx(optimum[f"ndcg@{k}"], abs=0.01)
    assert optimum["recall@50"] == pytest.approx(1)
