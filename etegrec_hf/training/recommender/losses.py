"""Alignment losses between recommender and item tokenizer."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Negatives:
    """Targets of other processes, which are used only as negatives.

    Args:
        preference (`torch.FloatTensor` of shape `(others, input_size)`): preference latents of these targets.
        reconstruction (`torch.FloatTensor` of the same shape): reconstructions of these targets.
        is_same (`torch.BoolTensor` of shape `(targets, others)`): whether a target of this process and one of another
            process are the same item. They aren't negatives of each other then.
    """

    preference: Tensor
    reconstruction: Tensor
    is_same: Tensor


def sequence_item_alignment(sequence_logits: Tensor, item_logits: Tensor) -> Tensor:
    """Returns the symmetric KL divergence between the code distributions of a history and of its target (SIA).

    Args:
        sequence_logits (`torch.FloatTensor` of shape `(targets, levels, codebook_size)`):
            Code logits of the projected history: minus squared distances to the codebook vectors.
        item_logits (`torch.FloatTensor` of the same shape): the same for the target.

    Returns:
        `torch.FloatTensor` of shape `()`: KL(p||q) + KL(q||p) in nats, averaged over targets and levels.

    Source: ETEGRec, section 3.3.1; specification, section 4.2.
    """
    sequence_log_p = sequence_logits.float().log_softmax(-1)
    item_log_p = item_logits.float().log_softmax(-1)
    difference = (sequence_log_p.exp() - item_log_p.exp()) * (sequence_log_p - item_log_p)
    return difference.sum(-1).mean()


def preference_semantic_alignment(
    preference: Tensor,
    reconstruction: Tensor,
    temperature: float = 0.07,
    others: Negatives | None = None,
) -> Tensor:
    """Returns the symmetric InfoNCE loss between users' preference latents and their targets' reconstructions (PSA).

    Args:
        preference (`torch.FloatTensor` of shape `(targets, input_size)`): preference latents.
        reconstruction (`torch.FloatTensor` of the same shape): row i belongs to row i of `preference`; the other rows
            are its negatives, so targets should be distinct.
        temperature (`float`, *optional*, defaults to 0.07): cosine similarities are divided by it.
        others ([`Negatives`], *optional*): targets of other processes.

    Returns:
        `torch.FloatTensor` of shape `()`: the sum of both directions' cross-entropies in nats, averaged over targets.

    Source: ETEGRec, section 3.3.2; specification, section 4.2.
    """
    users, items = (F.normalize(rows.float(), dim=-1) for rows in (preference, reconstruction))
    to_items = users @ items.T
    to_users = to_items.T
    if others is not None:
        other_users, other_items = (
            F.normalize(rows.float(), dim=-1) for rows in (others.preference, others.reconstruction)
        )
        to_items = torch.cat([to_items, (users @ other_items.T).masked_fill(others.is_same, -torch.inf)], dim=1)
        to_users = torch.cat([to_users, (items @ other_users.T).masked_fill(others.is_same, -torch.inf)], dim=1)
    own = torch.arange(len(users), device=users.device)
    return F.cross_entropy(to_items / temperature, own) + F.cross_entropy(to_users / temperature, own)


def first_of_each(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the distinct values of `targets` `[batch]` in ascending order, and the first row of each value."""
    distinct, inverse = targets.unique(return_inverse=True)
    rows = torch.arange(len(targets), device=targets.device)
    first = torch.full_like(distinct, len(targets)).scatter_reduce_(0, inverse, rows, "amin")
    return distinct, first
