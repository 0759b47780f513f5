"""`etegrec evaluate`: Recall and NDCG of a recommender and of the baselines on a split."""

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

from ..data.folders import replace_file
from ..data.prepared import PreparedDataset
from ..data.progress import WorkProgress
from ..data.splits import SPLIT_NAMES
from ..evaluation.baselines import baselines
from ..evaluation.metrics import KS, confidence_intervals, ranking_metrics, spread_metrics, target_ranks
from ..evaluation.protocol import protocol_of
from ..evaluation.recommend_split import recommend_split
from ..evaluation.seen import seen_items
from ..hub.dataset_folder import local_dataset
from ..hub.model_card import write_model_card
from ..hub.model_folder import load_recommender, local_folder
from ..hub.training_record import TrainingRecord
from .finetune import of_catalogue
from .output_file import check_output_file, write_results
from .parsing import parse
from .printing import PrintArguments
from .tables import print_metrics

EXAMPLES = """examples:
  etegrec evaluate --model runs/model --data data/mine --split test --output metrics.json
  etegrec evaluate --model runs/model --data data/mine --update-card true
"""


@dataclass
class EvaluateArguments:
    """What is measured, and how."""

    model: str = field(metadata={"help": "A trained recommender: a folder or a Hub id."})
    data: str = field(metadata={"help": "The prepared dataset that it was trained on."})
    split: str = field(default="test", metadata={"help": "validation or test."})
    output: str | None = field(default=None, metadata={"help": "JSON file to write."})
    num_beams: int = field(default=50, metadata={"help": "Beams; metrics at longer lists are left out."})
    rerank: float = field(
        default=0.0, metadata={"help": "Weight of preference re-ranking; choose it on the validation split."}
    )
    transitions: float = field(
        default=0.0, metadata={"help": "Share of transition votes; choose it on the validation split."}
    )
    batch_size: int = field(default=64, metadata={"help": "Users at a time."})
    ranks: str | None = field(
        default=None,
        metadata={"help": "Parquet file to write, of each user's id and the rank of the target (0: not listed)."},
    )
    exclude_seen: bool = field(
        default=False, metadata={"help": "Leave items that the user had before out of the lists."}
    )
    update_card: bool = field(
        default=False, metadata={"help": "Write the results into the model's card and training record."}
    )
    bf16: bool = field(default=False, metadata={"help": "Decode under bfloat16 autocast."})


def run(argv: list[str]) -> None:
    arguments, printed = parse("evaluate", argv, EvaluateArguments, PrintArguments, examples=EXAMPLES)
    with printed.apart():
        output = check_output_file(arguments.output)
        check_output_file(arguments.ranks, "ranks")
        results = evaluate(arguments)
        if arguments.ranks is not None:  # from where the results are to be read
            results["ranks"] = os.path.relpath(arguments.ranks, output.parent if output else ".")
        write_results(output, results)
    title = f"{arguments.data}, {arguments.split}, seen items {results['protocol']['seen_items']}"
    rows = {"this model": results[arguments.split] | results["spread"], **results["baselines"]}
    printed.show(results, lambda: print_metrics(title, rows))


def evaluate(arguments: EvaluateArguments) -> dict:
    """Metrics of the model on the split, of the baselines beside them, and how they were measured."""
    if arguments.split not in SPLIT_NAMES[1:]:
        raise ValueError(f"`split` is {arguments.split!r}; choose one of {', '.join(SPLIT_NAMES[1:])}.")
    for name in ("num_beams", "batch_size"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"`{name}` is {getattr(arguments, name)}; give 1 or more.")
    if arguments.update_card and not Path(arguments.model).is_dir():
        raise ValueError(f"`update_card` writes into a folder, and {arguments.model!r} is none; name a local copy.")
    model, tokenizer = load_recommender(arguments.model)
    data = of_catalogue(PreparedDataset.load(local_dataset(arguments.data)), tokenizer)
    split = getattr(data, arguments.split)
    seen = seen_items(data, split) if arguments.exclude_seen else None
    top_k = min(max(KS), arguments.num_beams)
    with WorkProgress() as progress, torch.autocast(model.device.type, torch.bfloat16, enabled=arguments.bf16):
        advance = partial(progress.work_done, progress.begin("evaluating", len(split), "users"))
        ranked = recommend_split(
            model,
            split,
            top_k,
            arguments.num_beams,
            arguments.batch_size,
            seen,
            advance,
            rerank=arguments.rerank,
            transitions=arguments.transitions,
        )
    metrics = ranking_metrics(ranked, split.targets)
    item_counts = np.bincount(data.train.sequences, minlength=data.n_items + 1)
    measured = {
        "spread": spread_metrics(ranked, item_counts),
        "intervals": confidence_intervals(ranked, split.targets),
        "baselines": baselines(data, split, exclude_seen=arguments.exclude_seen),
        "protocol": protocol_of(
            data,
            arguments.split,
            arguments.exclude_seen,
            num_beams=arguments.num_beams,
            dtype="bfloat16 autocast" if arguments.bf16 else str(model.dtype).removeprefix("torch."),
        ),
        "rerank": arguments.rerank,
        "transitions": arguments.transitions,
        "seeds": TrainingRecord.read(local_folder(arguments.model)).seeds(),
    }
    if arguments.ranks is not None:
        ranks = pa.table({"user_id": split.user_ids, "rank": target_ranks(ranked, split.targets)})
        replace_file(Path(arguments.ranks), lambda beside: pa.parquet.write_table(ranks, beside))
    if arguments.update_card:
        record = TrainingRecord.read(arguments.model)
        record.add_evaluation({"split": arguments.split, "metrics": metrics, **measured})
        write_model_card(arguments.model, model.config, record, arguments.model)
        record.write(arguments.model)
    return {arguments.split: metrics, **measured}
