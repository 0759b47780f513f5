"""Each baseline against plain loops over users and items."""

import json

import numpy as np
import pytest
import torch

from etegrec_hf.data.prepared import PreparedDataset, Split
from etegrec_hf.evaluation.baselines import baselines, nearest_neighbours, popularity, transitions
from etegrec_hf.evaluation.collaborative import load_collaborative_model, next_item_scores, rank_split
from etegrec_hf.evaluation.metrics import ranking_metrics
from etegrec_hf.evaluation.seen import padded_rows, seen_items
from etegrec_hf.training.collaborative.arguments import CollaborativeSizes
from etegrec_hf.training.collaborative.model import build_collaborative_model

N_ITEMS = 30


def data_of(train: list[list[int]], test: list[list[int]], n_items: int) -> PreparedDataset:
    def split(rows):
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        return Split([str(row) for row in range(len(rows))], np.concatenate(rows), offsets)

    ids = [str(item) for item in range(1, n_items + 1)]
    return PreparedDataset(ids, [""] * n_items, None, split(train), split(test), split(test), {})


def slow_transitions(data: PreparedDataset, split: Split) -> list[list[int]]:
    """The heuristic in plain loops."""
    n = data.n_items
    counts = np.zeros((n + 1, n + 1))
    for start, end in zip(data.train.offsets, data.train.offsets[1:]):
        row = data.train.sequences[start:end]
        for a in range(len(row)):
            for d in (1, 2, 3):
                if a + d < len(row):
                    counts[row[a], row[a + d]] += 1 / d
                    counts[row[a + d], row[a]] += 0.3 / d
    totals = np.sqrt(counts.sum(axis=1, keepdims=True))
    normed = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    lists = []
    for start, end in zip(split.offsets, split.offsets[1:]):
        history = split.sequences[start : end - 1][::-1][:10]
        votes = sum(normed[item] * 0.7**k for k, item in enumerate(history))
        lists.append(
            sorted((item for item in range(1, n + 1) if votes[item] > 0), key=lambda item: (-votes[item], item))
        )
    return lists


@pytest.fixture(scope="module")
def data() -> PreparedDataset:
    random = np.random.default_rng(0)
    rows = [random.integers(1, N_ITEMS + 1, random.integers(2, 15)).tolist() for _ in range(60)]
    return data_of(rows[:50], rows, N_ITEMS)


def histories(split: Split) -> list[list[int]]:
    return [row[:-1].tolist() for row in np.split(split.sequences, split.offsets[1:-1])]


def without_padding(ranked: np.ndarray) -> list[list[int]]:
    """Returns lists without padding, after a check that padding is only at the end."""
    for row in ranked:
        assert (np.diff((row == 0).astype(int)) >= 0).all()
    return [[item for item in row.tolist() if item] for row in ranked]


def test_transitions_agree_with_plain_loops(data):
    assert without_padding(transitions(data, data.test)) == slow_transitions(data, data.test)


def test_popularity_counts_training_alone():
    data = data_of([[1, 2, 2], [2, 3]], [[1, 3, 3], [2, 1, 2]], 4)
    ranked = popularity(data, data.test)
    assert ranked[:, :4].tolist() == [[2, 1, 3, 4]] * 2, "2 leads training, though 3 leads test; ties by index"
    assert not ranked[:, 4:].any()
    assert set(baselines(data, data.test)) == {"popularity", "transitions"}


def test_nearest_neighbours_by_hand():
    data = data_of([[1, 2], [4]], [[1, 2, 3], [4, 1]], 4)
    embeddings = np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0], [0.0, 0.0]])
    # user 1 took 1 (direction .6, .8), then 2 (direction 0, 1): wants .7 * (.6, .8) + (0, 1) = (.42, 1.56)
    # cosines with weights: item 1 .252 + 1.248 = 1.5, item 2 1.56, item 3 .42; item 4 has no direction
    # user 2 took item 4, of which nothing is known
    assert without_padding(nearest_neighbours(embeddings, data, data.test)) == [[2, 1, 3], []]
    seen = seen_items(data, data.test)
    assert without_padding(nearest_neighbours(embeddings, data, data.test, seen)) == [[3], []]


def test_nearest_neighbours_agree_with_plain_loops(data):
    embeddings = np.random.default_rng(3).standard_normal((N_ITEMS, 5))
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    assert max(map(len, histories(data.test))) > 10, "older items don't vote"
    for history, row in zip(histories(data.test), nearest_neighbours(embeddings, data, data.test)):
        wanted = sum(0.7**k * directions[item - 1] for k, item in enumerate(history[::-1][:10]))
        expected = sorted(range(1, N_ITEMS + 1), key=lambda item: -directions[item - 1] @ wanted)
        assert row[:N_ITEMS].tolist() == expected


def seen_by_hand(data: PreparedDataset) -> list[set[int]]:
    """Each test row's history, and the training sequence of the same user."""
    train = dict(zip(data.train.user_ids, np.split(data.train.sequences, data.train.offsets[1:-1])))
    return [
        set(history) | set(train.get(user, np.array([], int)).tolist())
        for user, history in zip(data.test.user_ids, histories(data.test))
    ]


def test_what_was_seen_is_history_and_training(data):
    seen = seen_items(data, data.test)
    for row, expected in zip(seen, seen_by_hand(data)):
        assert set((row.indices + 1).tolist()) == expected
    assert set(seen.data.tolist()) == {1}
    for row, expected in zip(padded_rows(seen), seen_by_hand(data)):
        assert set(row.tolist()) - {0} == expected


@pytest.mark.parametrize("at_once", [7, 10**6])
def test_seen_items_are_left_out_of_every_list(data, monkeypatch, at_once):
    monkeypatch.setattr("etegrec_hf.evaluation.baselines.CHUNK", at_once)
    monkeypatch.setattr("etegrec_hf.evaluation.baselines.SCORES", at_once * N_ITEMS)
    embeddings = np.random.default_rng(1).standard_normal((N_ITEMS, 8))
    model = tiny_model()
    for name, rank in (
        ("popularity", popularity),
        ("transitions", transitions),
        ("neighbours", lambda *args: nearest_neighbours(embeddings, *args)),
        ("sasrec", lambda data, split, seen: rank_split(model, split, N_ITEMS, seen, batch_size=11)),
    ):
        kept, left_out = (without_padding(rank(data, data.test, seen)) for seen in (None, seen_items(data, data.test)))
        assert any(kept)
        for seen, before, after in zip(seen_by_hand(data), kept, left_out):
            assert after == [item for item in before if item not in seen], name


def tiny_model(seed: int = 0):
    torch.manual_seed(seed)
    return build_collaborative_model(N_ITEMS, CollaborativeSizes(16, 1, 2, 0.1, 20)).eval()


def test_the_collaborative_model_ranks_each_history_as_if_alone(data):
    model = tiny_model()
    ranked = rank_split(model, data.test, 7, batch_size=13)
    for history, row in zip(histories(data.test), ranked):
        scores = next_item_scores(model, torch.tensor([history]))
        assert scores[0, 0] == -torch.inf
        assert row.tolist() == scores[0].topk(7).indices.tolist()
        padded = next_item_scores(model, torch.tensor([history + [0] * 3]))
        assert torch.allclose(padded[0, 1:], scores[0, 1:], atol=1e-5)


def test_all_baselines_stand_in_one_table(data):
    embeddings = {"text": np.random.default_rng(2).standard_normal((N_ITEMS, 4))}
    rows = baselines(data, data.test, embeddings, tiny_model())
    assert list(rows) == ["popularity", "transitions", "k-NN, text", "SASRec"]
    assert rows["SASRec"] == ranking_metrics(rank_split(tiny_model(), data.test, 50), data.test.targets)
    assert rows["transitions"]["recall@10"] == pytest.approx(
        np.mean(
            [target in ranked[:10] for ranked, target in zip(slow_transitions(data, data.test), data.test.targets)]
        )
    )


def test_seen_items_are_left_out_of_the_whole_table(data):
    embeddings = {"text": np.random.default_rng(2).standard_normal((N_ITEMS, 4))}
    kept, left_out = (baselines(data, data.test, embeddings, tiny_model(), seen) for seen in (False, True))
    assert kept.keys() == left_out.keys()
    for name in kept:
        assert kept[name] != left_out[name], name


def test_small_catalogues_have_all_metrics():
    data = data_of([[1, 2, 3], [2, 3, 1]], [[1, 2, 3], [2, 3, 1]], 3)
    rows = baselines(data, data.test, {"text": np.eye(3)})
    assert all(set(metrics) == set(rows["transitions"]) for metrics in rows.values())
    assert rows["popularity"]["recall@50"] == 1


def test_a_collaborative_model_of_other_items_is_an_error(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no collaborative model; make one with `etegrec embed`"):
        load_collaborative_model(tmp_path, data)
    tiny_model().train().save_pretrained(tmp_path)
    for ids, what in ((["a", "b"], "2 other items"), (data.item_ids[::-1], "the same items in another order")):
        (tmp_path / "item_ids.json").write_text(json.dumps(ids))
        with pytest.raises(ValueError, match=f"not trained on this dataset's 30 items, but on {what}; train one"):
            load_collaborative_model(tmp_path, data)
    (tmp_path / "item_ids.json").write_text(json.dumps(data.item_ids))
    assert not load_collaborative_model(tmp_path, data).training, "without dropout"
