"""`etegrec add-items`: adds items to a trained recommender by their embeddings, without training."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..data.folders import check_output_dir
from ..data.new_items import NewItems, add_new_items, read_new_items
from ..data.prepared import PreparedDataset
from ..data.wording import counted
from ..evaluation.code_diagnostics import code_diagnostics
from ..hub.dataset_folder import local_dataset
from ..hub.model_card import license_in
from ..hub.model_folder import load_recommender, local_folder, save_model_folder
from ..hub.training_record import TrainingRecord, versions
from .model_arguments import ModelArguments
from .parsing import parse
from .printing import PrintArguments
from .tables import print_figures

EXAMPLES = """examples:
  etegrec add-items runs/model --items new.parquet --output-dir runs/next
  etegrec add-items user/published --items data/newer --output-dir runs/next
"""


@dataclass
class AddItemsArguments(ModelArguments):
    """The recommender, the items that are added, and the output folder."""

    help_group: ClassVar[str] = "options"

    items: str = field(
        metadata={
            "help": "A .parquet or .csv with the columns item_id, embedding (in a .csv as JSON) and maybe title; or a "
            "prepared dataset. Items that the model knows are compared, all others are added."
        }
    )
    output_dir: str = field(metadata={"help": "A new folder."})


def run(argv: list[str]) -> None:
    classes = (AddItemsArguments, PrintArguments)
    arguments, printed = parse("add-items", argv, *classes, examples=EXAMPLES, works_on="model")
    with printed.apart():
        figures = add_items(arguments)
    printed.show(figures, lambda: print_figures(arguments.output_dir, figures))


def add_items(arguments: AddItemsArguments) -> dict[str, int]:
    """Adds the items, saves the larger model, and returns how many items there were, were compared, added, and are.

    The training record keeps the model's stages, and gets a stage for the added items. It loses its evaluations, which
    ranked the smaller catalogue.

    Raises:
        FileExistsError: the output folder isn't empty.
        ValueError: a dataset has no embeddings.
        ValueError: the model knows all items.
        ValueError: as [`read_new_items`] and [`add_new_items`].
    """
    check_output_dir(arguments.output_dir)
    is_table = Path(arguments.items).suffix in (".parquet", ".csv") or Path(arguments.items).is_file()
    items = read_new_items(Path(arguments.items)) if is_table else items_of_dataset(arguments.items)
    model, tokenizer = load_recommender(arguments.model)
    before = model.config.n_items
    known = len(set(tokenizer.item_ids) & set(items.item_ids))
    added = add_new_items(items, model, tokenizer)
    if not added:
        raise ValueError(
            f"the model knows all of the {counted(known, 'item')} of {arguments.items}; there is nothing to add."
        )
    tokenizer.item_titles = items.title_of | tokenizer.item_titles
    folder = local_folder(arguments.model)
    record = TrainingRecord.read(folder)
    stage = {"stage": "items added", "data": f"{counted(added, 'item')} of {Path(arguments.items).name}"}
    record.stages.append(stage | {"versions": versions()})
    record.codes = code_diagnostics(model.catalogue.item_codes[:, :-1].cpu(), model.config.codebook_size)
    record.evaluations = []
    save_model_folder(arguments.output_dir, model, tokenizer, record, license=license_in(folder))
    return {"items_before": before, "items_known": known, "items_added": added, "items": model.config.n_items}


def items_of_dataset(name: str) -> NewItems:
    """Returns the items of a prepared dataset, which is a folder or an id of the Hub.

    Raises:
        ValueError: the dataset holds no embeddings.
    """
    data = PreparedDataset.load(local_dataset(name, ()), ())
    if data.embeddings is None:
        raise ValueError(f"{name} holds no `embedding`, which new items need; make one with `etegrec embed`.")
    return NewItems(data.item_ids, data.title_of, data.embeddings)
