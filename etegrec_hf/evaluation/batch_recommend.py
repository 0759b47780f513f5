"""Recommendations for all users of a prepared dataset, a table of histories or a log, written into one file."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from accelerate import PartialState
from transformers.utils import logging

from ..data.checks import check_choice, check_positive
from ..data.fingerprint import hash_of
from ..data.prepared import Split
from ..data.progress import WorkProgress
from ..data.sharded_parquet import ShardedParquet
from ..data.splits import SPLIT_NAMES
from ..data.users.histories import SPLIT_COLUMNS, UserHistories, repeated_user, split_histories
from ..data.users.items import ItemsFile, ItemsForAll, ItemsPerUser
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.search_options import SearchOptions
from ..models.tokenization_etegrec import ETEGRecTokenizer
from .recommend_split import recommendations
from .row_constraints import RowConstraints

logger = logging.get_logger(__name__)

COLUMNS = SPLIT_COLUMNS
SCHEMA = pa.schema(
    {"user_id": pa.string(), "items": pa.list_(pa.string()), "scores": pa.list_(pa.float32())},
)
# entries of a configuration that don't change the model, or that the filled-in options repeat
NOT_COMPARED = ("_name_or_path", "transformers_version", "search_settings")
POPULAR = pa.field("popular", pa.bool_())  # the column that tells popular items from recommended ones
ON_EMPTY = ("popular", "empty", "error")
ROWS_LOOKED_AT = 1 << 16  # rows that are checked together, as each check begins with a pass over all items
LONGEST_WAIT = timedelta(days=7)  # longest time that a process waits for the slowest one


@dataclass(frozen=True)
class RecommendOptions(SearchOptions):
    """[`SearchOptions`], and options of the users and the files of [`batch_recommend`].

    Raises:
        ValueError: values that [`SearchOptions`] refuses.
        ValueError: `batch_size` or `shard_size` below 1.
        ValueError: an unknown `split`, `unknown` or `on_empty`.
    """

    unknown: str = field(default="error", metadata={"help": "'skip' leaves out items that the model doesn't know."})
    on_empty: str | None = field(
        default=None,
        metadata={
            "help": "For users without a known item: 'popular' items, marked in the column `popular` (default with "
            "--histories); an 'empty' list (default with --data); or an 'error'."
        },
    )
    exclude: str | None = field(
        default=None,
        metadata={
            "help": "A file of items to leave out: per user (`user_id, item_id`, or `user_id` and a list `items`), or "
            "for all (`item_id`, or a .txt with one id per line)."
        },
    )
    allowed: str | None = field(
        default=None,
        metadata={"help": "A file of items to choose from, like --exclude; users who aren't in it get no item."},
    )
    split: str = field(default="test", metadata={"help": "With --data: the split whose rows are read."})
    include_target: bool = field(
        default=True, metadata={"help": "With --data: read a row's target as the last item of its history."}
    )
    batch_size: int = field(default=256, metadata={"help": "Users per batch."})
    bf16: bool = field(default=False, metadata={"help": "Decode under bfloat16 autocast."})
    shard_size: int = field(
        default=8192,
        metadata={"help": "Users per shard. Shards are written whole: an interruption loses one per process at most."},
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("batch_size", "shard_size"):
            check_positive(name, getattr(self, name))
        check_choice("split", self.split, SPLIT_NAMES)
        check_choice("unknown", self.unknown, ("error", "skip"))
        if self.on_empty is not None:
            check_choice("on_empty", self.on_empty, ON_EMPTY)


def processes() -> PartialState:
    """Returns the state of the processes of `accelerate launch`, or of this process; each gets a GPU of its own."""
    # without a GPU, accelerate counts several processes as one unless `cpu` is set
    return PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)


def batch_recommend(
    model: ETEGRecForConditionalGeneration,
    tokenizer: ETEGRecTokenizer,
    data: str | Path | UserHistories,
    output: str | Path,
    options: RecommendOptions | None = None,
    resume: bool = False,
) -> dict[str, int]:
    """Recommends items for many users and writes them into a file.

    All processes of `accelerate launch` call it together. The users are divided into shards, which the processes
    share. A shard's content depends on the shard alone. So the file doesn't depend on the number of processes, if they
    have the same hardware and the same number of threads. On several machines, all must see the file's folder.
    Finished shards of an interrupted call stay in the folder `FILE.shards`. All rows are read and checked before the
    first list is made.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): a model in eval mode.
        tokenizer ([`ETEGRecTokenizer`]): the model's tokenizer.
        data (`str`, `Path` or [`UserHistories`]): the folder of a prepared dataset, whose split `options.split` is
            read shard by shard; or a result of [`read_histories`].
        output (`str` or `Path`): the file, which is complete or absent. Its columns are `user_id: string`,
            `items: list<string>`, best first, and `scores: list<float32>` as in `model.recommend`, in the order of the
            rows. With `on_empty="popular"` the column `popular: bool` marks users with popular items, whose scores are
            logarithms of shares of training interactions. The ending chooses the format: `.parquet`, `.csv` (lists are
            JSON) or `.jsonl`.
        options ([`RecommendOptions`], *optional*): options; by default all have their defaults.
        resume (`bool`, *optional*, defaults to `False`): whether to continue an earlier, interrupted call, if there is
            one.

    Returns:
        `dict` with numbers of users: `users`, all of them; `empty`, those with an empty list, because the model knows
        no item of their history or they may get no item; and with `on_empty="popular"` `popular`, those with popular
        items.

    Raises:
        FileNotFoundError: no such dataset or file of items.
        FileExistsError: file or shards exist, and `resume` isn't set.
        ValueError: another ending of `output`.
        ValueError: file or shards of another run.
        ValueError: items that the model doesn't know, unless they are skipped.
        ValueError: a damaged dataset.
        ValueError: a user without usable items, with `on_empty="error"`.
        ValueError: a user without usable items, with `on_empty="popular"` for a model without counts of its items.
        ValueError: files of `options.exclude` or `options.allowed` that fit neither items nor users.
    """
    options = options or RecommendOptions()
    histories = data if isinstance(data, UserHistories) else split_histories(data, options.split)
    if options.on_empty is None:
        options = replace(options, on_empty="empty" if histories.is_split else "popular")
    state = processes()
    reading = _Reading(histories, model, tokenizer, options)
    file = ShardedParquet(
        output, schema_of(options), reading.count, options.shard_size, _manifest(model, tokenizer, reading)
    )
    file.check(resume)
    missing = file.missing()
    state.wait_for_everyone()  # until all processes have listed the same missing shards
    if state.is_main_process:
        for shard in filter(Path.exists, map(file.shard, missing)):
            logger.warning(f"{shard} is damaged and will be made again.")
        if missing:
            file.start()
    state.wait_for_everyone()
    own = missing[state.process_index :: state.num_processes]
    share = f" (process 1 of {state.num_processes})" if state.num_processes > 1 else ""
    with WorkProgress(state.is_main_process) as progress:  # the main process shows its own share
        task = progress.begin(f"recommending{share}", sum(file.rows_of[number] for number in own), "users")
        advance = partial(progress.work_done, task)
        for number, rows in enumerate(histories.pieces(options.shard_size)):
            if number in own:
                constraints = reading.constraints(number)
                file.write(number, recommend_rows(model, tokenizer, rows, options, advance, constraints))
    state.wait_for_everyone()
    counts = {"users": reading.count, "empty": 0} | ({"popular": 0} if options.on_empty == "popular" else {})
    for table in file.tables():
        counts["empty"] += pc.sum(pc.equal(pc.list_value_length(table["items"]), 0)).as_py() or 0
        if options.on_empty == "popular":
            counts["popular"] += pc.sum(table[POPULAR.name]).as_py() or 0
    state.wait_for_everyone()  # until all have read the shards
    if state.is_main_process:
        file.finish()
    state.wait_for_everyone()
    return counts


def schema_of(options: RecommendOptions) -> pa.Schema:
    """Returns the columns that are written."""
    return SCHEMA.append(POPULAR) if options.on_empty == "popular" else SCHEMA


class _Reading:
    """A first pass over all rows, before the first list is made: it checks, counts and hashes them.

    It also reads the constraints of the rows.

    Args:
        histories ([`UserHistories`]): the rows.
        model, tokenizer, options: as in [`batch_recommend`].

    Raises:
        ValueError: the errors of [`batch_recommend`].
    """

    def __init__(
        self,
        histories: UserHistories,
        model: ETEGRecForConditionalGeneration,
        tokenizer: ETEGRecTokenizer,
        options: RecommendOptions,
    ):
        self.histories, self.model, self.tokenizer, self.options = histories, model, tokenizer, options
        self._users: list[pa.Array] = []
        self.fingerprint = hash_of(self._parts())
        user_ids = pa.chunked_array(self._users, pa.string())
        self.count = len(user_ids)
        if not self.count:
            raise ValueError(f"{histories.name} holds no user; check the path.")
        repeated = None if histories.is_split else repeated_user(user_ids)
        if repeated is not None:
            raise ValueError(f"user {repeated!r} has several rows in {histories.name}; write one row per user.")
        items = {
            name: ItemsFile(Path(path), name, tokenizer.item_ids).read(user_ids, options.shard_size)
            for name in ("exclude", "allowed")
            if (path := getattr(options, name)) is not None
        }
        self.items: dict[str, ItemsForAll | ItemsPerUser] = items
        self._users = []

    def _parts(self) -> Iterator[bytes | np.ndarray]:
        """Checks the rows, and yields their contents for the hash."""
        for table in self.histories.pieces(ROWS_LOOKED_AT):
            split = known_histories(table, self.tokenizer, self.options)
            check_empty(split, self.model, self.options, self.histories.name)
            user_ids = table["user_id"].cast(pa.string())
            self._users += user_ids.chunks
            yield "".join(f"{user_id}\0" for user_id in user_ids.to_pylist()).encode()
            yield np.diff(split.offsets).astype("<i8")
            yield split.sequences.astype("<i8")

    def constraints(self, number: int) -> RowConstraints:
        """Returns the items that the rows of a shard may get."""
        choice, per_row = None, {}
        for name, items in self.items.items():
            if isinstance(items, ItemsPerUser):
                per_row[name] = items.of_part(number)
            else:
                choice = np.arange(1, len(self.tokenizer.item_ids) + 1) if choice is None else choice
                choice = choice[np.isin(choice, items.items, invert=name == "exclude")]
        return RowConstraints(choice=choice, **per_row)


def recommend_rows(
    model: ETEGRecForConditionalGeneration,
    tokenizer: ETEGRecTokenizer,
    rows: pa.Table,
    options: RecommendOptions,
    advance: Callable[[int], object] = lambda users: None,
    constraints: RowConstraints | None = None,
) -> pa.Table:
    """Recommends items for rows of users, in batches of similar length.

    Args:
        model, tokenizer: as in [`batch_recommend`].
        rows (`pa.Table`): `user_id` and `history`; also `target` for rows of a prepared dataset's `sequences`.
        options ([`RecommendOptions`]): options; `exclude` and `allowed` aren't used here.
        advance (`Callable`, *optional*): function that is called with the number of users in each finished batch.
        constraints (`RowConstraints`, *optional*): the items that the rows may get.

    Returns:
        `pa.Table`: one row per row of `rows`, with the columns that [`batch_recommend`] writes.

    Raises:
        ValueError: an item that the model doesn't know, unless such items are skipped.
        ValueError: empty cells.
        ValueError: a history without items, if `on_empty` has no answer for it.
    """
    constraints = constraints or RowConstraints()
    split = known_histories(rows, tokenizer, options)
    check_empty(split, model, options, "`rows`")
    items = np.zeros((len(split), options.top_k), dtype=np.int64)
    scores = np.zeros((len(split), options.top_k), dtype=np.float32)
    is_empty = np.diff(split.offsets) == 1
    if is_empty.any() and options.on_empty == "popular":
        empty = np.flatnonzero(is_empty)
        for start in range(0, len(empty), options.batch_size):
            chosen = empty[start : start + options.batch_size]
            items[chosen], scores[chosen] = _popular(model, chosen, options.top_k, constraints)
    advance(int(is_empty.sum()))
    if not is_empty.all():
        with torch.autocast(model.device.type, torch.bfloat16, enabled=options.bf16):
            for batch in recommendations(model, split, options, options.batch_size, constraints):
                items[batch.rows], scores[batch.rows] = batch.items, batch.scores
                advance(len(batch.rows))
    listed = items > 0  # [rows, top_k]
    offsets = pa.array(np.concatenate([[0], listed.sum(axis=1).cumsum()]), pa.int32())
    ids = pa.array(tokenizer.item_ids, pa.string()).take(pa.array(items[listed] - 1))
    lists = [pa.ListArray.from_arrays(offsets, values) for values in (ids, pa.array(scores[listed]))]
    columns = [rows["user_id"].cast(pa.string()), *lists]
    if options.on_empty == "popular":
        columns.append(pa.array(is_empty & listed.any(axis=1)))
    return pa.table(columns, schema=schema_of(options))


def _popular(
    model: ETEGRecForConditionalGeneration, rows: np.ndarray, top_k: int, constraints: RowConstraints
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the most popular items that rows may get, and their scores, both `[rows, top_k]`."""
    items, scores = np.zeros((len(rows), top_k), dtype=np.int64), np.zeros((len(rows), top_k), dtype=np.float32)
    nobody = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    for part, exclude, choice in constraints.parts(rows):
        exclude = np.zeros((len(rows[part]), 1), dtype=np.int64) if exclude is None else exclude
        allowed = None if choice is None else torch.from_numpy(choice).to(model.device)
        # one list for all rows, long enough to leave out the items excluded for a row
        found = model.catalogue.most_popular(top_k + exclude.shape[1], nobody, allowed)
        popular, shares = (values[0].cpu().numpy() for values in found)
        for row, own in enumerate(exclude, start=part.start):
            kept = np.flatnonzero(~np.isin(popular, [0, *own]))[:top_k]
            items[row, : len(kept)], scores[row, : len(kept)] = popular[kept], shares[kept]
    return items, scores


def check_empty(split: Split, model: ETEGRecForConditionalGeneration, options: RecommendOptions, source: str) -> None:
    """Raises a `ValueError` for the first user of `source` without a history, if `on_empty` has no answer for it."""
    empty = np.flatnonzero(np.diff(split.offsets) == 1)
    if not len(empty) or options.on_empty in (None, "empty"):
        return
    who = f"user {split.user_ids[empty[0]]!r} of {source} has no item that the model knows"
    if options.on_empty == "error":
        raise ValueError(f"{who}, and `on_empty` is 'error'; leave the row out, or choose 'popular' or 'empty'.")
    if not model.catalogue.item_counts.any():
        raise ValueError(
            f"{who} and `on_empty` is 'popular', but this model holds no counts of its items; finetune it, or "
            "pass --on-empty empty and fill the empty lists yourself."
        )


def known_histories(rows: pa.Table, tokenizer: ETEGRecTokenizer, options: RecommendOptions) -> Split:
    """Returns the histories that the model reads, as item indices, in a split whose targets are all 0."""
    for name in rows.column_names:
        if rows[name].null_count:
            raise ValueError(f"column {name!r} has {rows[name].null_count} empty cells; prepare the dataset again.")
    every_row = np.arange(len(rows))
    items = _item_index(pc.list_flatten(rows["history"]), tokenizer, options.unknown)
    row = np.repeat(every_row, pc.list_value_length(rows["history"]).to_numpy())
    if options.include_target and "target" in rows.column_names:
        items = np.concatenate([items, _item_index(rows["target"], tokenizer, options.unknown)])
        row = np.concatenate([row, every_row])
    is_known = items > 0
    items = np.concatenate([items[is_known], np.zeros_like(every_row)])
    row = np.concatenate([row[is_known], every_row])
    offsets = np.concatenate([[0], np.bincount(row, minlength=len(rows)).cumsum()])
    return Split(rows["user_id"].to_pylist(), items[np.argsort(row, kind="stable")], offsets)


def _item_index(item_ids: pa.ChunkedArray, tokenizer: ETEGRecTokenizer, unknown: str) -> np.ndarray:
    """Returns the model's item indices of a column of item ids; 0 for unknown ids."""
    index = pc.index_in(item_ids, value_set=pa.array(tokenizer.item_ids, item_ids.type))
    if unknown == "error" and index.null_count:
        absent = item_ids.filter(index.is_null())[0].as_py()
        raise ValueError(
            f"item {absent!r} is not in the model's catalogue of {len(tokenizer.item_ids)} items; give data with the "
            "items that it was trained on, add items with `etegrec add-items`, or pass --unknown skip to leave out "
            "all such items."
        )
    return pc.fill_null(index, -1).to_numpy().astype(np.int64) + 1


def _manifest(model: ETEGRecForConditionalGeneration, tokenizer: ETEGRecTokenizer, reading: _Reading) -> dict:
    """Returns a description of a run: hashes of the model, its items, the rows and files of items, and the options."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in NOT_COMPARED}
    weights = (tensor.detach().cpu().contiguous().flatten() for tensor in model.state_dict().values())
    return {
        "config": hash_of([json.dumps(config, sort_keys=True, default=str).encode()]),
        "weights": hash_of(tensor.view(torch.uint8).numpy() for tensor in weights),
        "items": hash_of(item_id.encode() + b"\0" for item_id in tokenizer.item_ids),
        **asdict(reading.options),
        **{name: items.fingerprint for name, items in reading.items.items()},
        **asdict(reading.options.for_model(model)),
        "data": reading.fingerprint,
    }
