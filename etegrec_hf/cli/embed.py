"""`etegrec embed`: makes collaborative and text embeddings of items, and combines embeddings."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar, TypeAlias

from ..data.checks import check_positive
from ..data.named_embeddings import check_fusion, check_name, describe, find_embedding
from ..data.prepared import PreparedDataset, read_items, set_semantic_embedding
from ..data.text_embeddings import embed_texts, item_texts
from ..training.base.checkpoints import check_run_folder
from ..training.collaborative.arguments import CollaborativeSizes, CollaborativeTrainingArguments
from ..training.collaborative.fit import embed_collaborative
from .parsing import parse
from .printing import PrintArguments
from .run_folder import RunArguments
from .tables import print_figures

EXAMPLES = """examples:
  etegrec embed data/mine --collaborative --output-dir runs/collaborative
  etegrec embed data/mine --text-model sentence-transformers/sentence-t5-base --text "{title} {description}"
  etegrec embed data/mine --fuse collaborative text --normalize l2
"""
FIRST = ("collaborative", "output_dir", "text_model", "text", "fuse", "normalize", "num_train_epochs", "use_cpu")


@dataclass
class EmbedArguments(RunArguments):
    """The embeddings that are made, and how the semantic embedding is made from them."""

    help_group: ClassVar[str] = "data"

    data: str = field(metadata={"help": "Folder of a prepared dataset; the embeddings are written into it."})
    collaborative: bool = field(
        default=False, metadata={"help": "Train a causal model of item sequences, and save it in --output-dir."}
    )
    text_model: str | None = field(
        default=None, metadata={"help": "A sentence-transformers model: a folder or a Hub id."}
    )
    text: str = field(default="{title}", metadata={"help": "Template of an item's text; names in braces are columns."})
    text_name: str = field(default="text", metadata={"help": "Name of the text embedding."})
    text_batch_size: int = field(default=64, metadata={"help": "Texts per batch."})
    fuse: list[str] | None = field(
        default=None,
        metadata={
            "help": "Embeddings that are concatenated, in this order: names or .parquet files. By default those "
            "that this call makes."
        },
    )
    normalize: str = field(default="none", metadata={"help": "How each embedding is scaled: none, l2 or standardize."})


Options: TypeAlias = EmbedArguments | CollaborativeSizes | CollaborativeTrainingArguments


def run(argv: list[str]) -> None:
    classes = (EmbedArguments, CollaborativeSizes, CollaborativeTrainingArguments, PrintArguments)
    arguments, sizes, training, printed = parse(
        "embed", argv, *classes, examples=EXAMPLES, works_on="data", first=FIRST
    )
    with printed.apart():
        figures = embed(arguments, sizes, training)
    printed.show(figures, lambda: print_figures(arguments.data, figures))


def embed(
    arguments: EmbedArguments, sizes: CollaborativeSizes, training: CollaborativeTrainingArguments
) -> dict[str, object]:
    """Makes the given embeddings and a semantic embedding from them, and returns figures of both."""
    if not (arguments.collaborative or arguments.text_model or arguments.fuse):
        raise ValueError("nothing to do: give --collaborative, --text-model or --fuse.")
    usual = EmbedArguments(arguments.data)
    if not arguments.text_model:
        check_not_given("--text-model", arguments, usual, ("text", "text_name", "text_batch_size"))
    if not arguments.collaborative:
        check_not_given("--collaborative", arguments, usual, ("resume",))
        check_not_given("--collaborative", sizes, CollaborativeSizes())
        check_not_given("--collaborative", training, CollaborativeTrainingArguments())
    data = PreparedDataset.load(arguments.data)
    names = ["collaborative"] * arguments.collaborative + [arguments.text_name] * bool(arguments.text_model)
    check_wishes(arguments, names)
    if arguments.collaborative:
        check_run_folder(training, arguments.resume)
    if arguments.text_model:
        embed_texts(
            arguments.data, arguments.text_model, arguments.text, arguments.text_name, arguments.text_batch_size
        )
    figures: dict[str, object] = {}
    if arguments.collaborative:
        validation = embed_collaborative(data, arguments.data, sizes, training).made["validation"]
        figures |= {f"validation_{name}": value for name, value in validation.items()}
    semantic = set_semantic_embedding(arguments.data, arguments.fuse or names, arguments.normalize)
    zero = PreparedDataset.load(arguments.data).statistics["items_with_zero_embedding"]
    return figures | {"semantic_embedding": describe(semantic), "items_with_zero_embedding": zero}


def check_not_given(needed: str, options: Options, usual: Options, names: tuple[str, ...] = ()) -> None:
    """Checks that options have their defaults, because they have no effect without another option, which is missing.

    Args:
        needed (`str`): the missing option.
        options (dataclass): options of the command.
        usual (dataclass): the same, all with their defaults.
        names (`tuple[str, ...]`, *optional*): names of the options that have no effect; by default all.

    Raises:
        ValueError: an option has another value.
    """
    for name in names or [option.name for option in fields(options) if option.init]:
        value = getattr(options, name)
        if value != getattr(usual, name):
            raise ValueError(
                f"`{name}` is {value!r}, but has no effect without {needed}; leave it out, or give {needed}."
            )


def check_wishes(arguments: EmbedArguments, names: list[str]) -> None:
    """Checks the arguments before anything takes time.

    Args:
        arguments ([`EmbedArguments`]): arguments of the command.
        names (`list[str]`): names of the embeddings that will be made.

    Raises:
        ValueError: a name isn't allowed, or is given twice.
        ValueError: the normalisation is unknown.
        ValueError: the template names a column that is missing.
        FileNotFoundError: an embedding to combine neither exists nor will be made.
    """
    folder = Path(arguments.data)
    wanted = arguments.fuse or names
    for name in names:
        check_name(name)
    if arguments.text_model and arguments.text_name == "collaborative":
        raise ValueError("`text_name` is 'collaborative', the name of the other embedding; choose another name.")
    check_fusion(wanted, arguments.normalize)
    check_positive("text_batch_size", arguments.text_batch_size)
    if arguments.text_model:
        item_texts(read_items(folder), arguments.text)
    for name in wanted:
        if name not in names:
            find_embedding(folder, name)
