"""A mixture of softmaxes against its formula."""

import pytest
import torch

from etegrec_hf.models.softmax_mixture import (
    AT_ONCE,
    SMALLEST,
    log_mean_softmax,
    log_p_of,
    log_softmax_mixture,
    log_sum_exp,
)


def made(users: int, seed: int = 0, items: int = 7, parts: int = 3) -> list[torch.Tensor]:
    """Queries, vectors and shares in float64."""
    generator = torch.Generator().manual_seed(seed)
    queries, vectors, shares = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((parts, users, 4), (items, 4), (users, parts))
    )
    return [queries, vectors, shares.softmax(1)]


def by_formula(queries, vectors, shares) -> torch.Tensor:
    probabilities = (queries @ vectors.T).softmax(-1)  # [parts, users, items]
    return (shares.T.unsqueeze(2) * probabilities).sum(0).log().T


@pytest.mark.parametrize("users", [1, AT_ONCE, AT_ONCE + 3])
def test_values_and_gradients_are_those_of_the_formula(users):
    ours, theirs = (
        [tensor.requires_grad_() for tensor in made(users)],
        [tensor.requires_grad_() for tensor in made(users)],
    )
    found, expected = log_softmax_mixture(*ours), by_formula(*theirs)
    assert found.shape == (7, users)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(7, users, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one.grad, other.grad)


def test_probabilities_sum_to_1_and_a_share_of_0_is_no_part():
    queries, vectors, shares = made(5)
    shares[:, 1] = 0
    shares = shares / shares.sum(1, keepdim=True)
    mixed = log_softmax_mixture(queries, vectors, shares)
    torch.testing.assert_close(mixed.exp().sum(0), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(mixed, log_softmax_mixture(queries[::2], vectors, shares[:, ::2]))


def test_hopeless_items_have_a_finite_logarithm_and_gradient():
    queries, vectors, shares = (tensor.float() for tensor in made(3))
    queries = (200 * queries).requires_grad_()
    mixed = log_softmax_mixture(queries, vectors, shares)
    assert mixed.min() == torch.tensor(SMALLEST).log()
    mixed.sum().backward()
    assert queries.grad.isfinite().all()


@pytest.mark.parametrize("at_once", [1, 64, 10**6])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_log_probabilities_and_mean_in_groups_of_items(monkeypatch, at_once, size):
    """Values and gradients are torch's, whatever the size of the groups."""
    monkeypatch.setattr("etegrec_hf.models.softmax_mixture.SCORES_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    members = [(size * torch.randn(50, 5, generator=generator)).requires_grad_() for _ in range(3)]
    rows, weights = torch.randint(50, (4, 5), generator=generator), torch.randn(50, 5, generator=generator)
    rows[1] = rows[0]  # an item that is asked for twice
    totals = [log_sum_exp(logits) for logits in members]
    for total, logits in zip(totals, members):
        torch.testing.assert_close(total, logits.detach().logsumexp(0))
        assert not total.requires_grad

    picked = log_p_of(members[0], rows, totals[0])
    expected = members[0].log_softmax(0).gather(0, rows)
    torch.testing.assert_close(picked, expected)
    found, theirs = (torch.autograd.grad((each * weights[:4]).sum(), members[0])[0] for each in (picked, expected))
    torch.testing.assert_close(found, theirs)

    mean = log_mean_softmax(members, totals)
    expected = torch.stack([logits.softmax(0) for logits in members]).mean(0).clamp(min=SMALLEST).log()
    torch.testing.assert_close(mean, expected, atol=1e-4, rtol=1e-5)
    if size == 1:  # beyond, probabilities at the limit have another gradient
        found, theirs = (torch.autograd.grad((each * weights).sum(), members) for each in (mean, expected))
        for mine, other in zip(found, theirs):
            torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)
