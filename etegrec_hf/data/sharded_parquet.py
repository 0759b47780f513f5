"""A table file that is written shard by shard, by several processes, and can be continued after an interruption."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .folders import complete_or_absent, replace_file
from .table_files import TABLE_ENDINGS, check_ending, write_tables

MANIFEST = "manifest.json"  # in the shards' folder
MANIFEST_KEY = b"etegrec_hf"  # in the finished file's metadata


class ShardedParquet:
    """A file that is written as shards, which are kept in the folder `FILE.shards` until all are there.

    A shard is complete or absent. The folder also holds a manifest, which later goes into the metadata of a parquet
    file. By the manifest, only the same run continues with the shards.

    Args:
        path (`str` or `Path`): the file; its ending chooses parquet, CSV or JSON lines.
        schema (`pa.Schema`): columns of the file.
        rows (`int`): number of rows of the file.
        shard_size (`int`): rows per shard; the last shard has the rest.
        manifest (`dict`): description of the run, of values that JSON can hold.

    Raises:
        ValueError: a file with another ending.
    """

    def __init__(self, path: str | Path, schema: pa.Schema, rows: int, shard_size: int, manifest: dict):
        check_ending(path, TABLE_ENDINGS)
        self.path, self.schema, self.manifest = Path(path), schema, manifest
        self.folder = self.path.with_name(self.path.name + ".shards")
        self.rows_of = [min(shard_size, rows - start) for start in range(0, rows, shard_size)]  # rows of each shard

    def check(self, resume: bool) -> None:
        """Checks whether this run can begin or be continued. It changes nothing.

        Args:
            resume (`bool`): whether an earlier run is to be continued.

        Raises:
            FileExistsError: file or folder exist, and no run is to be continued.
            ValueError: file or folder belong to another run; the error names the first difference.
        """
        for place, read in ((self.path, _manifest_of_file), (self.folder, _manifest_of_folder)):
            if not place.exists():
                continue
            if not resume:
                is_known = place == self.folder or place.suffix == ".parquet"  # another file doesn't tell its run
                remedy = "pass --resume true to continue its run, remove it," if is_known else "remove it,"
                raise FileExistsError(f"{str(place)!r} already exists; {remedy} or name another `output`.")
            found = read(place)
            for name, ours in self.manifest.items():
                if found.get(name) != ours:
                    raise ValueError(
                        f"{str(place)!r} belongs to another run: its `{name}` is {found.get(name)!r}, but this run's "
                        f"is {ours!r}; continue with the same value, remove it, or name another `output`."
                    )

    def start(self) -> None:
        """Makes the folder of shards, unless it exists."""
        if not self.folder.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with complete_or_absent(self.folder) as staging:
                (staging / MANIFEST).write_text(json.dumps(self.manifest, indent=2) + "\n", encoding="utf-8")

    def shard(self, number: int) -> Path:
        """Returns the path of a shard."""
        return self.folder / f"shard-{number:05d}.parquet"

    def missing(self) -> list[int]:
        """Returns the numbers of shards that are absent or damaged; none if the whole file exists."""
        return [] if self.path.exists() else [n for n in range(len(self.rows_of)) if not self._is_whole(n)]

    def write(self, number: int, table: pa.Table) -> None:
        """Writes a shard."""
        replace_file(self.shard(number), lambda beside: pq.write_table(table, beside, write_page_checksum=True))

    def finish(self) -> None:
        """Joins the shards to the file, unless it exists, and removes their folder."""
        if not self.path.exists():
            replace_file(self.path, self._join)
        shutil.rmtree(self.folder, ignore_errors=True)

    def tables(self) -> Iterator[pa.Table]:
        """Yields the rows in order, from the file if it exists, otherwise from the shards, none of which may miss."""
        if self.path.exists():
            for batch in pq.ParquetFile(self.path).iter_batches():
                yield pa.Table.from_batches([batch])
        else:
            yield from self._shards()

    def _join(self, path: Path) -> None:
        schema = self.schema.with_metadata({MANIFEST_KEY: json.dumps(self.manifest)})
        write_tables(path, self.path.suffix, schema, self._shards())

    def _shards(self) -> Iterator[pa.Table]:
        return map(self._read, range(len(self.rows_of)))

    def _read(self, number: int) -> pa.Table:
        with pq.ParquetFile(self.shard(number), page_checksum_verification=True) as file:
            return file.read()

    def _is_whole(self, number: int) -> bool:
        try:
            return len(self._read(number)) == self.rows_of[number]
        except (pa.ArrowException, OSError):  # a wrong checksum, or no file
            return False


def _manifest_of_file(path: Path) -> dict:
    if path.suffix != ".parquet":
        raise ValueError(
            f"{str(path)!r} already exists, and only a .parquet file tells which run wrote it; remove it, or name "
            "another `output`."
        )
    try:
        return json.loads((pq.read_schema(path).metadata or {})[MANIFEST_KEY])
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(
            f"{str(path)!r} wasn't written by this command; remove it, or name another `output`."
        ) from error


def _manifest_of_folder(folder: Path) -> dict:
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{str(folder)!r} holds no readable {MANIFEST}, so its run isn't known; remove it, or name another "
            "`output`."
        ) from error
