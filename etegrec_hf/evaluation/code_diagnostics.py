"""Diagnostics of item tokenizers: how evenly codes are used, and how much of the embeddings they keep."""

import numpy as np
import torch
import torch.nn.functional as F

from ..data.wording import counted
from ..models.modeling_rqvae import RQVAEModel

BATCH_SIZE = 8192  # items encoded and decoded at a time


def prefix_sizes(codes: torch.LongTensor) -> list[torch.LongTensor]:
    """Counts the items of each distinct prefix, at every depth; a prefix of depth d is the first d codes.

    Args:
        codes (`torch.LongTensor` of shape `(n_items, levels)`): the items' codes, without suffix.

    Returns:
        `list`: per depth from 1 to `levels`, a `torch.LongTensor` of shape `(prefixes,)`: numbers of items, largest
        first.

    >>> [sizes.tolist() for sizes in prefix_sizes(torch.tensor([[0, 1], [0, 1], [0, 2], [1, 1]]))]
    [[3, 1], [2, 1, 1]]
    """
    sizes = []
    prefix = torch.zeros_like(codes[:, 0])  # number of each item's prefix so far, below the number of items
    for level_codes in codes.unbind(1):
        _, prefix, items = (prefix * (codes.max() + 1) + level_codes).unique(return_inverse=True, return_counts=True)
        sizes.append(items.sort(descending=True).values)
    return sizes


def prefix_size_counts(codes: torch.LongTensor) -> dict[str, list[int]]:
    """Counts the prefixes with 1 item, 2 to 3 items, 4 to 7 items, and so on.

    Args:
        codes (`torch.LongTensor` of shape `(n_items, levels)`): the items' codes, without suffix.

    Returns:
        `dict`: by number of items as text (`"4-7"`), a list with the number of such prefixes per depth from 1 to
        `levels`.

    >>> prefix_size_counts(torch.tensor([[0, 1], [0, 1], [0, 2], [1, 1]]))
    {'1': [1, 2], '2-3': [1, 1]}
    """
    sizes = prefix_sizes(codes.cpu())
    edges = 2 ** np.arange(max(int(items[0]) for items in sizes).bit_length() + 1)  # the last is above all sizes
    counts = np.stack([np.histogram(items.numpy(), edges)[0] for items in sizes])  # [levels, bins]
    names = ["1", *(f"{low}-{2 * low - 1}" for low in edges[1:-1])]
    return dict(zip(names, counts.T.tolist()))


def code_changes(before: torch.LongTensor, after: torch.LongTensor) -> dict[str, float]:
    """Returns the shares of items whose codes have changed.

    Args:
        before, after (`torch.LongTensor` of shape `(n_items, code_length)`): the items' codes, with suffix.

    Returns:
        `dict` of `changed_codes` (share of items with any changed code) and, per level l from 0, `changed_codes_l`
        (share of items whose code of that level has changed; the last level is the suffix).

    >>> code_changes(torch.tensor([[0, 1], [0, 2]]), torch.tensor([[0, 1], [0, 3]]))
    {'changed_codes': 0.5, 'changed_codes_0': 0.0, 'changed_codes_1': 0.5}
    """
    changed = before != after
    by_level = enumerate(changed.float().mean(dim=0).tolist())
    share = changed.any(dim=1).float().mean().item()
    return {"changed_codes": share} | {f"changed_codes_{level}": of_level for level, of_level in by_level}


def code_diagnostics(codes: torch.LongTensor, codebook_size: int) -> dict[str, float]:
    """Measures usage, evenness and collisions of codes and prefixes.

    Args:
        codes (`torch.LongTensor` of shape `(n_items, levels)`): the items' codes, without suffix.
        codebook_size (`int`): K, codes per level.

    Returns:
        `dict` with these figures per level l from 0: `usage_l` (share of the level's codes that some item has),
        `perplexity_l` (exponential of the entropy of the level's codes in nats: the number of evenly used codes with
        the same entropy), `gini_l` (Gini coefficient of the numbers of items on all K codes: 0 if they are equal,
        `1 - 1/K` if one code has all items) and `prefixes_l` (number of distinct prefixes of the first l + 1 codes).
        Also `collision_rate` (share of items that share their whole prefix with another item) and `largest_collision`
        (largest number of items on one whole prefix).

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
    """Returns the Gini coefficient: the mean absolute difference of two counts divided by twice their mean.

    Counts are drawn with replacement. With sorted counts, the sum of all differences is a weighted sum of whole
    numbers.
    """
    n = len(counts)
    weights = 2 * torch.arange(1, n + 1, device=counts.device) - n - 1
    return (weights * counts.sort().values).sum().item() / (n * counts.sum().item())


def neighbour_sharing(
    codes: torch.LongTensor, embeddings: torch.FloatTensor, neighbours: int = 10, samples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """Measures how often items with similar embeddings share the beginning of their codes.

    Items without an embedding (all zero) are left out, also as neighbours.

    Args:
        codes (`torch.LongTensor` of shape `(n_items, levels)`): the items' codes, without suffix.
        embeddings (`torch.FloatTensor` of shape `(n_items, width)`): their semantic embeddings.
        neighbours (`int`, *optional*, defaults to 10): number of nearest other items by cosine; all others if there
            are fewer.
        samples (`int`, *optional*, defaults to 2000): number of items whose neighbours are looked up, drawn without
            replacement; all if there are fewer.
        seed (`int`, *optional*, defaults to 0): random seed of the draw.

    Returns:
        `dict` with two figures per depth d from 1: `neighbours_share_d` (share of pairs of an item and a neighbour
        that have the same first d codes) and `chance_share_d` (the same share among all pairs of different items,
        which is to be expected if codes don't depend on embeddings).

    Raises:
        ValueError: different numbers of codes and embeddings.
        ValueError: fewer than two items with an embedding.
        ValueError: `neighbours` or `samples` below 1.
    """
    if len(codes) != len(embeddings):
        raise ValueError(
            f"there are codes of {counted(len(codes), 'item')} and embeddings of {len(embeddings)}; give both of the "
            "same items."
        )
    if min(neighbours, samples) < 1:
        raise ValueError(f"`neighbours` is {neighbours} and `samples` is {samples}; both must be at least 1.")
    codes, embeddings = codes.cpu(), embeddings.cpu()
    known = torch.cat([batch.any(dim=1) for batch in embeddings.split(BATCH_SIZE)])
    n = int(known.sum())
    if n < 2:
        raise ValueError(
            f"{n} of {len(known)} items {'has' if n == 1 else 'have'} an embedding that is not all zero, but at least "
            "2 are needed to find neighbours; give embeddings of more items."
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
    """Returns the rows `[asked, listed]` of the `known` items nearest to each item of `asked`, without itself.

    All items are compared by cosine, batch by batch.
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
    """Raises a `ValueError` if embeddings `[n_items, width]` can't tell items apart, so that nothing can be learned.

    They are read batch by batch, no further than needed.
    """
    n_items = len(embeddings)
    if n_items < 2:
        raise ValueError(
            f"there are embeddings of {counted(n_items, 'item')}, but an item tokenizer needs at least 2; give more "
            "items."
        )
    if all((batch == embeddings[:1]).all() for batch in embeddings.split(BATCH_SIZE)):
        raise ValueError(f"all {n_items} items have the same embedding; give embeddings that tell items apart.")
    known = 0
    for batch in embeddings.split(BATCH_SIZE):
        known += int(batch.any(dim=1).sum())
        if known > 1:
            return
    raise ValueError(
        f"{known} of {n_items} items {'has' if known == 1 else 'have'} an embedding that is not all zero, but at "
        "least 2 need one; give embeddings of more items."
    )


@torch.no_grad()
def tokenizer_diagnostics(model: RQVAEModel, embeddings: torch.FloatTensor) -> dict[str, float]:
    """Measures how an item tokenizer encodes and reconstructs the items' embeddings.

    Items are encoded batch by batch on the model's device, so that the embeddings may be on another one.

    Args:
        model ([`RQVAEModel`]): the item tokenizer.
        embeddings (`torch.FloatTensor` of shape `(n_items, input_size)`): semantic embeddings, on any device.

    Returns:
        `dict` with the figures of [`code_diagnostics`] and [`neighbour_sharing`], `reconstruction_loss` (mean squared
        error, as in the model's loss) and `unexplained_variance` (squared error divided by the embeddings' squared
        deviation from their mean, both summed over items and dimensions: 0 for a perfect reconstruction, 1 for one no
        better than the mean).

    Raises:
        ValueError: the errors of [`check_telling`] and [`neighbour_sharing`].
    """
    check_telling(embeddings)
    # sums in double precision: for 200,000 x 1024 squares, single precision keeps too few digits
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
