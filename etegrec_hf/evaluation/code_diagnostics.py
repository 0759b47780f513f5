"""How well an item tokenizer uses its codes."""

import torch


def code_diagnostics(codes: torch.LongTensor, codebook_size: int) -> dict[str, float]:
    """Usage, perplexity and collisions of prefixes.

    Args:
        codes (`torch.LongTensor` of shape `(n_items, levels)`): the items' codes, without suffix.
        codebook_size (`int`): K.

    Returns:
        `dict` of `usage_l` (share of level l's codes that some item has), `perplexity_l` (exponential of the entropy
        of level l's codes in nats: how many codes are used evenly), `collision_rate` (share of items that share their
        prefix with another) and `largest_collision` (most items on one prefix).

    >>> code_diagnostics(torch.tensor([[0, 1], [0, 1], [1, 0], [1, 1]]), 4)["collision_rate"]
    0.5
    """
    figures = {}
    for level in range(codes.shape[1]):
        share = torch.bincount(codes[:, level], minlength=codebook_size) / len(codes)
        figures[f"usage_{level}"] = (share > 0).float().mean().item()
        figures[f"perplexity_{level}"] = torch.special.entr(share).sum().exp().item()
    _, sizes = codes.unique(dim=0, return_counts=True)
    figures["collision_rate"] = sizes[sizes > 1].sum().item() / len(codes)
    figures["largest_collision"] = sizes.max().item()
    return figures
