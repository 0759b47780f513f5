"""Files of items that users must not get, or may get alone, for each user or for all."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse

from ..fingerprint import hash_of
from ..sources.column_names import plain
from ..sources.columns import ITEM, USER
from ..sources.lines import raw_lines
from ..splits import positions_of
from ..wording import counted
from .table_file import ID, IDS, TableFile, in_pieces

LISTS = ("items", "itemids")  # names of columns of lists, as [`plain`] returns them
ONE_PER_LINE = ".txt"
# Rows whose ids are looked up together: each look-up begins with a pass over all users or items
ROWS_OF_ONE, ROWS_OF_LISTS = 1 << 20, 1 << 16
Pairs = np.dtype([("row", "<i4"), ("item", "<i4")])


@dataclass(frozen=True)
class ItemsForAll:
    """Items that a file names for all users.

    Args:
        items (`np.ndarray` of `int64`, shape `(n,)`): item indices, ascending.
        fingerprint (`str`): hash of the item indices.
    """

    items: np.ndarray
    fingerprint: str


class ItemsPerUser:
    """Items that a file names for each user, grouped in a temporary file by the parts in which users are processed.

    Memory holds only the ids of users and some numbers per part, however long the file is.

    Args:
        parts (`Iterator[tuple[pa.Array, np.ndarray]]`): user ids, and one item index per user id; 0 for unknown items.
        user_ids (`pa.ChunkedArray`): the user of each row. If a user has several rows, each of them gets its items.
        part_size (`int`): rows per part; the last part has the rest.
        n_items (`int`): number of items of the catalogue.

    Attributes:
        fingerprint (`str`): hash of the pairs of row and item, in the order of the file.
        n_pairs (`int`): number of pairs of a row and an item of the catalogue.
    """

    def __init__(
        self,
        parts: Iterator[tuple[pa.Array, np.ndarray]],
        user_ids: pa.ChunkedArray,
        part_size: int,
        n_items: int,
    ):
        self.n_rows, self.part_size, self.n_items = len(user_ids), part_size, n_items
        self.n_pairs = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._ends: list[np.ndarray] = []  # per written piece: ends of the parts' pairs, `[parts + 1]`
        users, rows, starts = _rows_of_users(user_ids)
        self.fingerprint = hash_of(self._written(part, users, rows, starts) for part in parts)

    def _written(self, part: tuple[pa.Array, np.ndarray], users: pa.Array, rows: np.ndarray, starts: np.ndarray):
        """Writes pairs of row and item, grouped by part, and returns them."""
        ids, items = part
        user = pc.index_in(ids, value_set=users)
        known = user.is_valid().to_numpy(zero_copy_only=False) & (items > 0)
        user, items = pc.fill_null(user, 0).to_numpy()[known], items[known]
        places, offsets = positions_of(starts[user], starts[user + 1])
        pairs = np.empty(len(places), Pairs)
        pairs["row"], pairs["item"] = rows[places], np.repeat(items, np.diff(offsets))
        number = pairs["row"] // self.part_size
        pairs = pairs[np.argsort(number, kind="stable")]
        counts = np.bincount(number, minlength=-(-self.n_rows // self.part_size))
        self._ends.append(self.n_pairs + np.concatenate([[0], counts.cumsum()]))
        self.n_pairs += len(pairs)
        self._file.write(pairs.tobytes())
        return pairs.tobytes()

    def of_part(self, number: int) -> scipy.sparse.csr_matrix:
        """Returns which items the file names for rows of a part, `[rows, n_items]`; column i is item index i + 1."""
        first = number * self.part_size
        n_rows = min(self.part_size, self.n_rows - first)
        found = []
        for ends in self._ends:
            start, end = ends[number : number + 2].tolist()
            if end > start:
                self._file.seek(start * Pairs.itemsize)
                found.append(np.frombuffer(self._file.read((end - start) * Pairs.itemsize), Pairs))
        pairs = np.concatenate(found) if found else np.empty(0, Pairs)
        cells = (pairs["row"] - first, pairs["item"] - 1)
        return scipy.sparse.csr_matrix((np.ones(len(pairs), dtype=bool), cells), (n_rows, self.n_items))


@dataclass(frozen=True)
class ItemsFile:
    """A file that names items, for each user or for all.

    A table for each user has one item per row (`user_id, item_id`) or one list per row (`user_id, items`). A table for
    all users has a column of items alone. A `.txt` file has one item id per line, for all users.

    Args:
        path (`Path`): the file.
        option (`str`): name of the option in errors.
        item_ids (`list[str]`): ids of the catalogue, in the order of item indices. Other ids in the file are left out.
    """

    path: Path
    option: str
    item_ids: list[str]
    _first_unknown: list[str] = field(default_factory=list)

    def read(self, user_ids: pa.ChunkedArray, part_size: int) -> ItemsForAll | ItemsPerUser:
        """Reads the file for rows of these users; arguments as in [`ItemsPerUser`].

        Raises:
            FileNotFoundError: no such file.
            ValueError: a damaged file.
            ValueError: a table without a column of items.
            ValueError: a file that names no item of the catalogue for any of these users.
        """
        if not self.path.exists():
            raise FileNotFoundError(
                f"`{self.option}` is {str(self.path)!r}, but there is no such file; name a table, or a .txt with one "
                "item id per line."
            )
        if self.path.suffix == ONE_PER_LINE:
            return self._for_all(iter([pa.array(self._lines(), pa.string())]))
        table = TableFile(self.path)
        user = USER.guess(table.names, self.path)
        lists = next((name for name in table.names if plain(name) in LISTS), None)
        item = lists or ITEM.guess(table.names, self.path, without=[user] if user else [])
        if item is None:
            raise ValueError(
                f"`{self.option}` {self.path} has the columns {table.names}, but none of items; write `item_id`, or "
                "`user_id` with `item_id` or with a list `items`."
            )
        columns = {item: IDS if lists else ID} | ({user: ID} if user else {})
        tables = in_pieces(table.tables(columns), ROWS_OF_LISTS if lists else ROWS_OF_ONE)
        if user is None:
            return self._for_all(_flat(part[item]) for part in tables)
        parts = ((_users_of(part[user], part[item]), self._index(_flat(part[item]))) for part in tables)
        found = ItemsPerUser(parts, user_ids, part_size, len(self.item_ids))
        if not found.n_pairs:
            raise ValueError(
                f"`{self.option}` {self.path} names no item of the catalogue for any of the "
                f"{counted(len(user_ids), 'user')}{self._unknown()}; use the ids of the model and of the histories, "
                "or leave the file out."
            )
        return found

    def _lines(self) -> list[str]:
        """Returns the lines of a text file that aren't empty."""
        try:
            text = b"".join(raw_lines(self.path)).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"`{self.option}` {self.path} isn't text in UTF-8 ({error}); save it as UTF-8."
            ) from error
        return [line.strip() for line in text.split("\n") if line.strip()]

    def _for_all(self, parts: Iterator[pa.Array]) -> ItemsForAll:
        indices = [self._index(part) for part in parts]
        items = np.unique(np.concatenate([np.zeros(1, np.int64), *indices]))[1:]  # without 0
        if not len(items):
            raise ValueError(
                f"`{self.option}` {self.path} names no item of the catalogue{self._unknown()}; check its ids, or "
                "leave the file out."
            )
        return ItemsForAll(items, hash_of([items]))

    def _index(self, ids: pa.Array) -> np.ndarray:
        """Returns the item index of each id, 0 for unknown ids."""
        index = pc.index_in(ids, value_set=pa.array(self.item_ids, pa.string()))
        if index.null_count and not self._first_unknown:
            self._first_unknown.append(ids.filter(index.is_null())[0].as_py())
        return pc.fill_null(index, -1).to_numpy().astype(np.int64) + 1

    def _unknown(self) -> str:
        return (
            f" (its first id that the model doesn't know is {self._first_unknown[0]!r})" if self._first_unknown else ""
        )


def _flat(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole.flatten() if pa.types.is_list(whole.type) else whole


def _users_of(users: pa.ChunkedArray, items: pa.ChunkedArray) -> pa.Array:
    """Returns the user of each item; a cell of `items` may hold several."""
    if not pa.types.is_list(items.type):
        return users.combine_chunks()
    lengths = pc.list_value_length(items).to_numpy()
    return users.combine_chunks().take(pa.array(np.repeat(np.arange(len(users)), lengths)))


def _rows_of_users(user_ids: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Returns distinct users, their rows sorted by user, and the start of each user's rows, `[users + 1]`."""
    encoded = user_ids.dictionary_encode().combine_chunks()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    numbers = encoded.indices.to_numpy()
    starts = np.concatenate([[0], np.bincount(numbers, minlength=len(encoded.dictionary)).cumsum()])
    return encoded.dictionary, np.argsort(numbers, kind="stable"), starts
