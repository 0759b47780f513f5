import numpy as np
import pytest

from etegrec_hf.evaluation.comparison import over_seeds, paired_bootstrap
from etegrec_hf.evaluation.metrics import confidence_intervals, metrics_of_ranks, ranking_metrics, target_ranks
from etegrec_hf.evaluation.protocol import common_protocol, protocol_of


def test_ranks_give_the_metrics_of_the_lists():
    random = np.random.default_rng(0)
    lists = np.array([random.permutation(30)[:10] + 1 for _ in range(200)])
    lists[::7, 4:] = 0  # shorter lists
    targets = random.integers(1, 31, 200)
    by_hand = [list(row).index(target) + 1 if target in row else 0 for row, target in zip(lists, targets)]
    ranks = target_ranks(lists, targets)
    assert ranks.tolist() == by_hand
    means = {name: values.mean() for name, values in metrics_of_ranks(ranks, (1, 5, 10)).items()}
    assert means == pytest.approx(ranking_metrics(lists, targets, (1, 5, 10)))
    assert means["recall@5"] == np.mean([0 < rank <= 5 for rank in by_hand])
    assert means["ndcg@5"] == pytest.approx(
        np.mean([1 / np.log2(rank + 1) if 0 < rank <= 5 else 0 for rank in by_hand])
    )


def test_deviations_are_those_of_a_sample():
    found = over_seeds([{"recall@1": 0.1}, {"recall@1": 0.2}, {"recall@1": 0.6}])
    assert found["mean"]["recall@1"] == pytest.approx(0.3)
    assert found["std"]["recall@1"] == pytest.approx(np.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert over_seeds([{"recall@1": 0.1}, {"recall@1": 0.1}])["std"] == {"recall@1": 0.0}


def test_one_sample_tells_no_spread():
    assert over_seeds([{"recall@1": 0.1}]) == {"mean": {"recall@1": 0.1}, "std": {"recall@1": None}}
    one = paired_bootstrap([np.array([1])], [np.array([0])], ks=(1,))["recall@1"]
    assert one == {"difference": 1.0, "low": -1.0, "high": 1.0}
    hit = confidence_intervals(np.array([[1]]), np.array([1]), ks=(1,))
    assert hit == {"recall@1": (0.0, 1.0), "ndcg@1": (0.0, 1.0)}


def test_the_bootstrap_agrees_with_the_normal_approximation_of_paired_differences():
    random = np.random.default_rng(1)
    users = 3000
    good = [np.where(random.random(users) < 0.4, 1, 0) for _ in range(2)]
    bad = [np.where(random.random(users) < 0.3, 1, 0)]
    found = paired_bootstrap(good, bad, ks=(1,))["recall@1"]
    by_user = np.mean([run > 0 for run in good], axis=0) - (bad[0] > 0)
    half = 1.96 * by_user.std() / np.sqrt(users)
    assert found["difference"] == pytest.approx(by_user.mean())
    assert found["low"] == pytest.approx(by_user.mean() - half, abs=half / 10)
    assert found["high"] == pytest.approx(by_user.mean() + half, abs=half / 10)


def test_pairs_stay_together():
    """One system is always the other and a little better: the interval is narrow, however users differ."""
    random = np.random.default_rng(2)
    ranks = random.integers(0, 11, 2000)
    better = np.where(ranks == 2, 1, ranks)
    found = paired_bootstrap([better], [ranks], ks=(1,))["recall@1"]
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert found["high"] - found["low"] < 0.03
    same = paired_bootstrap([ranks], [ranks])["ndcg@10"]
    assert same == {"difference": 0.0, "low": 0.0, "high": 0.0}


def test_runs_on_other_users_are_refused():
    with pytest.raises(ValueError, match=r"the runs have different numbers of targets, \[3, 4\]"):
        paired_bootstrap([np.ones(3)], [np.ones(4)])


def test_targets_of_one_user_are_drawn_together():
    """Six targets per user that are hit or missed together say no more than one of them."""
    random = np.random.default_rng(3)
    hit, missed = (np.where(random.random(60) < 0.5, 1, 0) for _ in range(2))
    one = paired_bootstrap([hit], [missed], ks=(1,))
    users = random.permutation(np.repeat(np.arange(60), 6))
    six = paired_bootstrap([hit[users]], [missed[users]], ks=(1,), users=users)
    assert six == {name: pytest.approx(figures) for name, figures in one.items()}
    apart = paired_bootstrap([hit[users]], [missed[users]], ks=(1,))["recall@1"]
    width = {name: found["high"] - found["low"] for name, found in (("six", six["recall@1"]), ("apart", apart))}
    assert width["apart"] < 0.6 * width["six"]
    lists, targets = np.where(hit[:, None] > 0, 1, 2), np.ones(60, dtype=int)
    repeated = confidence_intervals(lists[users], targets[users], ks=(1,), users=users)
    assert repeated["recall@1"] == pytest.approx(confidence_intervals(lists, targets, ks=(1,))["recall@1"])


def test_a_protocol_tells_data_and_measurement(prepared):
    protocol = protocol_of(prepared, "test", True, num_beams=7)
    assert protocol["seen_items"] == "left out"
    assert protocol["num_beams"] == 7
    assert protocol["users"] == len(prepared.test)
    assert set(protocol["data"]) == {"items", "train", "test"}
    assert protocol["data"] != protocol_of(prepared, "validation", True)["data"]


@pytest.mark.parametrize(
    ("name", "value"), [("num_beams", 20), ("split", "validation"), ("data", {"items": "other"}), ("dtype", "float16")]
)
def test_results_of_another_protocol_are_not_merged(prepared, name, value):
    protocol = protocol_of(prepared, "test", False, num_beams=50)
    assert common_protocol({"a": {"protocol": protocol}, "b": {"protocol": dict(protocol)}}) == protocol
    with pytest.raises(ValueError, match=f"a.json and b.json were measured differently, with `{name}`"):
        common_protocol({"a.json": {"protocol": protocol}, "b.json": {"protocol": protocol | {name: value}}})


def test_results_without_a_protocol_are_refused(prepared):
    protocol = protocol_of(prepared, "test", False)
    with pytest.raises(ValueError, match=r"b\.json has no `protocol`"):
        common_protocol({"a.json": {"protocol": protocol}, "b.json": {}})
