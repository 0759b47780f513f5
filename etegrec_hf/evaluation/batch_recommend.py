"""Recommendations for all users of a prepared dataset, into one parquet file."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from transformers.utils import logging

from ..data.checks import check_choice, check_positive
from ..data.fingerprint import hash_of
from ..data.prepared import Split, read_items, split_file
from ..data.progress import WorkProgress
from ..data.sharded_parquet import ShardedParquet
from ..data.splits import SPLIT_NAMES
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.search_options import SearchOptions
from ..models.tokenization_etegrec import ETEGRecTokenizer
from .recommend_split import recommendations

logger = logging.get_logger(__name__)

COLUMNS = ["user_id", "history", "target"]
SCHEMA = pa.schema(
    {"user_id": pa.string(), "items": pa.list_(pa.string()), "scores": pa.list_(pa.float32())},
)
# Of a configuration: which don't shape the model, or say what the options say when they are filled in
NOT_COMPARED = ("_name_or_path", "transformers_version", "search_settings")
LONGEST_WAIT = timedelta(days=7)  # of a process for the slowest one
READ_SIZE = 1 << 20  # bytes that are hashed together


@dataclass(frozen=True)
class RecommendOptions(SearchOptions):
    """[`SearchOptions`], and for whom.

    Raises:
        ValueError: what [`SearchOptions`] refuses.
        ValueError: `batch_size` or `shard_size` below 1.
        ValueError: a `split` or `unknown` that doesn't exist.
    """

    unknown: str = field(default="error", metadata={"help": "'skip' leaves out items that the model doesn't know."})
    split: str = field(default="test", metadata={"help": "With --data: whose rows are read."})
    include_target: bool = field(
        default=True, metadata={"help": "With --data: read a row's target as the last item of its history."}
    )
    batch_size: int = field(default=256, metadata={"help": "With --data: users at a time."})
    bf16: bool = field(default=False, metadata={"help": "With --data: decode under bfloat16 autocast."})
    shard_size: int = field(default=8192, metadata={"help": "With --data: users that are done or not done together."})

    def __post_init__(self):
        super().__post_init__()
        for name in ("batch_size", "shard_size"):
            check_positive(name, getattr(self, name))
        check_choice("split", self.split, SPLIT_NAMES)
        check_choice("unknown", self.unknown, ("error", "skip"))


def processes() -> PartialState:
    """The processes of `accelerate launch`, or this one alone; each one's current GPU is its own from here on."""
    # without a GPU, accelerate takes several processes for one unless this says so
    return PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)


def batch_recommend(
    model: ETEGRecForConditionalGeneration,
    tokenizer: ETEGRecTokenizer,
    data: str | Path,
    output: str | Path,
    options: RecommendOptions | None = None,
    resume: bool = False,
) -> dict[str, int]:
    """Recommends for each row of a split, into a file; the processes of `accelerate launch` call it together.

    The rows are cut into shards, which the processes share. A shard's content depends on the shard alone, so the file
    is the same however many they are, on like hardware with as many threads each. On several machines, all must see
    the file's folder. What an interrupted call has finished stays in the folder `FILE.shards`.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): in eval mode.
        tokenizer ([`ETEGRecTokenizer`]): of the model.
        data (`str` or `Path`): a prepared dataset's folder, which is read shard by shard.
        output (`str` or `Path`): the file, complete or absent: `user_id: string`, `items: list<string>` best first,
            and `scores: list<float32>`, as `model.recommend` gives them, in the order of the split's rows. Its ending
            says what is written: `.parquet`, `.csv` (lists are JSON) or `.jsonl`.
        options ([`RecommendOptions`], *optional*): by default all of its defaults.
        resume (`bool`, *optional*, defaults to `False`): whether to go on with what an earlier call left, if anything.

    Returns:
        `dict` of `users`, and `empty`: those with an empty list, since the model knows nothing of their history.

    Raises:
        FileNotFoundError: no such dataset.
        FileExistsError: file or shards exist, and `resume` isn't set.
        ValueError: another ending of `output`.
        ValueError: they are of another run, items that the model doesn't know, or a damaged dataset.
    """
    options = options or RecommendOptions()
    state = processes()
    data = Path(data)
    if options.unknown == "error":
        _item_index(read_items(data, ["item_id"])["item_id"], tokenizer, "error")  # before hours are spent
    rows = split_file(data, options.split)
    count = pq.read_metadata(rows).num_rows
    file = ShardedParquet(output, SCHEMA, count, options.shard_size, _manifest(model, tokenizer, rows, options))
    file.check(resume)
    missing = file.missing()
    state.wait_for_everyone()  # until all have seen the same
    if state.is_main_process:
        for shard in filter(Path.exists, map(file.shard, missing)):
            logger.warning(f"{shard} is damaged; it is made again.")
        if missing:
            file.start()
    state.wait_for_everyone()
    own = missing[state.process_index :: state.num_processes]
    share = f" (process 1 of {state.num_processes})" if state.num_processes > 1 else ""
    with WorkProgress(state.is_main_process) as progress:  # which shows its own share
        task = progress.begin(f"recommending{share}", sum(file.rows_of[number] for number in own), "users")
        batches = pq.ParquetFile(rows).iter_batches(options.shard_size, columns=COLUMNS)
        for number, batch in enumerate(batches):
            if number in own:
                table = pa.Table.from_batches([batch])
                file.write(number, recommend_rows(model, tokenizer, table, options, partial(progress.work_done, task)))
    state.wait_for_everyone()
    empty = sum(table.filter(pc.equal(pc.list_value_length(table["items"]), 0)).num_rows for table in file.tables())
    state.wait_for_everyone()  # until all have read the shards
    if state.is_main_process:
        file.finish()
    state.wait_for_everyone()
    return {"users": count, "empty": empty}


def recommend_rows(
    model: ETEGRecForConditionalGeneration,
    tokenizer: ETEGRecTokenizer,
    rows: pa.Table,
    options: RecommendOptions,
    advance: Callable[[int], object] = lambda users: None,
) -> pa.Table:
    """Recommends for rows of a prepared dataset's `sequences`, decoded in batches of like length.

    Args:
        model, tokenizer, options: as in [`batch_recommend`].
        rows (`pa.Table`): `user_id`, `history` and `target`.
        advance (`Callable`, *optional*): is told a number of users whenever so many more are done.

    Returns:
        `pa.Table` as [`batch_recommend`] writes it, a row for each of `rows`.

    Raises:
        ValueError: an item that the model doesn't know, or empty cells.
    """
    split = known_histories(rows, tokenizer, options)
    items = np.zeros((len(split), options.top_k), dtype=np.int64)
    scores = np.zeros((len(split), options.top_k), dtype=np.float32)
    empty = int((np.diff(split.offsets) == 1).sum())
    advance(empty)
    if empty < len(split):
        with torch.autocast(model.device.type, torch.bfloat16, enabled=options.bf16):
            for batch in recommendations(model, split, options, options.batch_size):
                items[batch.rows], scores[batch.rows] = batch.items, batch.scores
                advance(len(batch.rows))
    listed = items > 0  # [rows, top_k]
    offsets = pa.array(np.concatenate([[0], listed.sum(axis=1).cumsum()]), pa.int32())
    ids = pa.array(tokenizer.item_ids, pa.string()).take(pa.array(items[listed] - 1))
    lists = [pa.ListArray.from_arrays(offsets, values) for values in (ids, pa.array(scores[listed]))]
    return pa.table([rows["user_id"].cast(pa.string()), *lists], schema=SCHEMA)


def known_histories(rows: pa.Table, tokenizer: ETEGRecTokenizer, options: RecommendOptions) -> Split:
    """What the model reads of each row, as item indices of its catalogue, in a split whose targets are all 0."""
    for name in COLUMNS:
        if rows[name].null_count:
            raise ValueError(f"column {name!r} has {rows[name].null_count} empty cells; prepare the dataset again.")
    every_row = np.arange(len(rows))
    items = _item_index(pc.list_flatten(rows["history"]), tokenizer, options.unknown)
    row = np.repeat(every_row, pc.list_value_length(rows["history"]).to_numpy())
    if options.include_target:
        items = np.concatenate([items, _item_index(rows["target"], tokenizer, options.unknown)])
        row = np.concatenate([row, every_row])
    is_known = items > 0
    items = np.concatenate([items[is_known], np.zeros_like(every_row)])
    row = np.concatenate([row[is_known], every_row])
    offsets = np.concatenate([[0], np.bincount(row, minlength=len(rows)).cumsum()])
    return Split(rows["user_id"].to_pylist(), items[np.argsort(row, kind="stable")], offsets)


def _item_index(item_ids: pa.ChunkedArray, tokenizer: ETEGRecTokenizer, unknown: str) -> np.ndarray:
    """The model's item indices of a column of item ids; 0 where it knows none."""
    index = pc.index_in(item_ids, value_set=pa.array(tokenizer.item_ids, item_ids.type))
    if unknown == "error" and index.null_count:
        absent = item_ids.filter(index.is_null())[0].as_py()
        raise ValueError(
            f"item {absent!r} is not in the model's catalogue of {len(tokenizer.item_ids)} items; name the dataset "
            "that it was trained on, add items with `etegrec finetune --add-items true`, or pass --unknown skip to "
            "leave out all such items."
        )
    return pc.fill_null(index, -1).to_numpy().astype(np.int64) + 1


def _manifest(model, tokenizer, rows: Path, options: RecommendOptions) -> dict:
    """What a run is of: hashes of the model, its items and the split's file, and the options."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in NOT_COMPARED}
    weights = (tensor.detach().cpu().contiguous().flatten() for tensor in model.state_dict().values())
    with rows.open("rb") as file:
        return {
            "config": hash_of([json.dumps(config, sort_keys=True, default=str).encode()]),
            "weights": hash_of(tensor.view(torch.uint8).numpy() for tensor in weights),
            "items": hash_of(item_id.encode() + b"\0" for item_id in tokenizer.item_ids),
            "data": hash_of(iter(partial(file.read, READ_SIZE), b"")),
            **asdict(options),
            **asdict(options.for_model(model)),
        }
