"""A log that is read a part at a time, and waits in a temporary folder until its users are asked for."""

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
from ..sources.log_builder import empty_log
from ..sources.log_table import LogTable, usable_rows

ROWS_READ = 1 << 19  # of the log at a time
USERS_PER_FILE = 1 << 14


class SpilledLog:
    """Interactions in a temporary folder, which goes with this object; a file holds those of consecutive users.

    Users and items are numbered in the order of their first row. In memory are their ids alone.

    Args:
        times (`np.dtype`, *optional*): type of the times; without it the order of the rows is the time.
    """

    def __init__(self, times: np.dtype | None = None):
        self.has_times = times is not None
        columns: list[tuple[str, object]] = [("user", np.int32), ("item", np.int32)]
        self.row = np.dtype([*columns, ("time", times)] if self.has_times else columns)
        self.users, self.items = _Ids(), _Ids()
        self.folder = Path(tempfile.mkdtemp(prefix="etegrec_log_"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def add(self, users: pa.ChunkedArray, items: pa.ChunkedArray, times: np.ndarray | None) -> None:
        """Adds rows of the log: ids of users and items, and times."""
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
        """The log without exact repetitions, so many users at a time, in the order of their first rows."""
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
    """Distinct ids in the order in which they come."""

    def __init__(self) -> None:
        self.ids = pa.array([], pa.string())

    def numbers(self, column: pa.ChunkedArray) -> np.ndarray:
        """The number of each row's id; ids that are new get the next ones."""
        distinct, rows = number_ids(column)
        ids = pa.array(distinct, pa.string())
        known = pc.index_in(ids, value_set=self.ids)
        new = known.is_null()
        numbers = pc.fill_null(known, 0).to_numpy(zero_copy_only=False).copy()
        numbers[new.to_numpy(zero_copy_only=False)] = len(self.ids) + np.arange(known.null_count)
        self.ids = pa.concat_arrays([self.ids, ids.filter(new)])
        return numbers[rows]


def spill_parquet(path: Path, options: SourceOptions) -> tuple[SpilledLog, Malformed] | None:
    """Reads a log of parquet as [`read_parquet`] does, a part at a time; none if its times are text.

    What a text means as a time depends on the whole column, so that such a log is to be read whole.

    Args:
        path (`Path`): a file, or a folder of such files.
        options ([`SourceOptions`]): names of columns, and how many rows may be malformed.

    Returns:
        [`SpilledLog`], and what was left out.

    Raises:
        ValueError: no parquet, missing columns, too many malformed rows, or no row.
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
        for batch in batches:
            part = Malformed(path, unit="row")
            rows = usable_rows(LogTable(pa.Table.from_batches([batch]), part, columns))
            for number, reason in part.first:
                malformed.show(malformed.rows + number, reason)
            malformed.count += part.count
            malformed.rows += len(batch)
            log.add(rows.users, rows.items, rows.times)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} can't be read as parquet: {error}; check --format and the file.") from error
    malformed.check(options.max_malformed)
    if not len(log.users.ids):
        raise empty_log(path)
    return log, malformed


def _is_moment(kind: pa.DataType) -> bool:
    """Whether values of a type are times one by one."""
    is_date = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    return is_date or pa.types.is_signed_integer(kind) or pa.types.is_floating(kind)
