"""Readers of tables with one interaction per row: CSV, RecBole, parquet, data sets on the Hub, tables in memory."""

import sys
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq

from ..hub_ids import split_revision
from ..wording import counted
from .columns import find_columns, is_log, kind_of_ids, without_views
from .csv_table import csv_table, find_separator, may_hold_rows, rows_inside
from .item_columns import FIRST_ROWS, steady_columns, tellers
from .log_table import LogTable, source_of_table
from .source import LogColumns, Malformed, Source, SourceOptions

if TYPE_CHECKING:
    from datasets import Dataset, Features
    from pandas import DataFrame

# Files of folders that `save_to_disk` wrote, for one split and for several; each with the options that choose the data
SAVED: dict[str, tuple[str, ...]] = {"state.json": (), "dataset_dict.json": ("hub_split",)}

InMemory: TypeAlias = "pa.Table | Dataset | DataFrame"

# columns of RecBole's `.item` files, which are named in the words of each data set, and our names for them
RECBOLE_NAMES = {"movie_title": "title", "item_name": "title", "genre": "categories", "class": "categories"}


def read_csv(path: Path, options: SourceOptions, aliases: dict[str, str] | None = None) -> Source:
    """Reads delimited text with a header, packed or not; ids and texts are taken as they are written.

    Args:
        path (`Path`): the file.
        options ([`SourceOptions`]): names of columns, and the separator; by default [`find_separator`] finds it.
        aliases (`dict[str, str]`, *optional*): further names of columns in the file `options.items`, as in
            [`text_columns`].

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that isn't CSV.
        ValueError: missing columns, or too many malformed rows.
    """
    malformed = Malformed(path, unit="row")
    separator = options.separator or find_separator(path, lambda names: is_log(names, options))

    def needed(names: list[str]) -> list[str]:
        return find_columns(names, path, options).needed()

    def besides(first_rows: pa.Table) -> list[str]:
        return _steady(first_rows, find_columns(first_rows.column_names, path, options), path)

    found = csv_table(path, separator, malformed, needed, besides)
    log = LogTable(found.table, malformed, find_columns(found.names, path, options), found.left_out)
    return source_of_table(log, options, aliases)


def read_recbole(path: Path, options: SourceOptions) -> Source:
    """Reads RecBole's atomic files: `NAME.inter`, and for texts `NAME.item` in the same folder.

    `path` is the `.inter` file or a folder with one.

    Raises:
        FileNotFoundError: no `.inter`, or several.
        ValueError: the errors of [`read_csv`].
    """
    found = sorted(path.glob("*.inter")) if path.is_dir() else [path]
    of_splits = {file.name.removesuffix(".inter").rpartition(".")[2] for file in found} & {"train", "valid", "test"}
    if len(found) > 1 and len(of_splits) == len(found):
        raise ValueError(
            f"{path} holds {', '.join(file.name for file in found)}; join them into one file with a column that holds "
            "train, valid or test, name that column with --split-column, and choose --split given."
        )
    if len(found) != 1:
        raise FileNotFoundError(f"{path} holds {len(found)} files NAME.inter; give the path of the one to read.")
    items = found[0].with_suffix(".item")
    if options.items is None and items.is_file():
        options = replace(options, items=str(items))
    return read_csv(found[0], options, RECBOLE_NAMES)


def read_parquet(path: Path, options: SourceOptions) -> Source:
    """Reads the needed columns of a parquet file, or of all parquet files in a folder in the order of their paths.

    Raises:
        FileNotFoundError: no such file, or a folder without parquet files.
        ValueError: a file that isn't parquet.
        ValueError: missing columns, or too many malformed rows.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"{str(path)!r} is neither a file nor a folder with .parquet files; check the path.")
    try:
        schema = pyarrow.dataset.dataset(files, format="parquet").schema
        columns = find_columns(schema.names, path, options, _kinds(schema))
        others = tellers(schema, columns.others())
        with pq.ParquetFile(files[0]) as first:  # a pyarrow dataset would read all of its row groups
            batches = list(islice(first.iter_batches(FIRST_ROWS, columns=[columns.item, *others]), 1))
        needed = [*columns.needed(), *(_steady(pa.Table.from_batches(batches), columns, path) if batches else [])]
        texts = [name for name in needed if pa.types.is_string(schema.field(name).type)]
        # dictionary-encoded, as ids repeat: numbers take less memory than texts
        kind = pyarrow.dataset.ParquetFileFormat(dictionary_columns=texts)
        table = pyarrow.dataset.dataset(files, format=kind).to_table(columns=needed)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} can't be read as parquet: {error}; check --format and the file.") from error
    return source_of_table(LogTable(table, Malformed(path, unit="row", rows=table.num_rows), columns), options)


def read_hub(path: Path, options: SourceOptions) -> Source:
    """Reads a data set that `datasets.load_dataset` or `load_from_disk` opens.

    `path` is an id on the Hub, optionally with `@revision`, or a folder. Ids that are classes of a `ClassLabel` are
    replaced by the names of the classes. Ids in CSV files stay as they are written.

    Raises:
        FileNotFoundError: no such data set.
        ConnectionError: the Hub can't be reached.
        ValueError: no such configuration or split.
        ValueError: a configuration or split of a saved data set that has none.
        ValueError: damaged files, missing columns, or too many malformed rows.
    """
    from datasets import Features, Value  # takes a second, and other formats don't need it

    if path.is_file():
        raise ValueError(
            f"{path.as_posix()!r} is a file; give its folder, or read it with --format csv, jsonl or parquet."
        )
    data = _open_hub(path, options)
    if data.info.builder_name == "csv":
        _check_quotes(data, path)
        columns = _columns_of(data, path, options)
        ids = [name for name in (columns.user, columns.item) if isinstance(data.features[name], Value)]
        # pandas would turn 007 into the number 7
        data = _open_hub(path, options, Features({**data.features, **dict.fromkeys(ids, Value("string"))}))
    return source_of_dataset(data, path, options)


def source_of_dataset(data: "Dataset", path: Path, options: SourceOptions) -> Source:
    """Reads the log in an opened data set; errors name it by `path`.

    Raises:
        ValueError: missing columns, or too many malformed rows.
    """
    from datasets import ClassLabel

    columns = _columns_of(data, path, options)
    schema = data.features.arrow_schema
    first_rows = data.select(range(min(FIRST_ROWS, len(data)))).with_format("arrow")
    first_rows = first_rows.select_columns([columns.item, *tellers(schema, columns.others())])[:]
    table = data.select_columns([*columns.needed(), *_steady(first_rows, columns, path)]).with_format("arrow")[:]
    for row, name in enumerate(table.column_names):
        kind = data.features[name]
        if isinstance(kind, ClassLabel):
            known = pc.if_else(pc.less(table[name], 0), None, table[name])  # -1 means no class
            table = table.set_column(row, name, pc.take(pa.array(kind.names, pa.string()), known))
    return source_of_table(LogTable(table, Malformed(path, unit="row", rows=table.num_rows), columns), options)


def read_in_memory(log: "InMemory", options: SourceOptions) -> Source:
    """Reads a table in memory: a `pyarrow.Table`, a `datasets.Dataset`, or a DataFrame of pandas or polars.

    Raises:
        ValueError: several data sets, or another object.
        ValueError: columns of mixed types.
        ValueError: missing columns, or too many malformed rows.
    """
    path = Path(f"the {type(log).__name__}")
    if _is_dataset(log):
        return source_of_dataset(log, path, options)
    table = table_in_memory(log)
    columns = find_columns(table.column_names, path, options, _kinds(table.schema))
    table = table.select([*columns.needed(), *_steady(table, columns, path)])
    return source_of_table(LogTable(table, Malformed(path, unit="row", rows=table.num_rows), columns), options)


def table_in_memory(log: "InMemory") -> pa.Table:
    """Returns a table in memory as a `pyarrow.Table`, with all rows and columns.

    Raises:
        ValueError: several data sets, or another object.
        ValueError: columns of mixed types.
    """
    if _is_dataset(log):
        return log.with_format("arrow")[:]
    if not hasattr(log, "__arrow_c_stream__") or isinstance(log, pa.ChunkedArray):
        raise ValueError(
            f"the log is a {type(log).__name__}; give a path, a DataFrame, a pyarrow.Table, or one split as a "
            "datasets.Dataset."
        )
    try:
        table = pa.table(log)
    except (pa.ArrowException, TypeError) as error:
        raise ValueError(
            f"the {type(log).__name__} can't be read as a table: {' '.join(str(error).split())}; give each column one "
            "type, and ids as text."
        ) from error
    # pandas adds its row numbers, which aren't columns of the log
    names = [name for name in table.column_names if not name.startswith("__index_level_")]
    return pa.table({name: without_views(table[name]) for name in names})


def _is_dataset(log: "InMemory") -> "TypeGuard[Dataset]":
    datasets = sys.modules.get("datasets")  # a module that was never imported has no instances
    return datasets is not None and isinstance(log, datasets.Dataset)


def _columns_of(data: "Dataset", path: Path, options: SourceOptions) -> LogColumns:
    return find_columns(data.column_names, path, options, _kinds(data.features.arrow_schema))


def _kinds(schema: pa.Schema) -> dict[str, pa.DataType]:
    return {column.name: column.type for column in schema}


def _steady(first_rows: pa.Table, columns: LogColumns, path: Path) -> list[str]:
    """Returns columns that may be item columns, judging by the first rows of a log.

    Raises:
        ValueError: ids of items that are neither text nor whole numbers.
    """
    kind_of_ids(first_rows[columns.item].type, columns.item, path)
    return steady_columns(first_rows, columns.item, columns.others())


def _open_hub(path: Path, options: SourceOptions, features: "Features | None" = None) -> "Dataset":
    """Opens a data set, optionally with other types of columns."""
    from datasets import load_dataset, load_from_disk
    from datasets.exceptions import DatasetsError

    name = path.as_posix()
    repo_id, revision = split_revision(name)
    saved = next((file for file in SAVED if (path / file).is_file()), None)
    if saved is not None:
        _check_hub_options(path, options, SAVED[saved])
    try:
        if saved is not None:
            return load_from_disk(f"{name}/{options.hub_split}" if "hub_split" in SAVED[saved] else name)
        return load_dataset(repo_id, options.hub_config, split=options.hub_split, revision=revision, features=features)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no data set {name!r}: {error}; check the folder or the id.") from error
    except (ValueError, DatasetsError, RuntimeError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(
            f"the data set {name!r} can't be opened: {reason}; check its files, --hub-config and --hub-split."
        ) from error
    except OSError as error:
        raise ConnectionError(
            f"{name!r} isn't a local folder and can't be loaded from the Hub: {error}; check the id, the network and "
            "HF_HUB_OFFLINE."
        ) from error


def _check_hub_options(path: Path, options: SourceOptions, used: tuple[str, ...]) -> None:
    """Raises a `ValueError` if options are given that have no effect on a saved data set."""
    for option in fields(options):
        value = getattr(options, option.name)
        if option.name.startswith("hub_") and option.name not in used and value != option.default:
            raise ValueError(
                f"`{option.name}` is {value!r}, but has no effect on {str(path)!r}, which `save_to_disk` wrote; leave "
                "it out."
            )


def _check_quotes(data: "Dataset", path: Path) -> None:
    """Raises a `ValueError` if a cell holds rows of its CSV file, because of an open quote."""
    n_columns = len(data.column_names)
    kinds = {name: getattr(kind, "dtype", None) for name, kind in data.features.items()}
    texts = data.select_columns([name for name, kind in kinds.items() if kind in ("string", "large_string")])
    number = 0
    for batch in texts.with_format("arrow").iter(10_000):
        for column in batch.columns:
            for row in np.flatnonzero(may_hold_rows(column, n_columns)).tolist():
                text = column[row].as_py()
                inside = max(rows_inside(text, separator, n_columns) for separator in ",\t;|")  # any may be the file's
                if inside:
                    held = counted(inside, "line")
                    raise ValueError(
                        f"a quote that opens in row {number + row + 1} of {path} holds the next {held}; close "
                        "it, or double it if it is text."
                    )
        number += len(batch)
