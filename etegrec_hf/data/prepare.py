"""From a log on disk to a prepared dataset."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .checks import check_choice, check_positive, check_seed
from .cooccurrence import cooccurrence_embedding
from .embedding_files import COOCCURRENCE, check_embedding_file, read_embeddings
from .folders import check_output_dir
from .interactions import DUPLICATES, Interactions, drop_repeated, k_core
from .named_embeddings import NORMALIZATIONS, NamedEmbedding
from .prepared import ItemFeatures, write_prepared
from .sources import AUTO, ROW_ORDER, InMemory, Source, SourceOptions, read_source
from .sources.column_names import notes_of_unused
from .sources.doubts import notes_of_ids
from .splits import MIN_LENGTHS, SPLITTERS, SplitRows, positions_of
from .wording import numbered


def prepare(
    log: "str | Path | InMemory",
    output_dir: str | Path,
    format: str = AUTO,
    min_count: int = 5,
    split: str = "leave-one-out",
    duplicates: str = "exact",
    embedding: str | list[str] | None = None,
    normalize: str = "none",
    options: SourceOptions = SourceOptions(),  # noqa: B008 - frozen
    max_history: int = 50,
    license: str = "unknown",
    seed: int = 0,
) -> dict:
    """Reads, filters and splits a log, and writes it as a prepared dataset.

    Args:
        log (`str`, `Path` or a table): a file, a folder, or an id on the Hub; or a table in memory: a DataFrame, a
            `pyarrow.Table` or a `datasets.Dataset`.
        output_dir (`str` or `Path`): a new folder.
        format (`str`, *optional*, defaults to `"auto"`): a key of `READERS`; by default the format is recognised.
        min_count (`int`, *optional*, defaults to 5): smallest number of interactions per user and item; users and
            items with fewer are dropped (k-core).
        split (`str`, *optional*, defaults to `"leave-one-out"`): a key of `SPLITTERS`.
        duplicates (`str`, *optional*, defaults to `"exact"`): repeated interactions that are dropped before the
            k-core, see [`drop_repeated`].
        embedding (`str` or `list[str]`, *optional*): `"cooccurrence"`, or files as in [`read_embeddings`]; several
            embeddings are concatenated.
        normalize (`str`, *optional*, defaults to `"none"`): normalisation of each embedding, as in [`fuse`].
        options ([`SourceOptions`], *optional*): options for reading the log.
        max_history (`int`, *optional*, defaults to 50): number of last items that validation and test histories keep.
        license (`str`, *optional*, defaults to `"unknown"`): license of the data, as the Hub abbreviates it.
        seed (`int`, *optional*, defaults to 0): random seed of the co-occurrence embedding.

    Returns:
        `dict`: statistics of the data that was read, dropped and written; and `malformed` and `notes`, lists of
        sentences for the user.

    Raises:
        ValueError: an unknown format, split, normalisation or kind of duplicates.
        ValueError: `min_count` or `max_history` below 1.
        ValueError: a normalisation without an embedding, or a column of splits without the split `given`.
        ValueError: empty or damaged data, see the readers.
        FileNotFoundError: nothing at the path.
        FileExistsError: `output_dir` isn't empty.
    """
    check_choice("split", split, SPLITTERS)
    check_choice("normalize", normalize, NORMALIZATIONS)
    check_choice("duplicates", duplicates, DUPLICATES)
    check_seed(seed)
    if normalize != "none" and not embedding:
        raise ValueError(f"`normalize` is {normalize!r}, but there is no `embedding` to normalize; give one.")
    if options.split_column is not None and split != "given":
        raise ValueError(
            f"`split_column` is {options.split_column!r}, but has no effect on the split {split!r}; pass --split "
            "given, or leave the column out."
        )
    for name, number in (("min_count", min_count), ("max_history", max_history)):
        check_positive(name, number)
    named = _names_of([embedding] if isinstance(embedding, (str, Path)) else embedding or [])
    for origin in named.values():
        if origin != COOCCURRENCE:
            check_embedding_file(Path(origin))
    check_output_dir(output_dir)
    source, format = read_source(log, format, options)
    read = source.interactions
    distinct = drop_repeated(read, duplicates)
    least = MIN_LENGTHS[split]
    interactions = k_core(distinct, min_count, least)
    rows = SPLITTERS[split](interactions)
    item_ids = interactions.item_ids.tolist()
    texts = source.read_texts(item_ids)
    columns = _item_columns(source, interactions)
    embeddings = [
        _embedding(name, origin, source, interactions, rows["train"], seed) for name, origin in named.items()
    ]
    # if one interaction is enough for the split, users without any are counted as below `min_count`
    too_short = int((np.diff(read.starts) < least).sum()) if least > 1 else 0
    file = source.items_file
    malformed = [*source.malformed, *([file.malformed] if file else [])]
    lengths = np.diff(interactions.starts)
    cells = len(interactions.user_ids) * len(interactions.item_ids)
    statistics = {
        "source": Path(log).name if isinstance(log, (str, Path)) else f"a {type(log).__name__} in memory",
        "format": format,
        **({"columns": str(source.columns)} if source.columns else {}),
        "license": license,
        "order": source.order,
        "split": split,
        "min_count": min_count,
        "users": len(interactions.user_ids),
        "items": len(interactions.item_ids),
        "interactions": len(interactions.users),
        "sparsity": round(1 - len(interactions.users) / cells, 6),
        "shortest_sequence": int(lengths.min()),
        "median_sequence": float(np.median(lengths)),
        "mean_sequence": round(float(lengths.mean()), 2),
        "longest_sequence": int(lengths.max()),
        "users_read": len(read.user_ids),
        "items_read": len(read.item_ids),
        "interactions_read": len(read.users),
        "malformed_rows_left_out": sum(of_file.count for of_file in malformed),
        "duplicates_dropped": len(read.users) - len(distinct.users),
        **({f"users_below_{least}_interactions_dropped": too_short} if least > 1 else {}),
        "users_below_min_count_dropped": len(read.user_ids) - len(interactions.user_ids) - too_short,
        "items_dropped": len(read.item_ids) - len(interactions.item_ids),
        "users_sorted_by_time": read.users_sorted,
        "items_without_title": sum(not texts.get(item_id, {}).get("title") for item_id in item_ids),
        "items_without_texts": sum(not texts.get(item_id) for item_id in item_ids),
        **({"items_in_file_of_texts": len(file.found)} if file else {}),
        "item_columns": ", ".join(columns) or "none",
        "columns_of_log_not_used": ", ".join(source.unused) or "none",
        **({"columns_of_texts_not_used": ", ".join(file.unused()) or "none"} if file else {}),
        "embedding": "none",
        **{f"{name}_rows": len(split_rows.start) for name, split_rows in rows.items()},
    }
    features = ItemFeatures(texts, embeddings, normalize, source.item_tokens, columns)
    statistics = write_prepared(output_dir, interactions, rows, features, statistics, max_history)
    return statistics | {
        "malformed": [str(of_file) for of_file in malformed if of_file.count],
        "notes": [
            *(notes_of_unused(source.unused) if source.columns else []),
            *(file.notes(item_ids) if file else []),
            *notes_of_ids(read),
        ],
    }


def note_of_order(statistics: dict) -> str | None:
    """Returns a note if a log of rows has no time column, otherwise `None`."""
    if statistics["format"] in ("letter", "etegrec") or statistics["order"] != ROW_ORDER:
        return None
    return "no time column: the rows are taken to be in time order; if they aren't, name one with --time-column"


def _names_of(origins: list) -> dict[str, str]:
    """Returns origins of embeddings by name: the file's name, in which odd characters are replaced."""
    named: dict[str, str] = {}
    for origin in map(str, origins):
        name = re.sub(r"[^\w.-]+", "-", Path(origin).stem).strip("-.") or "file"
        named[numbered(name, named)] = origin
    return named


def _embedding(
    name: str, origin: str, source: Source, interactions: Interactions, train: SplitRows, seed: int
) -> NamedEmbedding:
    """Makes an embedding from co-occurrences in training sequences, or reads it from a file."""
    if origin == COOCCURRENCE:
        sequences, offsets = training_sequences(interactions, train)
        values = cooccurrence_embedding(sequences, offsets, len(interactions.item_ids), seed=seed)
        return NamedEmbedding(name, values, {"method": "SVD of positive pointwise mutual information", "seed": seed})
    rows, n_rows = _rows_in_log(source, interactions), len(source.interactions.item_ids)
    padded = source.embedding_rows is not None
    if source.embedding_rows is not None:
        rows, n_rows = source.embedding_rows[rows], source.n_embedding_rows or 0
    values = read_embeddings(Path(origin), interactions.item_ids.tolist(), rows, n_rows, padded)
    return NamedEmbedding(name, values, {"file": Path(origin).name})


def _rows_in_log(source: Source, interactions: Interactions) -> np.ndarray:
    """Returns each item's row among all items of the unfiltered log."""
    log_ids = pa.array(source.interactions.item_ids)
    return pc.index_in(pa.array(interactions.item_ids), value_set=log_ids).to_numpy()


def _item_columns(source: Source, interactions: Interactions) -> dict[str, pa.Array]:
    """Returns numbers and categories of the items that remain; columns of the items' file replace those of the log."""
    columns = {}
    if source.item_columns:
        rows = pa.array(_rows_in_log(source, interactions))
        columns = {name: values.take(rows) for name, values in source.item_columns.items()}
    if source.items_file:
        columns |= source.items_file.item_columns
    return columns


def training_sequences(interactions: Interactions, train: SplitRows) -> tuple[np.ndarray, np.ndarray]:
    """Returns the items of all training sequences, sequence after sequence `[n]`, and their starts `[rows + 1]`."""
    positions, offsets = positions_of(train.start, train.target + 1)
    return interactions.items[positions], offsets
