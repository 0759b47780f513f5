"""`etegrec convert`: the original ETEGRec's three files become a model of this package."""

from dataclasses import dataclass, field

from ..data.folders import check_output_dir
from ..hub.conversion import (
    convert_recommender,
    convert_rqvae,
    read_codes,
    read_embeddings,
    read_item_ids,
    read_state_dict,
)
from ..hub.model_folder import save_model_folder
from ..hub.training_record import TrainingRecord
from ..models.tokenization_etegrec import ETEGRecTokenizer
from .parsing import parse

EXAMPLES = """examples:
  etegrec convert --recommender X.pt --rqvae X.pt.rqvae --codes X.code.json --item-ids X.emb_map.json \\
      --output-dir runs/converted
"""


@dataclass
class ConvertArguments:
    """The original's files. Only tensors are read from the two of torch."""

    recommender: str = field(metadata={"help": "State dict of the recommender."})
    rqvae: str = field(metadata={"help": "State dict of the RQ-VAE."})
    codes: str = field(metadata={"help": "JSON list of all items' codes, row 0 for padding."})
    output_dir: str = field(metadata={"help": "A new folder."})
    embeddings: str | None = field(
        default=None, metadata={"help": ".npy of the items' embeddings, if the recommender's file has none."}
    )
    item_ids: str | None = field(
        default=None, metadata={"help": "emb_map.json with the items' ids; by default they are called 1, 2, 3, ..."}
    )
    max_history: int = field(default=50, metadata={"help": "Items of a history that are read, the last ones."})


def run(argv: list[str]) -> None:
    (arguments,) = parse("convert", argv, ConvertArguments, examples=EXAMPLES)
    check_output_dir(arguments.output_dir)
    codes = read_codes(arguments.codes)
    n_items = len(codes)
    model = convert_recommender(
        read_state_dict(arguments.recommender),
        convert_rqvae(read_state_dict(arguments.rqvae)),
        codes,
        read_embeddings(arguments.embeddings, n_items) if arguments.embeddings else None,
        arguments.max_history,
    )
    ids = read_item_ids(arguments.item_ids, n_items) if arguments.item_ids else [str(i + 1) for i in range(n_items)]
    tokenizer = ETEGRecTokenizer.from_item_codes(
        ids, codes, model.config.codebook_size, max_history=arguments.max_history
    )
    record = TrainingRecord(data={"source": "converted from the original ETEGRec's files"})
    save_model_folder(arguments.output_dir, model, tokenizer, record)
    print(f"{n_items} items, {model.num_parameters():,} weights: {arguments.output_dir}")
