"""Tiny recommenders, codes and histories."""

import torch

from etegrec_hf import ETEGRecConfig, ETEGRecForConditionalGeneration

# All options that the paper's model hasn't, the mixture too
RECIPE = {
    "encoder_attention": "causal",
    "encoder_input": "items",
    "recency_buckets": 6,
    "starts_from_last_item": True,
    "reads_items": True,
    "item_gain": 10,
    "item_logits": "exact",
    "recent_items": 3,
    "mixed_items": 2,
    "item_ensemble": 2,
    "constrained_softmax": True,
    "has_repeat_bias": True,
}


def make_model(codes: torch.Tensor, codebook_size: int, seed: int = 0, **config) -> ETEGRecForConditionalGeneration:
    """A tiny recommender in eval mode with the given codes `[n_items, code_length]`."""
    torch.manual_seed(seed)
    n_items, code_length = codes.shape
    sizes = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
    tokenizer_sizes = {"input_size": 12, "hidden_sizes": [16], "latent_size": 8}
    model = ETEGRecForConditionalGeneration(
        ETEGRecConfig(
            n_items=n_items,
            code_length=code_length,
            codebook_size=codebook_size,
            rqvae_config=tokenizer_sizes | {"num_levels": code_length - 1, "codebook_size": codebook_size},
            **(sizes | config),
        )
    ).eval()
    model.set_item_codes(codes)
    model.catalogue.set_semantic_embedding(torch.randn(n_items, 12))
    # what starts at 0 or as the identity does something
    if model.repeat_bias is not None:
        torch.nn.init.normal_(model.repeat_bias, std=0.2)
    if model.decoder.recency_bias is not None:
        torch.nn.init.normal_(model.decoder.recency_bias.weight, std=0.2)
    if model.decoder.start_projection is not None:
        torch.nn.init.normal_(model.decoder.start_projection.weight, std=0.2)
    if model.item_logits is not None:
        torch.nn.init.normal_(model.item_logits.repeats, std=0.1)
        torch.nn.init.normal_(model.item_logits.projection.weight, std=0.3)
        for member in model.item_logits.members:
            torch.nn.init.normal_(member.query.weight, std=0.2)
            if member.mixed is not None:
                torch.nn.init.normal_(member.shares.weight, std=0.2)
    if model.config.learns_transitions:
        shape = n_items, model.config.num_transitions
        followers = torch.stack([torch.randperm(n_items)[: shape[1]] + 1 for _ in range(n_items)])
        model.catalogue.set_transitions(followers, torch.rand(shape))
        torch.nn.init.normal_(model.catalogue.transitions.gains.of_pairs, std=0.02)
    return model


def random_codes(n_items: int, code_length: int, codebook_size: int, seed: int = 0) -> torch.Tensor:
    """Distinct random codes."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randperm(codebook_size**code_length, generator=generator)[:n_items]
    return torch.stack([numbers // codebook_size**level % codebook_size for level in range(code_length)], dim=1)


def random_histories(model, lengths: list[int], seed: int = 0) -> torch.Tensor:
    """Item indices `[len(lengths), longest]`, padded right with 0."""
    generator = torch.Generator().manual_seed(seed)
    history = torch.randint(1, model.config.n_items + 1, (len(lengths), max(lengths)), generator=generator)
    return history * (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1))
