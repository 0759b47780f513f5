"""How well an item tokenizer uses its codes, and what they keep of the embeddings."""

import numpy as np
import torch
import torch.nn.functional as F

from ..models.modeling_rqvae import RQVAEModel

BATCH_SIZE = 8192  # items encoded and decoded at a time


def prefix_sizes(codes: torch.LongTensor) -> list[torch.LongTensor]:
    """How many items each distinct prefix has, at every depth.

    Args:
        codes (`torch.LongTensor` of shape `(n_items, levels)`): the items' codes, without suffix.

    Returns:
        `list` of a `torch.LongTensor` of shape `(prefixes,)` for each of the depths 1 to `levels`, where a prefix is
        the first codes, as many as the depth: the numbers of items, largest first.

    >>> [sizes.tolist() for sizes in prefix_sizes(torch.tensor([[0, 1], [0, 1], [0, 2], [1, 1]]))]
    [[3, 1], [2, 1, 1]]
    """
    sizes = []
    prefix = torch.zeros_like(codes[:, 0])  # a number for each item's prefix so far, below the number of items
    for level_codes in codes.unbind(1):
        _, prefix, items = (prefix * (codes.max() + 1) + level_codes).unique(return_inverse=True, return_counts=True)
        sizes.append(items.sort(descending=True).values)
    return sizes


def prefix_size_counts(codes: torch.LongTensor) -> dict[str, list[int]]:
    """How many prefixes have 1 item, 2 to 3, 4 to 7, and so on.

    Args:
        codes (`torch.LongTensor` of shape `(n_items, levels)`): the items' codes, without suffix.

    Returns:
        `dict` of the numbers of items as text (`"4-7"`): for each of the depths 1 to `levels`, the prefixes that have
        so many.

    >>> prefix_size_counts(torch.tensor([[0, 1], [0, 1], [0, 2], [1, 1]]))
    {'1': [1, 2], '2-3': [1, 1]}
    """
    sizes = prefix_sizes(codes.cpu())
    edges = 2 ** np.arange(max(int(items[0]) for items in sizes).bit_length() + 1)  # the last is above all sizes
    counts = np.stack([np.histogram(items.numpy(), edges)[0] for items in sizes])  # [levels, bins]
    names = ["1", *(f"{low}-{2 * low - 1}" for low in edges[1:-1])]
    return dict(zip(names, counts.T.tolist()))


def code_changes(before: torch.LongTensor, after: torch.LongTensor) -> dict[str, float]:
    """Shares of items that have other codes than before.

    Args:
        before, after (`torch.LongTensor` of shape `(n_items, code_length)`): the items' codes, with suffix.

    Returns:
        `dict` of `changed_codes` (share of items of which any code is another) and, for each level l from 0,
        `changed_codes_l` (share of items whose code of that level is; the last level is the suffix).

    >>> code_changes(torch.tensor([[0, 1], [0, 2]]), torch.tensor([[0, 1], [0, 3]]))
    {'changed_codes': 0.5, 'changed_codes_0': 0.0, 'changed_codes_1': 0.5}
    """
    changed = before != after
    by_level = enumerate(changed.float().mean(dim=0).tolist())
    share = changed.any(dim=1).float().mean().item()
    return {"changed_codes": share} | {f"changed_codes_{level}": of_level for level, of_level in by_level}


def code_diagnostics(codes: torch.LongTensor, codebook_size: int) -> dict[str, float]:
    """Usage, evenness and collisions of codes and prefixes.

    Args:
        codes (`torch.LongTensor` of shape `(n_items, levels)`): the items' codes, without suffix.
        codebook_size (`int`): K.

    Returns:
        `dict` of, for each level l from 0: `usage_l` (share of the level's codes that some item has), `perplexity_l`
        (exponential of the entropy of the level's codes in nats: how many codes are used evenly), `gini_l` (Gini
        coefficient of the numbers of items on all K codes: 0 if they are equal, `1 - 1/K` if one code has all items)
        and `prefixes_l` (distinct prefixes of the first l + 1 codes); and of `collision_rate` (share of items that
        share their whole prefix with another) and `largest_collision` (most items on one whole prefix).

    >>> figures = code_diagnostics(torch.tensor([[0, 1], [0, 1], [1, 0], [1, 1]]), 4)
    >>> figures["collision_rate"], figures["gini_0"], figures["prefixes_1"]
    (0.5, 0.5, 3)
    """
    figures: dict[str, float] = {}
    sizes = prefix_sizes(codes)
    for level in range(codes.shape[1]):
        items = torch.bincount(codes[:, level], minlength=codebook_size)
        share = items / len(codes)
        figures[f"usage_{level}"] = (share > 0).float().mean().item()
        figures[f"perplexity_{level}"] = torch.special.entr(share).sum().exp().item()
        figures[f"gini_{level}"] = _gini(items)
        figures[f"prefixes_{level}"] = len(sizes[level])
    figures["collision_rate"] = sizes[-1][sizes[-1] > 1].sum().item() / len(codes)
    figures["largest_collision"] = sizes[-1].max().item()
    return figures


def _gini(counts: torch.LongTensor) -> float:
    """Mean absolute difference of two counts, drawn with replacement, over twice their mean.

    With the counts sorted, the sum of all differences is a weighted sum, in whole numbers.
    """
    n = len(counts)
    weights = 2 * torch.arange(1, n + 1, device=counts.device) - n - 1
    return (weights * counts.sort().values).sum().item() / (n * counts.sum().item())


def neighbour_sharing(
    codes: torch.LongTensor, embeddings: torch.FloatTensor, neighbours: int = 10, samples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """Whether items that are near each other in embedding space share the beginning of their codes.

    Items without an embedding (all zero) have no direction, so they are neither asked nor counted as neighbours.

    Args:
        codes (`torch.LongTensor` of shape `(n_items, levels)`): the items' codes, without suffix.
        embeddings (`torch.FloatTensor` of shape `(n_items, width)`): their semantic embeddings.
        neighbours (`int`, *optional*, defaults to 10): nearest other items by cosine; all others where there are
            fewer.
        samples (`int`, *optional*, defaults to 2000): items whose neighbours are looked up, drawn without replacement;
            all where there are fewer.
        seed (`int`, *optional*, defaults to 0): of the draw.

    Returns:
        `dict` of, for each depth d from 1: `neighbours_share_d` (share of pairs of an item and a neighbour that have
        the same first d codes) and `chance_share_d` (the same for all pairs of two different items: what neighbours
        would share if codes knew nothing of embeddings).

    Raises:
        ValueError: codes and embeddings of different numbers of items, fewer than two items with an embedding, or
            `neighbours` or `samples` below 1.
    """
    if len(codes) != len(embeddings):
        raise ValueError(f"{len(codes)} items have codes and {len(embeddings)} an embedding; give the same items.")
    if min(neighbours, samples) < 1:
        raise ValueError(f"`neighbours` is {neighbours} and `samples` {samples}; both must be at least 1.")
    codes, embeddings = codes.cpu(), embeddings.cpu()
    known = torch.cat([batch.any(dim=1) for batch in embeddings.split(BATCH_SIZE)])
    n = int(known.sum())
    if n < 2:
        raise ValueError(
            f"{n} of {len(known)} items have an embedding that is not all zero, and neighbours need at least 2; give "
            "embeddings of more items."
        )
    chosen = np.random.default_rng(seed).choice(n, min(samples, n), replace=False)
    asked = known.nonzero().squeeze(1)[chosen]
    nearest = _nearest(embeddings, known, asked, min(neighbours, n - 1))
    same = codes[asked].unsqueeze(1) == codes[nearest]
    shared = same.cumprod(dim=2).double().mean(dim=(0, 1))  # [levels]
    figures = {}
    for depth, (share, sizes) in enumerate(zip(shared.tolist(), prefix_sizes(codes[known])), start=1):
        figures[f"neighbours_share_{depth}"] = share
        figures[f"chance_share_{depth}"] = (sizes * (sizes - 1)).sum().item() / (n * (n - 1))
    return figures


def _nearest(
    embeddings: torch.FloatTensor, known: torch.BoolTensor, asked: torch.LongTensor, listed: int
) -> torch.LongTensor:
    """The rows `[asked, listed]` of the `known` items nearest to those asked by cosine, without themselves.

    All items are looked at, batch by batch.
    """
    directions = F.normalize(embeddings[asked].float(), dim=1)
    best = directions.new_empty(len(asked), 0)
    rows = asked.new_empty(len(asked), 0)
    for start, batch in zip(range(0, len(embeddings), BATCH_SIZE), embeddings.split(BATCH_SIZE)):
        cosine = directions @ F.normalize(batch.float(), dim=1).T  # [asked, batch]
        cosine[:, ~known[start : start + len(batch)]] = -torch.inf
        here = ((asked >= start) & (asked < start + len(batch))).nonzero().squeeze(1)
        cosine[here, asked[here] - start] = -torch.inf
        values, places = cosine.topk(min(listed, len(batch)), dim=1)
        best, order = torch.cat([best, values], dim=1).sort(dim=1, descending=True)
        rows = torch.cat([rows, start + places], dim=1).gather(1, order)[:, :listed]
        best = best[:, :listed]
    return rows


def check_telling(embeddings: torch.FloatTensor) -> None:
    """Raises a `ValueError` if embeddings `[n_items, width]` tell no items apart, and nothing can be learned of them.

    They are read batch by batch, no further than needed.
    """
    n_items = len(embeddings)
    if n_items < 2:
        raise ValueError(
            f"there are embeddings of {n_items} items, and an item tokenizer tells items apart; give more."
        )
    if all((batch == embeddings[:1]).all() for batch in embeddings.split(BATCH_SIZE)):
        raise ValueError(
            f"all {n_items} items have the same embedding, which tells nothing; give embeddings that tell items apart."
        )
    known = 0
    for batch in embeddings.split(BATCH_SIZE):
        known += int(batch.any(dim=1).sum())
        if known > 1:
            return
    raise ValueError(
        f"{known} of {n_items} items have an embedding that is not all zero, and at least 2 need one; give embeddings "
        "of more items."
    )


@torch.no_grad()
def tokenizer_diagnostics(model: RQVAEModel, embeddings: torch.FloatTensor) -> dict[str, float]:
    """What can be told of an item tokenizer from the items' embeddings.

    Items are encoded batch by batch on the model's device, so that the embeddings may stay where they are.

    Args:
        model ([`RQVAEModel`]): the item tokenizer.
        embeddings (`torch.FloatTensor` of shape `(n_items, input_size)`): semantic embeddings, on any device.

    Returns:
        `dict` of [`code_diagnostics`], [`neighbour_sharing`], `reconstruction_loss` (mean squared error, as the model
        has it) and `unexplained_variance` (squared error over the embeddings' squared deviation from their mean, both
        summed over items and dimensions: 0 for a perfect reconstruction, 1 for one no better than the mean).

    Raises:
        ValueError: [`check_telling`] or [`neighbour_sharing`] raises.
    """
    check_telling(embeddings)
    # Sums are of double precision: of 200,000 x 1024 squares, single precision keeps too few digits
    mean = torch.stack([batch.sum(0, dtype=torch.float64) for batch in embeddings.split(BATCH_SIZE)]).sum(0)
    mean /= len(embeddings)
    codes, squared_error, squared_deviation = [], 0.0, 0.0
    for batch in embeddings.split(BATCH_SIZE):
        inputs = batch.to(model.device, model.dtype)
        output = model(inputs)
        codes.append(output.codes.cpu())
        squared_error += (output.reconstruction - inputs).square().sum(dtype=torch.float64).item()
        squared_deviation += (batch - mean).square().sum().item()
    all_codes = torch.cat(codes)
    return {
        **code_diagnostics(all_codes, model.config.codebook_size),
        **neighbour_sharing(all_codes, embeddings),
        "reconstruction_loss": squared_error / embeddings.numel(),
        "unexplained_variance": squared_error / squared_deviation,
    }
