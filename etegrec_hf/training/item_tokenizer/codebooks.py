"""Codebooks that start from k-means, and moving unused codes onto items."""

import torch
from sklearn.cluster import KMeans

from ...models.modeling_rqvae import RQVAEModel

SAMPLES_A_CODE = 256  # items per code that k-means reads, as many as in faiss
BATCH_SIZE = 8192  # items encoded at a time


@torch.no_grad()
def initialize_codebooks(model: RQVAEModel, embeddings: torch.FloatTensor, seed: int = 0) -> None:
    """Sets each level's codebook to the k-means centres of that level's residuals.

    Args:
        model ([`RQVAEModel`]): changed in place.
        embeddings (`torch.FloatTensor` of shape `(n, input_size)`): items to start from, on any device. If there are
            more than 256 items per code, that many are drawn at random. With fewer distinct residuals than codes, the
            remaining codes keep their random start.
        seed (`int`, *optional*, defaults to 0): random seed of k-means and of the drawn items.
    """
    limit = SAMPLES_A_CODE * model.config.codebook_size
    if len(embeddings) > limit:
        chosen = torch.randperm(len(embeddings), generator=torch.Generator().manual_seed(seed))[:limit]
        embeddings = embeddings[chosen.sort().values]
    residual = model.encoder(embeddings.to(model.device, model.dtype))
    for level, codebook in enumerate(model.quantizer.codebooks):
        clusters = min(len(codebook), len(residual.unique(dim=0)))
        kmeans = KMeans(clusters, n_init=1, max_iter=50, random_state=seed).fit(residual.float().cpu().numpy())
        codebook[:clusters] = torch.from_numpy(kmeans.cluster_centers_).to(codebook)
        residual = residual - codebook[model.quantizer.closeness(residual, level).argmax(-1)]


@torch.no_grad()
def revive_dead_codes(model: RQVAEModel, embeddings: torch.FloatTensor) -> int:
    """Moves codes that no item uses onto residuals of random items, level by level.

    Args:
        model ([`RQVAEModel`]): changed in place.
        embeddings (`torch.FloatTensor` of shape `(n, input_size)`): all items, on any device. They are read batch by
            batch: once, and again after each level but the last in which codes were moved.

    Returns:
        `int`: how many codes were moved.
    """
    codebooks = model.quantizer.codebooks
    chosen = torch.stack([torch.randperm(len(embeddings))[: codebooks.shape[1]] for _ in codebooks])
    revived, changed = 0, True
    for level, codebook in enumerate(codebooks):
        if changed:
            items, residuals = _usage(model, embeddings, chosen)
        dead = (items[level] == 0).nonzero().squeeze(1)[: len(embeddings)]
        codebook[dead] = residuals[level, : len(dead)]
        changed = len(dead) > 0
        revived += len(dead)
    return revived


def _usage(
    model: RQVAEModel, embeddings: torch.FloatTensor, chosen: torch.LongTensor
) -> tuple[torch.LongTensor, torch.Tensor]:
    """Returns how many items have each code, `[levels, K]`, and each level's residuals of the items `chosen`.

    Args:
        chosen (`torch.LongTensor` of shape `(levels, m)`): rows of `embeddings`; their residuals are
            `(levels, m, latent_size)`.
    """
    codebooks = model.quantizer.codebooks
    items = torch.zeros(codebooks.shape[:2], dtype=torch.long, device=codebooks.device)
    residuals = codebooks.new_empty(*chosen.shape, codebooks.shape[2])
    for start in range(0, len(embeddings), BATCH_SIZE):
        residual = model.encoder(embeddings[start : start + BATCH_SIZE].to(model.device, model.dtype))
        for level, codebook in enumerate(codebooks):
            rows = chosen[level] - start
            here = (rows >= 0) & (rows < len(residual))
            residuals[level, here.to(residual.device)] = residual[rows[here].to(residual.device)]
            codes = model.quantizer.closeness(residual, level).argmax(-1)
            items[level] += codes.bincount(minlength=len(codebook))
            residual = residual - codebook[codes]
    return items, residuals
