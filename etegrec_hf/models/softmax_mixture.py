"""Softmaxes over many items and the logarithms of their mixtures, computed in few passes over memory."""

from collections.abc import Sequence

import torch
from torch.autograd.function import once_differentiable

AT_ONCE = 64  # users per group, so that their probabilities of all items fit into a processor's caches
SCORES_AT_ONCE = 2**18  # scores per group of items, for the same reason
SMALLEST = 1e-30  # lowest probability, so that its logarithm and its inverse are finite


class _LogMixture(torch.autograd.Function):
    """The mixture with a backward pass that computes the softmaxes again instead of keeping them in memory."""

    @staticmethod
    def forward(ctx, queries, vectors, shares):
        logarithms = vectors.new_empty(len(vectors), queries.shape[1])
        for users in _groups(queries.shape[1]):
            mixture = sum(part * shares[users, place, None] for place, part in _parts(queries, vectors, users))
            logarithms[:, users] = mixture.clamp_(min=SMALLEST).log_().T
        ctx.save_for_backward(queries, vectors, shares, logarithms)
        return logarithms

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        queries, vectors, shares, logarithms = ctx.saved_tensors
        of_queries, of_vectors, of_shares = (torch.zeros_like(tensor) for tensor in (queries, vectors, shares))
        for users in _groups(queries.shape[1]):
            of_mixture = gradient[:, users].T / logarithms[:, users].T.exp()
            for place, part in _parts(queries, vectors, users):
                of_logits = of_mixture * part
                total = of_logits.sum(1, keepdim=True)
                of_shares[users, place] = total.squeeze(1)
                of_logits.addcmul_(part, total, value=-1).mul_(shares[users, place, None])
                of_queries[place, users] = of_logits @ vectors
                of_vectors.addmm_(of_logits.T, queries[place, users])
        return of_queries, of_vectors, of_shares


def log_softmax_mixture(
    queries: torch.FloatTensor, vectors: torch.FloatTensor, shares: torch.FloatTensor
) -> torch.FloatTensor:
    """Returns the logarithm of a mixture of distributions over items, `[items, users]`.

    The distribution of each part is the softmax, over items, of the products of its query with the items' vectors.
    Probabilities below 1e-30 are raised to 1e-30.

    Args:
        queries (`torch.FloatTensor` of shape `(parts, users, width)`): query of each part and user.
        vectors (`torch.FloatTensor` of shape `(items, width)`): vectors of the items.
        shares (`torch.FloatTensor` of shape `(users, parts)`): shares of the parts, which sum to 1 per user.
    """
    return _LogMixture.apply(queries, vectors, shares)


def _groups(users: int) -> list[slice]:
    return [slice(start, start + AT_ONCE) for start in range(0, users, AT_ONCE)]


def _parts(queries, vectors, users: slice):
    """Yields each part's number and its probabilities `[users, items]`."""
    for place, query in enumerate(queries):
        yield place, (query[users] @ vectors.T).softmax(1)


class _LogP(torch.autograd.Function):
    """Log-probabilities of some items, whose gradient is written in one pass."""

    @staticmethod
    def forward(ctx, logits, rows, total):
        ctx.save_for_backward(logits, rows, total)
        return logits.gather(0, rows) - total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        logits, rows, total = ctx.saved_tensors
        of_logits, lost = torch.empty_like(logits), -gradient.sum(0)
        for items in _item_groups(logits):
            torch.sub(logits[items], total, out=of_logits[items]).exp_().mul_(lost)
        return of_logits.scatter_add_(0, rows, gradient), None, None


def log_sum_exp(logits: torch.FloatTensor) -> torch.FloatTensor:
    """Returns the log-sum-exp over items `[users]` of logits `[items, users]`, without a gradient."""
    logits = logits.detach()
    top = logits.amax(0)
    return torch.stack([(logits[items] - top).exp_().sum(0) for items in _item_groups(logits)]).sum(0).log() + top


def log_p_of(logits: torch.FloatTensor, rows: torch.LongTensor, total: torch.FloatTensor) -> torch.FloatTensor:
    """Returns the log-probabilities `[n, users]` of some items in the softmax of logits.

    Args:
        logits (`torch.FloatTensor` of shape `(items, users)`): logits of all items.
        rows (`torch.LongTensor` of shape `(n, users)`): rows of the items in `logits`.
        total (`torch.FloatTensor` of shape `(users,)`): `log_sum_exp(logits)`.
    """
    return _LogP.apply(logits, rows, total)


class _LogMean(torch.autograd.Function):
    """The logarithm of a mean of softmaxes, whose backward pass computes the softmaxes again."""

    @staticmethod
    def forward(ctx, totals, *members):
        logarithms = torch.empty_like(members[0])
        for items in _item_groups(logarithms):
            mean = sum((logits[items] - total).exp_() for logits, total in zip(members, totals)).div_(len(members))
            logarithms[items] = mean.clamp_(min=SMALLEST).log_()
        ctx.save_for_backward(logarithms, *totals, *members)
        return logarithms

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        logarithms, *saved = ctx.saved_tensors
        half = len(saved) // 2
        of_mean = gradient / logarithms.exp() / half
        gradients = []
        for total, logits in zip(saved[:half], saved[half:]):
            p = (logits - total).exp_()
            gradients.append((of_mean - (of_mean * p).sum(0)) * p)
        return None, *gradients


def log_mean_softmax(members: Sequence[torch.FloatTensor], totals: Sequence[torch.FloatTensor]) -> torch.FloatTensor:
    """Returns the logarithm of the mean of several distributions over items, `[items, users]`.

    Probabilities below 1e-30 are raised to 1e-30.

    Args:
        members (sequence of `torch.FloatTensor` of shape `(items, users)`): logits of each distribution.
        totals (sequence of `torch.FloatTensor` of shape `(users,)`): `log_sum_exp` of each of them.
    """
    return _LogMean.apply(totals, *members)


def _item_groups(logits: torch.FloatTensor) -> list[slice]:
    """Returns groups of rows of `logits`; outside of a CPU, whose caches they are for, a single one."""
    n_items, n_users = logits.shape
    step = max(1, SCORES_AT_ONCE // max(1, n_users)) if logits.device.type == "cpu" else n_items
    return [slice(start, start + step) for start in range(0, n_items, step)]
