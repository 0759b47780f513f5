"""A log that is read a part at a time, and kept in a temporary folder until its users are read."""

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from ..interactions import Interactions, drop_repeated, number_ids
from ..sources import Malformed, SourceOptions
from ..sources.columns import find_columns
from ..sources.doubts import check_times, one_of_each_kind
from ..sources.log_builder import empty_log
from ..sources.log_table import LogTable, usable_rows

ROWS_READ = 1 << 19  # rows of the log that are read together
USERS_PER_FILE = 1 << 14


class SpilledLog:
    """Interactions in a temporary folder, which is removed with this object; each file holds those of some users.

    Users and items are numbered in the order of their first rows. Memory holds only their ids.

    Args:
        times (`np.dtype`, *optional*): type of the times; None if the order of the rows is the order in time.
    """

    def __init__(self, times: np.dtype | None = None):
        self.has_times = times is not None
        columns: list[tuple[str, object]] = [("user", np.int32), ("item", np.int32)]
        self.row = np.dtype([*columns, ("time", times)] if self.has_times else columns)
        self.users, self.items = _Ids(), _Ids()
        self.folder = Path(tempfile.mkdtemp(prefix="etegrec_log_"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def add(self, users: pa.ChunkedArray, items: pa.ChunkedArray, times: np.ndarray | None) -> None:
        """Adds rows of the log: user ids, item ids and times."""
        rows = np.empty(len(users), self.row)
        rows["user"], rows["item"] = self.users.numbers(users), self.items.numbers(items)
        if times is not None:
            rows["time"] = times
        file = rows["user"] // USERS_PER_FILE
        order = np.argsort(file, kind="stable")
        numbers, starts = np.unique(file[order], return_index=True)
        for number, part in zip(numbers.tolist(), np.split(rows[order], starts[1:])):
            with self._file(number).open("ab") as opened:
                part.tofile(opened)

    def parts(self) -> Iterator[Interactions]:
        """Yields the log without exact repetitions, a file of users at a time, in the order of their first rows."""
        item_ids = self.items.ids.to_numpy(zero_copy_only=False)
        for first in range(0, len(self.users.ids), USERS_PER_FILE):
            rows: np.ndarray = np.fromfile(self._file(first // USERS_PER_FILE), self.row)
            user_ids = self.users.ids.slice(first, USERS_PER_FILE).to_numpy(zero_copy_only=False)
            times = rows["time"] if self.has_times else None
            log = Interactions.from_rows(user_ids, item_ids, rows["user"] - first, rows["item"], times)
            yield drop_repeated(log, "exact")

    def _file(self, number: int) -> Path:
        return self.folder / str(number)


class _Ids:
    """Distinct ids, numbered in the order in which they first occur."""

    def __init__(self) -> None:
        self.ids = pa.array([], pa.string())

    def numbers(self, column: pa.ChunkedArray) -> np.ndarray:
        """Returns the number of each row's id; new ids get the next numbers."""
        distinct, rows = number_ids(column)
        ids = pa.array(distinct, pa.string())
        known = pc.index_in(ids, value_set=self.ids)
        new = known.is_null()
        numbers = pc.fill_null(known, 0).to_numpy(zero_copy_only=False).copy()
        numbers[new.to_numpy(zero_copy_only=False)] = len(self.ids) + np.arange(known.null_count)
        self.ids = pa.concat_arrays([self.ids, ids.filter(new)])
        return numbers[rows]


def spill_parquet(path: Path, options: SourceOptions) -> tuple[SpilledLog, Malformed] | None:
    """Reads a parquet log as [`read_parquet`] does, but a part at a time.

    A log whose times are text has to be read as a whole, as the whole column decides how its times are read.

    Args:
        path (`Path`): a file, or a folder of such files.
        options ([`SourceOptions`]): names of columns, and the largest share of malformed rows.

    Returns:
        the log and its malformed rows, which are left out; None if the times are text.

    Raises:
        ValueError: a file that isn't parquet.
        ValueError: missing columns, or too many malformed rows.
        ValueError: times of several kinds.
        ValueError: a log without rows.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    malformed = Malformed(path, unit="row")
    try:
        data = pyarrow.dataset.dataset(files, format="parquet")
        kinds = {column.name: column.type for column in data.schema}
        columns = find_columns(data.schema.names, path, options, kinds)
        if columns.time is not None and not _is_moment(kinds[columns.time]):
            return None
        is_float = columns.time is not None and pa.types.is_floating(kinds[columns.time])
        log = SpilledLog(None if columns.time is None else np.dtype(np.float64 if is_float else np.int64))
        names = list(dict.fromkeys(name for name in (columns.user, columns.item, columns.time) if name is not None))
        batches = data.to_batches(
            columns=names, batch_size=ROWS_READ, batch_readahead=1, fragment_readahead=1, use_threads=False
        )
        times: list[np.ndarray] = []
        for batch in batches:
            part = Malformed(path, unit="row")
            rows = usable_rows(LogTable(pa.Table.from_batches([batch]), part, columns))
            for number, reason in part.first:
                malformed.show(malformed.rows + number, reason)
            malformed.count += part.count
            malformed.rows += len(batch)
            log.add(rows.users, rows.items, rows.times)
            if rows.times is not None:
                times.append(one_of_each_kind(rows.times))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} can't be read as parquet: {error}; check --format and the file.") from error
    if columns.time is not None and times:
        check_times(np.concatenate(times), columns.time, path)
    malformed.check(options.max_malformed)
    if not len(log.users.ids):
        raise empty_log(path)
    return log, malformed


def _is_moment(kind: pa.DataType) -> bool:
    """Returns whether each value of a type is a time by itself, without the rest of its column."""
    is_date = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    return is_date or pa.types.is_signed_integer(kind) or pa.types.is_floating(kind)
