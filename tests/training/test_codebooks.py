import torch

from etegrec_hf import RQVAEConfig, RQVAEModel
from etegrec_hf.training.item_tokenizer.codebooks import initialize_codebooks, revive_dead_codes


def clustered(clusters: int = 6, each: int = 20) -> torch.Tensor:
    torch.manual_seed(0)
    return (torch.randn(clusters, 8) * 5).repeat_interleave(each, 0) + 0.05 * torch.randn(clusters * each, 8)


def tiny(**config) -> RQVAEModel:
    torch.manual_seed(1)
    return RQVAEModel(RQVAEConfig(**({"input_size": 8, "hidden_sizes": [16], "latent_size": 4, "num_levels": 2,
                                      "codebook_size": 6} | config)))  # fmt: skip


def test_kmeans_finds_the_clusters_of_the_latents():
    model, embeddings = tiny(), clustered()
    initialize_codebooks(model, embeddings)
    codes = model.encode(embeddings)
    assert len(codes[:, 0].unique()) == 6
    assert all(len(group.unique()) == 1 for group in codes[:, 0].split(20)), "a cluster, a code"
    assert len(codes[:, 1].unique()) == 6, "the second level starts from what the first leaves over"


def test_kmeans_with_fewer_items_than_codes():
    model = tiny(codebook_size=16)
    before = model.quantizer.codebooks.clone()
    initialize_codebooks(model, clustered(3, 1))
    assert torch.equal(model.quantizer.codebooks[0, 3:], before[0, 3:])
    assert len(model.encode(clustered(3, 1)).unique(dim=0)) == 3


def test_dead_codes_come_back_and_living_ones_stay():
    model, embeddings = tiny(), clustered()
    initialize_codebooks(model, embeddings)
    with torch.no_grad():
        model.quantizer.codebooks[0, 2:] = 1e3
    alive = model.quantizer.codebooks[0, :2].clone()
    assert revive_dead_codes(model, embeddings) >= 4
    assert torch.equal(model.quantizer.codebooks[0, :2], alive)
    assert len(model.encode(embeddings)[:, 0].unique()) > 2
    with torch.no_grad():
        initialize_codebooks(model, embeddings)
    assert revive_dead_codes(model, embeddings) == 0
