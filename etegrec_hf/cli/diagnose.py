"""`etegrec diagnose`: compares item tokenizers by how they use their codes."""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ..data.wording import numbered
from ..evaluation.code_diagnostics import tokenizer_diagnostics
from ..evaluation.plots import check_matplotlib, plot_code_usage, plot_prefix_sizes
from ..hub.dataset_folder import load_with_embeddings
from ..hub.model_folder import load_model
from ..models.modeling_rqvae import RQVAEModel
from .output_file import check_output_file, write_results
from .parsing import parse
from .printing import PrintArguments
from .run_folder import note_other_embedding
from .tables import print_comparison

EXAMPLES = """examples:
  etegrec diagnose runs/a runs/b --data data/mine
  etegrec diagnose runs/a runs/b --data data/mine data/other --output codes.json --plots plots
"""


@dataclass
class DiagnoseArguments:
    """The item tokenizers, and the datasets that they are compared on."""

    tokenizer: list[str] = field(metadata={"help": "Output folders of train-tokenizer, or Hub ids."})
    data: list[str] = field(
        metadata={"help": "The prepared dataset that they were trained on, or as many datasets as tokenizers."}
    )
    output: str | None = field(default=None, metadata={"help": "JSON file to write."})
    plots: str | None = field(
        default=None, metadata={"help": "Folder for NAME_usage.png and NAME_prefixes.png of each tokenizer."}
    )


def run(argv: list[str]) -> None:
    classes = (DiagnoseArguments, PrintArguments)
    arguments, printed = parse("diagnose", argv, *classes, examples=EXAMPLES, works_on="tokenizer")
    with printed.apart():
        output = check_output_file(arguments.output)
        results = diagnose(arguments)
        write_results(output, results)
    printed.show(results, lambda: print_comparison("item tokenizers", results))


def diagnose(arguments: DiagnoseArguments) -> dict[str, dict]:
    """Returns each tokenizer's figures and folders by its name, and draws plots if there is a folder for them.

    Raises:
        ValueError: there are several datasets, but not as many as tokenizers.
        ValueError: a dataset has no embeddings, or its embeddings have another width than the tokenizer reads.
        ValueError: plots are asked for, and matplotlib isn't installed.
        ValueError: as [`tokenizer_diagnostics`].
    """
    tokenizers, folders = arguments.tokenizer, arguments.data
    if len(folders) not in (1, len(tokenizers)):
        raise ValueError(
            f"`data` names {len(folders)} datasets for {len(tokenizers)} tokenizers; name one dataset for all "
            "tokenizers, or one per tokenizer."
        )
    if len(folders) == 1:
        folders = folders * len(tokenizers)
    plots = Path(arguments.plots) if arguments.plots else None
    if plots:
        check_matplotlib()
        if plots.exists() and not plots.is_dir():
            raise ValueError(f"`plots` {arguments.plots!r} is a file; name a folder.")
        plots.mkdir(parents=True, exist_ok=True)
    load = lru_cache(maxsize=1)(load_with_embeddings)  # tokenizers of one dataset mostly follow each other
    results = {}
    for name, tokenizer, folder in zip(unique_names(tokenizers), tokenizers, folders):
        model = load_model(RQVAEModel, tokenizer)
        data, embeddings = load(folder)
        note_other_embedding(tokenizer, data)
        if embeddings.shape[1] != model.config.input_size:
            raise ValueError(
                f"the tokenizer {tokenizer!r} reads embeddings of width {model.config.input_size}, but those of "
                f"{folder!r} have width {embeddings.shape[1]}; name the dataset that the tokenizer was trained on."
            )
        results[name] = {"tokenizer": tokenizer, "data": folder, **tokenizer_diagnostics(model, embeddings)}
        if plots:
            codes = model.encode(embeddings).cpu()
            plot_code_usage(codes, model.config.codebook_size, plots / f"{name}_usage.png", tokenizer)
            plot_prefix_sizes(codes, plots / f"{name}_prefixes.png", tokenizer)
    return results


def unique_names(folders: list[str]) -> list[str]:
    """Returns the last part of each folder's name, with a number if an earlier folder has the same part.

    >>> unique_names(["runs/a", "old/a", "runs/b", "me/a"])
    ['a', 'a-2', 'b', 'a-3']
    """
    names: list[str] = []
    for folder in folders:
        last = Path(folder).resolve().name  # "." and ".." have a name too
        names.append(numbered(last, names))
    return names
