"""The prepared dataset: a folder of parquet files that `datasets.load_dataset` opens and the Hub shows."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .checks import check_choice, damaged
from .dataset_card import UNKNOWN, dataset_card, license_of
from .embedding_files import embeddings_of_column
from .folders import check_output_dir, complete_or_absent, replace_file, replace_text
from .interactions import Interactions
from .mapped_embeddings import ITEMS, find_mapped_embeddings, items_file, mapped_embeddings
from .named_embeddings import (
    NamedEmbedding,
    describe,
    embedding_column,
    fuse,
    metadata_of,
    read_embedding,
    with_metadata,
    write_embedding,
)
from .sources.source import TEXT_FIELDS
from .splits import SPLIT_NAMES, SplitRows, positions_of
from .wording import counted

ITEM_ROW_GROUP = 8_192  # items per row group, the least that is read: 32 MB of embeddings of width 1,024
ROW_GROUP = 65_536  # sequences per row group: tens of MB if each has tens of items


@dataclass(frozen=True)
class Split:
    """One split as arrays of item indices (1..n_items).

    Args:
        user_ids (`list[str]`): the user of each row.
        sequences (`np.ndarray` of `int64`, shape `(n,)`): histories, each followed by its target, row after row.
        offsets (`np.ndarray` of `int64`, shape `(rows + 1,)`): start of each row in `sequences`, and their length.
    """

    user_ids: list[str]
    sequences: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.user_ids)

    def row(self, number: int) -> np.ndarray:
        """Returns the item indices of one row: its history, oldest first, and then its target."""
        return self.sequences[self.offsets[number] : self.offsets[number + 1]]

    @property
    def targets(self) -> np.ndarray:
        """Item index of each row's target."""
        return self.sequences[self.offsets[1:] - 1]

    @property
    def histories(self) -> tuple[np.ndarray, np.ndarray]:
        """Row number and item index of each item of the histories, row after row: both `[n - rows]`.

        >>> rows, items = Split(["a", "b"], np.array([1, 2, 3, 4, 5]), np.array([0, 2, 5])).histories
        >>> rows.tolist(), items.tolist()
        ([0, 1, 1], [1, 3, 4])
        """
        in_history = np.ones(len(self.sequences), dtype=bool)
        in_history[self.offsets[1:] - 1] = False
        rows = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        return rows[in_history], self.sequences[in_history]

    def take(self, rows: np.ndarray) -> "Split":
        """Returns a split of the given rows `[n]`, in the given order.

        >>> split = Split(["a", "b"], np.array([1, 2, 3, 4, 5]), np.array([0, 2, 5]))
        >>> split.take(np.array([1])).sequences.tolist()
        [3, 4, 5]
        """
        parts = [self.row(row) for row in rows]
        offsets = np.cumsum([0, *map(len, parts)])
        sequences = np.concatenate([np.zeros(0, np.int64), *parts])
        return Split([self.user_ids[row] for row in rows], sequences, offsets)


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset in memory.

    Args:
        item_ids (`list[str]`): ids of the items, in the order of item indices.
        titles (`list[str]`): titles of the items; empty if unknown.
        embeddings (`np.ndarray` of `float32`, shape `(n_items, width)`, *optional*): semantic embeddings.
        train, validation, test ([`Split`]): the splits.
        statistics (`dict`): counts, and how the data was made.
    """

    item_ids: list[str]
    titles: list[str]
    embeddings: np.ndarray | None
    train: Split
    validation: Split
    test: Split
    statistics: dict

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @property
    def title_of(self) -> dict[str, str]:
        """Titles by item id, for the items whose title is known."""
        return {item_id: title for item_id, title in zip(self.item_ids, self.titles) if title}

    @property
    def item_counts(self) -> np.ndarray:
        """Number of times that each item occurs in training: `[n_items + 1]`, by item index; 0 for padding."""
        return np.bincount(self.train.sequences, minlength=self.n_items + 1)

    def split(self, name: str) -> Split:
        """Returns the split of that name.

        Raises:
            ValueError: the name isn't in `SPLIT_NAMES`.
        """
        check_choice("split", name, SPLIT_NAMES)
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def with_items(self, item_ids: list[str]) -> "PreparedDataset":
        """Returns the same sequences with the item indices of a model's catalogue.

        The catalogue may be larger or in another order. If it isn't equal to this dataset's, embeddings are left out.

        Args:
            item_ids (`list[str]`): item ids of the catalogue, in the order of its item indices.

        Raises:
            ValueError: the catalogue lacks an item of this dataset.
        """
        if item_ids == self.item_ids:
            return self
        index_of = {item_id: index for index, item_id in enumerate(item_ids, start=1)}
        absent = [item_id for item_id in self.item_ids if item_id not in index_of]
        if absent:
            raise ValueError(
                f"{len(absent)} of the dataset's {self.n_items} items {'is' if len(absent) == 1 else 'are'} not in "
                f"the catalogue of {len(item_ids)}, among them {absent[0]!r}; use the dataset that the model was "
                "trained on, or `etegrec finetune --add-items true`."
            )
        new_index = np.array([0] + [index_of[item_id] for item_id in self.item_ids])
        title_of = self.title_of
        titles = [title_of.get(item_id, "") for item_id in item_ids]
        train, validation, test = (
            replace(split, sequences=new_index[split.sequences]) for split in map(self.split, SPLIT_NAMES)
        )
        return PreparedDataset(item_ids, titles, None, train, validation, test, self.statistics)

    @classmethod
    def load(
        cls, folder: str | Path, splits: tuple[str, ...] = SPLIT_NAMES, map_embeddings: bool = False
    ) -> "PreparedDataset":
        """Reads the folder that [`write_prepared`] wrote.

        Args:
            folder (`str` or `Path`): the dataset.
            splits (`tuple[str, ...]`, *optional*): splits that are read; the others get no rows.
            map_embeddings (`bool`, *optional*, defaults to `False`): whether `embeddings` are read from disk as they
                are needed, see [`mapped_embeddings`]. The file for that is made if there is none. If there is one, it
                is used in any case.

        Raises:
            FileNotFoundError: the folder isn't a prepared dataset, or lacks a file.
            ValueError: damaged files.
            ValueError: duplicate item ids, or empty cells.
            ValueError: an item in a sequence that isn't in the table `items`.
            ValueError: embeddings that are empty, not finite or of different widths.
            ValueError: `map_embeddings` for a dataset without embeddings.
            OSError: mapped embeddings can't be written.
        """
        folder = Path(folder)
        mapped = mapped_embeddings(folder) if map_embeddings else find_mapped_embeddings(folder)
        items = read_items(folder) if mapped is None else _read_items_without_embedding(folder)
        statistics, files = read_statistics(folder), {name: split_file(folder, name) for name in splits}
        item_ids = items["item_id"].to_pylist()
        distinct = len(set(item_ids))
        if distinct != len(item_ids):
            repeated = counted(len(item_ids) - distinct, "duplicate item id")
            raise ValueError(f"{folder} holds {repeated}; keep one row per item.")
        embeddings = None if mapped is None else mapped.numpy()
        if "embedding" in items.column_names:
            embeddings = embeddings_of_column(items["embedding"], item_ids, folder)
        sequences = {name: Split([], np.zeros(0, np.int64), np.zeros(1, np.int64)) for name in SPLIT_NAMES}
        for name, path in files.items():
            sequences[name] = split_of(_read_table(path), items["item_id"], path)
        if embeddings is not None and metadata_of(items):  # newer than statistics.json if writing was interrupted
            statistics |= _figures_of(NamedEmbedding("embedding", embeddings, metadata_of(items)))
        titles = items["title"].to_pylist() if "title" in items.column_names else [""] * len(item_ids)
        return cls(item_ids, titles, embeddings, **sequences, statistics=statistics)


def split_of(table: pa.Table, item_ids: pa.Array | pa.ChunkedArray, source: str | Path, first_row: int = 0) -> Split:
    """Converts rows of `user_id`, `history` and `target` to arrays of item indices.

    Args:
        table (`pa.Table`): the rows.
        item_ids (`pa.Array` or `pa.ChunkedArray`): ids of the items, in the order of item indices.
        source (`str` or `Path`): file that the rows come from, for errors.
        first_row (`int`, *optional*, defaults to 0): number of rows that come before these in the file, for errors.

    Raises:
        ValueError: a column that is missing, or an empty cell.
        ValueError: an item that isn't in `item_ids`.
    """
    for name in ("user_id", "history", "target"):
        if name not in table.column_names:
            raise damaged(source, f"it has no column {name!r}")
        if table[name].null_count:
            raise ValueError(f"column {name!r} of {source} has {table[name].null_count} empty cells; prepare again.")
    history = table["history"].combine_chunks()
    lengths = np.diff(history.offsets.to_numpy()) + 1  # with the target
    offsets = np.concatenate([[0], lengths.cumsum()])
    sequences = np.empty(offsets[-1], dtype=np.int64)
    is_target = np.zeros(len(sequences), dtype=bool)
    is_target[offsets[1:] - 1] = True
    for where, names in ((~is_target, history.flatten()), (is_target, table["target"])):
        sequences[where] = pc.index_in(names, value_set=item_ids).fill_null(-1).to_numpy() + 1
    if not sequences.all():
        position = int((sequences == 0).argmax())
        row = int(np.searchsorted(offsets, position, side="right")) - 1
        unknown = [*history[row].as_py(), table["target"][row].as_py()][position - offsets[row]]
        raise ValueError(
            f"row {first_row + row} of {source} names the item {unknown!r}, which isn't in `items`; prepare again."
        )
    return Split(table["user_id"].to_pylist(), sequences, offsets)


@dataclass(frozen=True)
class ItemFeatures:
    """Texts, embeddings and other columns of a prepared dataset's items.

    Args:
        texts (`dict[str, dict[str, str]]`): `title` and other texts by item id, as far as they are known.
        embeddings (`list[NamedEmbedding]`): embeddings of all items, which are fused into the semantic embedding.
        normalize (`str`, *optional*, defaults to `"none"`): as in [`fuse`].
        tokens (`dict[str, list[str]]`, *optional*): token strings that came with the log by item id, as far as they
            are known.
        columns (`dict[str, pa.Array]`, *optional*): columns of numbers and categories, in the order of the items.
    """

    texts: dict[str, dict[str, str]]
    embeddings: list[NamedEmbedding]
    normalize: str = "none"
    tokens: dict[str, list[str]] | None = None
    columns: dict[str, pa.Array] = field(default_factory=dict)


def write_prepared(
    output_dir: str | Path,
    interactions: Interactions,
    splits: dict[str, SplitRows],
    features: ItemFeatures,
    statistics: dict,
    max_history: int = 50,
) -> dict:
    """Writes a prepared dataset, completely or not at all.

    Args:
        output_dir (`str` or `Path`): a new folder.
        interactions ([`Interactions`]): the log; its items are the catalogue, in this order.
        splits (`dict[str, SplitRows]`): rows of `train`, `validation` and `test`.
        features ([`ItemFeatures`]): features of these items.
        statistics (`dict`): figures that the dataset card shows.
        max_history (`int`, *optional*, defaults to 50): number of last items that validation and test histories keep.

    Returns:
        `dict`: the statistics, and figures of the semantic embedding.

    Raises:
        FileExistsError: the folder isn't empty.
    """
    item_ids = interactions.item_ids.tolist()
    columns: dict[str, pa.Array] = {"item_id": pa.array(item_ids, pa.string())}
    for name in TEXT_FIELDS:
        values = [str(features.texts.get(item_id, {}).get(name) or "") for item_id in item_ids]
        if any(values):
            columns[name] = pa.array(values, pa.string())
    columns |= features.columns
    if features.tokens:
        columns["codes"] = pa.array([features.tokens.get(item_id) for item_id in item_ids], pa.list_(pa.string()))
    with complete_or_absent(check_output_dir(output_dir)) as folder:
        (folder / "items").mkdir()
        (folder / "sequences").mkdir()
        _write_items(pa.table(columns), folder / ITEMS)
        for name in SPLIT_NAMES:
            longest = None if name == "train" else max_history
            table = _split_table(interactions, splits[name], longest)
            pq.write_table(table, folder / f"sequences/{name}.parquet", row_group_size=ROW_GROUP)
        for part in features.embeddings:
            write_embedding(folder, part, item_ids)
        if features.embeddings:
            semantic = fuse(features.embeddings, features.normalize)
            _write_semantic_embedding(folder, semantic)
            statistics = statistics | _figures_of(semantic)
        _write_statistics(folder, str(output_dir), statistics)
    return statistics


def set_semantic_embedding(folder: str | Path, names: list[str], normalize: str) -> dict:
    """Replaces the semantic embedding of a prepared dataset by a fusion of embeddings.

    Args:
        folder (`str` or `Path`): the dataset.
        names (`list[str]`): names of its embeddings, or `.parquet` files with `item_id` and `embedding`, in order.
        normalize (`str`): as in [`fuse`].

    Returns:
        `dict`: description of how the semantic embedding was made.

    Raises:
        FileNotFoundError: no such dataset or embedding.
        ValueError: the errors of [`fuse`] and [`read_embedding`].
    """
    folder = Path(folder)
    items = read_items(folder)
    item_ids = items["item_id"].to_pylist()
    semantic = fuse([read_embedding(folder, name, item_ids) for name in names], normalize)
    if "embedding" in items.column_names and not metadata_of(items):  # made elsewhere: this is the only copy
        earlier = embeddings_of_column(items["embedding"], item_ids, folder)
        write_embedding(folder, NamedEmbedding("earlier", earlier), item_ids)
    statistics = read_statistics(folder)
    _write_semantic_embedding(folder, semantic)
    _write_statistics(folder, str(folder), statistics | _figures_of(semantic))
    return semantic.made


def read_items(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """Reads the table `items` of a prepared dataset, or some columns of it.

    Raises:
        FileNotFoundError: the folder doesn't exist, or isn't a prepared dataset.
        ValueError: the table is damaged.
    """
    return _read_table(items_file(folder), columns)


def split_file(folder: Path, split: str) -> Path:
    """Returns the path of a split's parquet file, with the columns `user_id`, `history` and `target`.

    Raises:
        FileNotFoundError: the dataset lacks the file.
        ValueError: the file is damaged.
    """
    path = _existing(folder, f"sequences/{split}.parquet")
    try:
        pq.read_metadata(path)
    except pa.ArrowException as error:
        raise damaged(path, error) from error
    return path


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} lacks {name}; copy the dataset again, or prepare it again.")
    return path


def _read_items_without_embedding(folder: Path) -> pa.Table:
    names = pq.read_schema(folder / ITEMS).names
    return read_items(folder, [name for name in names if name != "embedding"])


def _read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def read_statistics(folder: Path) -> dict:
    """Reads the statistics of a prepared dataset: counts, and how it was made.

    Raises:
        FileNotFoundError: the folder isn't a prepared dataset.
        ValueError: the file is damaged.
    """
    path = _existing(folder, "statistics.json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, error) from error


def _write_semantic_embedding(folder: Path, semantic: NamedEmbedding) -> None:
    """Writes the semantic embedding into the table of items, and how it was made into the table's metadata."""
    items = read_items(folder)
    if "embedding" in items.column_names:
        items = items.drop_columns("embedding")
    items = with_metadata(items.append_column("embedding", embedding_column(semantic.values)), semantic.made)
    replace_file(folder / ITEMS, lambda beside: _write_items(items, beside))


def _write_items(items: pa.Table, path: Path) -> None:
    """Writes the table in row groups that are small enough to be read one by one."""
    pq.write_table(items, path, ITEM_ROW_GROUP)


def _figures_of(semantic: NamedEmbedding) -> dict:
    """Returns the figures of the semantic embedding for the statistics."""
    return {
        "embedding": describe(semantic.made),
        "embedding_width": semantic.values.shape[1],
        "items_with_zero_embedding": int((~semantic.values.any(axis=1)).sum()),
    }


def _write_statistics(folder: Path, name: str, statistics: dict) -> None:
    """Writes `statistics.json` and the dataset card; a license that a user wrote into the card is kept."""
    path = folder / "README.md"
    if path.exists():
        on_card = license_of(path.read_text(encoding="utf-8"))
        statistics = statistics if on_card == UNKNOWN else statistics | {"license": on_card}
    figures = json.dumps(statistics, indent=2) + "\n"
    replace_text(folder / "statistics.json", figures)
    card = dataset_card(folder, name, statistics)
    replace_text(path, card)


def _split_table(interactions: Interactions, rows: SplitRows, max_history: int | None) -> pa.Table:
    start = rows.start if max_history is None else np.maximum(rows.start, rows.target - max_history)
    positions, offsets = positions_of(start, rows.target)
    user_ids, item_ids = (pa.array(ids, pa.string()) for ids in (interactions.user_ids, interactions.item_ids))
    history = item_ids.take(pa.array(interactions.items[positions]))
    return pa.table(
        {
            "user_id": user_ids.take(pa.array(interactions.users[rows.start])),
            "history": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), history),
            "target": item_ids.take(pa.array(interactions.items[rows.target])),
        }
    )
