"""A file of a table that is made shard by shard: by several processes, and on from where an interruption left it."""

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
    """A file to be, its shards in the folder `FILE.shards` until then.

    A shard is complete or absent. A manifest stands beside the shards, and later in a parquet file's metadata, so that
    only the same run goes on with them.

    Args:
        path (`str` or `Path`): the file; its ending says whether it becomes parquet, CSV or JSON lines.
        schema (`pa.Schema`): its columns.
        rows (`int`): its rows.
        shard_size (`int`): rows of a shard; the last one has the rest.
        manifest (`dict`): what the run is of, as JSON knows it.

    Raises:
        ValueError: a file with another ending.
    """

    def __init__(self, path: str | Path, schema: pa.Schema, rows: int, shard_size: int, manifest: dict):
        check_ending(path, TABLE_ENDINGS)
        self.path, self.schema, self.manifest = Path(path), schema, manifest
        self.folder = self.path.with_name(self.path.name + ".shards")
        self.rows_of = [min(shard_size, rows - start) for start in range(0, rows, shard_size)]  # each shard's rows

    def check(self, resume: bool) -> None:
        """Looks at what is already there; changes nothing.

        Raises:
            FileExistsError: a new run, and file or folder exist.
            ValueError: a run to go on with, and they are of another one; the first difference is named.
        """
        for place, read in ((self.path, _manifest_of_file), (self.folder, _manifest_of_folder)):
            if not place.exists():
                continue
            if not resume:
                raise FileExistsError(
                    f"{str(place)!r} is already there; pass --resume true to go on with its run, remove it, or name "
                    "another `output`."
                )
            found = read(place)
            for name, ours in self.manifest.items():
                if found.get(name) != ours:
                    raise ValueError(
                        f"{str(place)!r} is of another run: its `{name}` is {found.get(name)!r}, and here {ours!r}; "
                        "go on with what it was made with, remove it, or name another `output`."
                    )

    def start(self) -> None:
        """Makes the folder of shards, unless there is one."""
        if not self.folder.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with complete_or_absent(self.folder) as staging:
                (staging / MANIFEST).write_text(json.dumps(self.manifest, indent=2) + "\n", encoding="utf-8")

    def shard(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"shard-{number:05d}.parquet"

    def missing(self) -> list[int]:
        """Numbers of the shards that are absent or damaged; none if the file is there."""
        return [] if self.path.exists() else [n for n in range(len(self.rows_of)) if not self._is_whole(n)]

    def write(self, number: int, table: pa.Table) -> None:
        """Writes a shard."""
        replace_file(self.shard(number), lambda beside: pq.write_table(table, beside, write_page_checksum=True))

    def finish(self) -> None:
        """Joins the shards, one after the other, unless the file is there, and removes their folder."""
        if not self.path.exists():
            replace_file(self.path, self._join)
        shutil.rmtree(self.folder, ignore_errors=True)

    def tables(self) -> Iterator[pa.Table]:
        """The rows in their order, when no shard is missing: those of the shards, or of the file if it is there."""
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
        except (pa.ArrowException, OSError):  # of a wrong checksum, or no file
            return False


def _manifest_of_file(path: Path) -> dict:
    if path.suffix != ".parquet":
        raise ValueError(
            f"{str(path)!r} is there, and only a .parquet file says of which run it is; remove it, or name another "
            "`output`."
        )
    try:
        return json.loads((pq.read_schema(path).metadata or {})[MANIFEST_KEY])
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(
            f"{str(path)!r} is no finished run of this command; remove it, or name another `output`."
        ) from error


def _manifest_of_folder(folder: Path) -> dict:
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{str(folder)!r} holds no {MANIFEST} that can be read, so what it is of isn't known; remove it, or name "
            "another `output`."
        ) from error
