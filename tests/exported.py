"""Tiny models that are exported, and the networks of an export run by torch, which needs no ONNX."""

import torch
from tiny_models import RECIPE, make_model, random_codes

from etegrec_hf import ETEGRecTokenizer
from etegrec_hf.runtime.export import search_tables, settings_of
from etegrec_hf.runtime.folder import Export
from etegrec_hf.runtime.graphs import HistoryGraph, StepGraph
from etegrec_hf.runtime.recommender import ExportedRecommender

N_ITEMS, CODEBOOK_SIZE = 60, 6
KINDS = {"paper": {}, "recipe": RECIPE}


def exported_model(seed: int = 0, **kind):
    """A tiny model with all tables that a search may read, some items removed, and its tokenizer."""
    codes = random_codes(N_ITEMS, 3, CODEBOOK_SIZE, seed)
    sizes = {"num_layers": 1, "num_decoder_layers": 2, "max_history": 6, "num_transitions": 3}
    model = make_model(codes, CODEBOOK_SIZE, seed, **(sizes | kind))
    came_next = torch.randint(1, N_ITEMS + 1, (N_ITEMS, 3))
    if model.catalogue.transitions is not None:
        model.catalogue.set_transitions(came_next, torch.rand(N_ITEMS, 3))
        if model.config.learns_transitions:
            torch.nn.init.normal_(model.catalogue.transitions.gains.of_pairs, std=0.02)
    model.catalogue.set_item_counts(torch.arange(N_ITEMS) // 2)
    model.remove_items(torch.tensor([3, 9]))
    ids = [f"i{index}" for index in range(1, N_ITEMS + 1)]
    titles = {"i1": "First", "i2": "Second"}
    tokenizer = ETEGRecTokenizer.from_item_codes(
        ids, codes, CODEBOOK_SIZE, max_history=model.config.max_history, item_titles=titles
    )
    return model, tokenizer


class TorchNetwork:
    """The networks of an export as torch runs them before they are exported, or as programs."""

    def __init__(self, history, step):
        self.history, self.next = history, step

    @torch.no_grad()
    def read(self, items):
        return _arrays(self.history(torch.from_numpy(items)))

    @torch.no_grad()
    def step(self, tokens, back, level, known):
        state = {name: value for name, value in known.items() if isinstance(value, torch.Tensor)}
        return _arrays(self.next(*map(torch.from_numpy, (tokens, back, level)), state))


def _arrays(outputs: dict) -> dict:
    small = ("log_p", "item_logits", "preference")
    return {name: value.numpy() if name in small else value for name, value in outputs.items()}


@torch.no_grad()
def in_memory(model, tokenizer) -> ExportedRecommender:
    """Returns the recommender of an export of the model, without a folder."""
    export = Export(None, settings_of(model, tokenizer), search_tables(model))
    return ExportedRecommender(export, TorchNetwork(HistoryGraph(model).eval(), StepGraph(model).eval()))
