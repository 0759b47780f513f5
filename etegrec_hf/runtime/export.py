"""Exports a recommender into a folder that needs no torch: two networks, the tables of a search, and settings."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from ..data.checks import check_choice
from ..data.folders import check_output_dir, complete_or_absent
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.modeling_rqvae import directions_of
from ..models.search_options import can_rerank, can_vote
from ..models.tokenization_etegrec import ETEGRecTokenizer
from .folder import FORMAT_VERSION, HISTORY, SETTINGS, STEP, SUFFIXES, TABLES, SearchTables
from .graphs import HistoryGraph, StepGraph, check_exportable
from .search import STATE

OPSET = 20  # the newest that the oldest supported ONNX Runtime knows


@torch.no_grad()
def export(
    model: ETEGRecForConditionalGeneration,
    tokenizer: ETEGRecTokenizer,
    output_dir: str | Path,
    format: str = "onnx",
) -> Path:
    """Writes a recommender as two networks that run without its code, and the tables of a search with them.

    `encoder` reads histories and computes the logits of the first code. `decoder_step` reads one more code per beam.
    Weights are float32. The folder is complete or absent.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the recommender, which isn't changed.
        tokenizer ([`ETEGRecTokenizer`]): the tokenizer from the same folder.
        output_dir (`str` or `Path`): a new folder.
        format (`str`, *optional*, defaults to `"onnx"`): `"onnx"`, which [`OnnxRecommender`] runs, or `"torch"` for
            the programs of `torch.export`.

    Returns:
        the folder.

    Raises:
        FileExistsError: `output_dir` isn't empty.
        ValueError: an unknown `format`.
        ValueError: packages that the format needs are missing.
        ValueError: a tokenizer of another model.
        ValueError: layers that were replaced, quantised or offloaded, or that have hooks.
    """
    check_choice("format", format, SUFFIXES)
    missing = [name for name in ("onnx", "onnxscript") if format == "onnx" and find_spec(name) is None]
    if missing:
        raise ValueError(f"an export to ONNX needs {missing[0]}; install it with `pip install 'etegrec_hf[export]'`.")
    folder = check_output_dir(output_dir)
    model.catalogue.check_tokenizer(tokenizer)
    check_exportable(model)
    model = deepcopy(model).cpu().float().eval()
    with complete_or_absent(folder) as staging:
        tables = {name: table for name, table in vars(search_tables(model)).items() if isinstance(table, np.ndarray)}
        np.savez(staging / TABLES, **tables)  # type: ignore[arg-type]  # of a keyword that older versions lack
        settings = settings_of(model, tokenizer) | {"format": format}
        (staging / SETTINGS).write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
        for name, program in programs(model).items():
            path = staging / f"{name}{SUFFIXES[format]}"
            if format == "torch":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of functions that torch itself calls
                    torch.export.save(program, path)
            else:
                save_onnx(program, path)
    return folder


def settings_of(model: ETEGRecForConditionalGeneration, tokenizer: ETEGRecTokenizer) -> dict:
    """Returns the content of `settings.json`."""
    config = model.config
    return {
        "format_version": FORMAT_VERSION,
        "max_history": config.max_history,
        "positions_per_item": config.positions_per_item,
        "codebook_size": config.codebook_size,
        "is_constrained": config.constrained_softmax,
        "search_settings": config.search_settings,
        "item_ids": tokenizer.item_ids,
        "item_titles": tokenizer.item_titles,
    }


@torch.no_grad()
def search_tables(model: ETEGRecForConditionalGeneration) -> SearchTables:
    """Returns the tables that a search reads, given a model on a CPU."""
    catalogue, trie, config = model.catalogue, model.catalogue.trie, model.config
    optional: dict[str, Tensor] = {}
    if model.repeat_bias is not None:
        optional["repeat_bias"] = 10 * model.repeat_bias.float()
    if model.item_logits is not None:
        optional["repeats"] = 10 * model.item_logits.repeats.float()
    if can_vote(model):
        optional["transition_items"] = catalogue.transitions.items
        optional["transition_weights"] = catalogue.transitions.weights.float()
    if can_rerank(model):
        optional["directions"] = directions_of(catalogue.semantic_embedding)
    if catalogue.item_counts.any():
        optional["item_counts"] = catalogue.item_counts
    return SearchTables(
        keys=trie.keys.numpy(),
        child_start=trie.child_start.long().numpy(),
        leaf_items=trie.leaf_items.long().numpy(),
        codes=config.layout.codes(catalogue.item_tokens).numpy(),
        codebook_size=config.codebook_size,
        is_constrained=config.constrained_softmax,
        **{name: table.detach().numpy() for name, table in optional.items()},
    )


@torch.no_grad()
def programs(model: ETEGRecForConditionalGeneration) -> dict[str, ExportedProgram]:
    """Returns both networks by name, traced by `torch.export` for any number of users, items and beams."""
    history, step, longest = HistoryGraph(model).eval(), StepGraph(model).eval(), model.config.max_history
    items = torch.ones(2, min(2, longest), dtype=torch.long)
    beams, level = 3, torch.ones(1, dtype=torch.long)
    dims = {0: Dim("users"), 1: Dim("items", max=longest)} if longest > 1 else {0: Dim("users")}
    known = {name: value for name, value in history(items).items() if name.startswith(STATE)}
    for name in known:
        if name.startswith(("keys", "values")):
            known[name] = known[name].expand(-1, -1, 2, -1)
    tokens = torch.ones(2, beams, dtype=torch.long)
    back = torch.ones(2, beams, 2 + beams, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of functions that torch itself calls
        return {
            HISTORY: torch.export.export(history, (items,), dynamic_shapes=(dims,), strict=False),
            STEP: torch.export.export(
                step,
                (tokens, back, level, known),
                dynamic_shapes=(
                    {0: Dim.AUTO, 1: Dim.AUTO},
                    {0: Dim.AUTO, 1: Dim.AUTO, 2: Dim.AUTO},
                    None,
                    {name: _dynamic(name) for name in known},
                ),
                strict=False,
            ),
        }


def _dynamic(name: str) -> dict[int, object]:
    """Returns the dimensions of a step's state that differ from call to call: users, and positions or beams."""
    if name == "start":
        return {0: Dim.AUTO}
    return {0: Dim.AUTO, 3 if name == "cross_bias" else 2: Dim.AUTO}


def save_onnx(program: ExportedProgram, path: Path) -> None:
    """Writes a program as ONNX; inputs and outputs have the names that the networks give them."""
    with warnings.catch_warnings(), _quiet("torch.onnx"):
        warnings.simplefilter("ignore")
        onnx = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
    graph = onnx.model.graph
    for value in graph.inputs:
        value.name = value.name.removeprefix("known_")
    for value, name in zip(graph.outputs, program.call_spec.out_spec.context, strict=True):
        value.name = name
    for node in graph:
        node.metadata_props.clear()  # lines of code on this machine
        node.doc_string = None
    onnx.save(path, external_data=False)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silences the warnings of a library's logger, about which the user can do nothing."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
