"""Starting codebooks from data, and bringing unused codes back."""

import torch
from sklearn.cluster import KMeans

from ..models.modeling_rqvae import RQVAEModel


@torch.no_grad()
def initialize_codebooks(model: RQVAEModel, embeddings: torch.FloatTensor, seed: int = 0) -> None:
    """Sets each level's codebook to the k-means centres of that level's residuals.

    Args:
        model ([`RQVAEModel`]): changed in place.
        embeddings (`torch.FloatTensor` of shape `(n, input_size)`): items to start from. With fewer distinct residuals
            than codes, the remaining codes keep their random start.
        seed (`int`, *optional*, defaults to 0): of k-means.
    """
    residual = model.encoder(embeddings.to(model.dtype))
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
        embeddings (`torch.FloatTensor` of shape `(n, input_size)`): all items.

    Returns:
        `int`: how many codes were moved.
    """
    residual = model.encoder(embeddings.to(model.dtype))
    revived = 0
    for level, codebook in enumerate(model.quantizer.codebooks):
        codes = model.quantizer.closeness(residual, level).argmax(-1)
        dead = (codes.bincount(minlength=len(codebook)) == 0).nonzero().squeeze(1)
        dead = dead[: len(residual)]
        codebook[dead] = residual[torch.randperm(len(residual))[: len(dead)].to(residual.device)]
        revived += len(dead)
        residual = residual - codebook[model.quantizer.closeness(residual, level).argmax(-1)]
    return revived
