"""Rules of structure that hold for every file of the package: which this file checks."""

import argparse
import ast
import inspect
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import Pipeline, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizer, Trainer
from transformers.generation import GenerationMixin
from trl import GRPOTrainer

import etegrec_hf

PACKAGE = Path(etegrec_hf.__file__).parent
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
LIBRARY = (
    argparse.HelpFormatter,
    Dataset,
    GRPOTrainer,
    GenerationMixin,
    Pipeline,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizer,
    Trainer,
    torch.nn.Module,
)
# Class attributes that may hold anything, as `file class.name`, with the reason
ANYTHING = {
    "models/configuration_etegrec.py ETEGRecConfig.rqvae_config": "a folder's own code has a class of its own",
}
# Functions that may take more than 6 parameters, with the reason
WIDE = {
    "prepare": "from a log to a dataset in one call: each step has its argument",
    "recommend": "users give options of the search as keywords, of which it makes one object",
    "sample_items": "as `recommend`",
    "attention": "transformers calls it and chooses what it gives",
}
MOST_PARAMETERS = 6


def functions(tree: ast.AST, inside: ast.ClassDef | None = None):
    """Each function of a module, with the class that it is a method of."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield inside, node
        yield from functions(node, node if isinstance(node, ast.ClassDef) else inside)


def closed_names(tree: ast.AST) -> set[str]:
    """Names with a leading underscore that a module defines: functions, classes, variables and attributes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


CLOSED = {path: closed_names(tree) for path, tree in TREES.items()}
# Names of libraries, which an override takes over with their parameters and underscores
HOOKS = {name for cls in LIBRARY for name in dir(cls)} - {"__init__"}
ATTRIBUTES = set().union(*(closed_names(ast.parse(inspect.getsource(inspect.getmodule(cls)))) for cls in LIBRARY))


def test_no_class_declares_an_attribute_of_any_type():
    declared = [
        f"{path} {cls.name}.{statement.target.id}"
        for path, tree in TREES.items()
        for cls in ast.walk(tree)
        if isinstance(cls, ast.ClassDef)
        for statement in cls.body
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.annotation) == "Any"
    ]
    assert [name for name in declared if name not in ANYTHING] == []


def test_no_name_with_an_underscore_is_used_from_another_file():
    used = []
    for path, tree in TREES.items():
        others = set().union(*(names for other, names in CLOSED.items() if other != path))
        closed = others - CLOSED[path] - HOOKS - ATTRIBUTES
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                used += [f"{path}:{node.lineno} {name.name}" for name in node.names if name.name in others]
            elif isinstance(node, ast.Attribute) and node.attr in closed:
                used.append(f"{path}:{node.lineno} {ast.unparse(node)}")
    assert used == []


def test_no_function_takes_more_parameters_than_a_reader_can_keep():
    wide = []
    for path, tree in TREES.items():
        for cls, function in functions(tree):
            signature = function.args
            arguments = (*signature.posonlyargs, *signature.args, *signature.kwonlyargs)
            count = len([argument for argument in arguments if argument.arg not in ("self", "cls")])
            if count > MOST_PARAMETERS and function.name not in WIDE and not (cls and function.name in HOOKS):
                wide.append(f"{path}:{function.lineno} {function.name} takes {count}")
    assert wide == []
