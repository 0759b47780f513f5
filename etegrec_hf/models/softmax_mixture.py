"""The logarithm of a mixture of softmaxes over many items, computed in few passes over memory."""

import torch
from torch.autograd.function import once_differentiable

AT_ONCE = 64  # users per group, so that their probabilities of all items fit into a processor's caches
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
