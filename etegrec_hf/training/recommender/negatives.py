"""Negatives from the batches of other processes."""

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from .losses import Negatives


def negatives_of_others(targets: Tensor, preference: Tensor, reconstruction: Tensor) -> Negatives:
    """Returns the targets that all other processes give to this function; gradients flow back to those processes.

    Each process must call this function.

    Args:
        targets (`torch.LongTensor` of shape `(targets,)`): item indices of this process's targets.
        preference, reconstruction (`torch.FloatTensor` of shape `(targets, input_size)`): see
            [`preference_semantic_alignment`].
    """
    state = PartialState()
    counts = [torch.zeros_like(targets[:1]) for _ in range(state.num_processes)]
    dist.all_gather(counts, torch.full_like(targets[:1], len(targets)))
    longest = int(torch.stack(counts).max())

    def theirs(rows: Tensor) -> Tensor:
        padded = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
        parts = all_gather(padded)
        return torch.cat(
            [part[:count] for i, (part, count) in enumerate(zip(parts, counts)) if i != state.process_index]
        )

    return Negatives(theirs(preference), theirs(reconstruction), targets.unsqueeze(1) == theirs(targets))
