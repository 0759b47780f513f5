import numpy as np
import pytest

from etegrec_hf.data.cooccurrence import cooccurrence_counts, cooccurrence_embedding


def test_counts_by_hand():
    # two users: 0 1 2 and 1 2; window 2
    counts = cooccurrence_counts(np.array([0, 1, 2, 1, 2]), np.array([0, 3, 5]), 3, window=2).toarray()
    np.testing.assert_allclose(counts, [[0, 1, 0.5], [0, 0, 2], [0, 0, 0]])


def test_agrees_with_dense_linear_algebra():
    random = np.random.default_rng(1)
    sequences, offsets = random.integers(0, 12, 300), np.arange(0, 301, 10)
    counts = cooccurrence_counts(sequences, offsets, 12, window=5).toarray()
    counts = counts + counts.T
    totals = counts.sum(axis=1)
    with np.errstate(divide="ignore"):
        positive = np.maximum(np.log(counts * totals.sum() / np.outer(totals, totals)), 0)
    left, singular, _ = np.linalg.svd(positive)
    expected = left[:, :5] * np.sqrt(singular[:5])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    embedding = cooccurrence_embedding(sequences, offsets, 12, width=5)
    np.testing.assert_allclose((embedding**2).mean(axis=1), 1, rtol=1e-5)
    # signs of components are free, products of rows are not
    np.testing.assert_allclose(embedding @ embedding.T / 5, expected @ expected.T, atol=1e-4)


def test_items_that_meet_alike_lie_together():
    random = np.random.default_rng(0)
    halves = [random.integers(0, 20, (200, 6)), random.integers(20, 40, (200, 6))]
    sequences = np.concatenate(halves).ravel()
    embedding = cooccurrence_embedding(sequences, np.arange(0, len(sequences) + 1, 6), 40, width=2)
    cosine = embedding @ embedding.T / 2
    assert cosine[:20, :20].mean() > 0.9
    assert np.abs(cosine[:20, 20:]).mean() < 0.3


def test_items_without_company_are_zero():
    embedding = cooccurrence_embedding(np.array([0, 1, 2]), np.array([0, 2, 3]), 4, width=2)
    assert (embedding[2:] == 0).all()
    assert (embedding[:2] != 0).any()
    with pytest.raises(ValueError, match="no two items occur in the same training sequence"):
        cooccurrence_embedding(np.array([0, 1]), np.array([0, 1, 2]), 2)
