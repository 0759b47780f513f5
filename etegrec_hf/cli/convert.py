"""`etegrec convert`: turns the original ETEGRec's three files into a model of this package."""

import sys
from dataclasses import asdict, dataclass, field

from ..data.folders import check_output_dir
from ..hub.conversion import convert_files
from ..hub.model_folder import save_model_folder
from ..hub.training_record import TrainingRecord
from .parsing import parse

EXAMPLES = """examples:
  etegrec convert X.pt --rqvae X.pt.rqvae --codes X.code.json --item-ids X.emb_map.json \\
      --output-dir runs/converted
"""


@dataclass
class ConvertArguments:
    """The original's files. Only tensors are read from the two files of torch."""

    recommender: str = field(metadata={"help": "State dict of the recommender."})
    rqvae: str = field(metadata={"help": "State dict of the RQ-VAE."})
    codes: str = field(metadata={"help": "JSON list of all items' codes, row 0 for padding."})
    output_dir: str = field(metadata={"help": "A new folder."})
    embeddings: str | None = field(
        default=None, metadata={"help": ".npy of the items' embeddings, if the recommender's file has none."}
    )
    item_ids: str | None = field(
        default=None, metadata={"help": "emb_map.json with the items' ids; by default the ids are 1, 2, 3, ..."}
    )
    max_history: int = field(default=50, metadata={"help": "How many items are read, the last ones of a history."})


def run(argv: list[str]) -> None:
    (arguments,) = parse("convert", argv, ConvertArguments, examples=EXAMPLES, works_on="recommender")
    wanted = asdict(arguments)
    folder = check_output_dir(wanted.pop("output_dir"))
    model, tokenizer = convert_files(**wanted)
    record = TrainingRecord(data={"source": "converted from the original ETEGRec's files"})
    save_model_folder(folder, model, tokenizer, record)
    if model.catalogue.semantic_embedding is None:
        print(
            "note: without --embeddings it isn't checked whether the RQ-VAE makes these codes; give --embeddings",
            file=sys.stderr,
        )
    print(f"{model.config.n_items} items, {model.num_parameters():,} weights: {folder}")
