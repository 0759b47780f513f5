"""`etegrec import-codes`: makes a new recommender with item codes from elsewhere."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from transformers import set_seed

from ..data.checks import check_positive
from ..data.folders import check_output_dir
from ..hub.code_index import read_code_index
from ..hub.dataset_folder import load_prepared
from ..hub.model_folder import save_model_folder
from ..hub.training_record import TrainingRecord
from ..models.configuration_etegrec import ETEGRecConfig
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.tokenization_etegrec import ETEGRecTokenizer
from ..training.item_tokenizer.item_codes import assign_item_codes
from ..training.recommender.options import RecommenderOptions
from .parsing import parse

EXAMPLES = """examples:
  etegrec import-codes Instruments.index.json --data data/instruments --add-suffix true --output-dir runs/start
  etegrec finetune runs/start --data data/instruments --output-dir runs/model --learning-rate 5e-3
"""
FIRST = ("output_dir", "data", "codebook_size", "add_suffix", "seed")


@dataclass
class ImportArguments:
    """The index with the codes, and how it is read."""

    index: str = field(metadata={"help": "NAME.index.json of LC-Rec, LETTER, ..."})
    output_dir: str = field(metadata={"help": "A new folder."})
    data: str | None = field(
        default=None, metadata={"help": "The prepared dataset to train on, which gives items, their order and titles."}
    )
    codebook_size: int | None = field(
        default=None, metadata={"help": "Codes per level; by default the highest code + 1."}
    )
    add_suffix: bool = field(default=False, metadata={"help": "Add a last code that makes codes unique."})
    seed: int = field(default=42, metadata={"help": "Random seed of the weights."})


@dataclass
class ImportedOptions(RecommenderOptions):
    """Options of a recommender without semantic embeddings, which reads and scores only codes."""

    reads_items: bool = False
    item_gain: float = 1.0
    item_logits: str = "none"
    recent_items: int = 0


def run(argv: list[str]) -> None:
    classes = (ImportArguments, ImportedOptions)
    arguments, sizes = parse("import-codes", argv, *classes, examples=EXAMPLES, works_on="index", first=FIRST)
    model = import_codes(arguments, sizes)
    print(f"{model.config.n_items} items, codes of length {model.config.code_length}: {arguments.output_dir}")


def import_codes(arguments: ImportArguments, sizes: RecommenderOptions) -> ETEGRecForConditionalGeneration:
    """Makes and saves an untrained recommender with the codes of an index, and without item tokenizer.

    Raises:
        FileExistsError: the output folder isn't empty.
        ValueError: the codebook size is below 1, or not above all codes.
        ValueError: two items have the same codes.
        ValueError: items have a single code, and no suffix is added.
        ValueError: as [`read_code_index`].
    """
    check_output_dir(arguments.output_dir)
    if arguments.codebook_size is not None:
        check_positive("codebook_size", arguments.codebook_size)
    data = load_prepared(arguments.data) if arguments.data else None
    item_ids, codes = read_code_index(arguments.index, data.item_ids if data else None)
    highest, item = codes.amax(dim=1).max(dim=0)
    codebook_size = arguments.codebook_size or int(highest) + 1
    if highest >= codebook_size:
        raise ValueError(
            f"item {item_ids[item]!r} has the code {highest}, but `codebook_size` is {codebook_size}; give "
            f"{highest + 1} or more, or leave `codebook_size` out."
        )
    if arguments.add_suffix:
        codes = assign_item_codes(codes, codebook_size)
    elif len(codes.unique(dim=0)) < len(codes):
        _, which, shared = codes.unique(dim=0, return_inverse=True, return_counts=True)
        first, second = (which == shared.argmax()).nonzero().flatten()[:2].tolist()
        raise ValueError(
            f"items {item_ids[first]!r} and {item_ids[second]!r} share the codes {codes[first].tolist()}; "
            "pass --add-suffix true to add a last code that tells them apart."
        )
    elif codes.shape[1] == 1:
        raise ValueError(
            f"the items in {arguments.index!r} have one code each, but a recommender needs 2 or more codes per item; "
            "pass --add-suffix true to add a last code."
        )
    set_seed(arguments.seed)
    model = ETEGRecForConditionalGeneration(
        ETEGRecConfig(
            n_items=len(item_ids),
            code_length=codes.shape[1],
            codebook_size=codebook_size,
            has_item_tokenizer=False,
            has_semantic_embedding=False,
            **asdict(sizes),
        )
    )
    model.set_item_codes(codes)
    titles = data.title_of if data else None
    tokenizer = ETEGRecTokenizer.from_item_codes(
        item_ids, codes, codebook_size, max_history=sizes.max_history, item_titles=titles
    )
    record = TrainingRecord(data=data.statistics if data else {"source": Path(arguments.index).name})
    save_model_folder(arguments.output_dir, model, tokenizer, record)
    return model
