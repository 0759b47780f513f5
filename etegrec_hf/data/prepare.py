"""From a log on disk to a prepared dataset."""

from pathlib import Path

import numpy as np

from .embeddings import cooccurrence_embedding, read_embeddings
from .folders import check_output_dir
from .interactions import MIN_LENGTH, Interactions, drop_short_users, k_core
from .prepared import write_prepared
from .sources import READERS, Columns
from .splits import SPLITTERS, SplitRows


def prepare(
    path: str | Path,
    format: str,
    output_dir: str | Path,
    min_count: int = 5,
    split: str = "leave-one-out",
    embedding: str | None = None,
    columns: Columns = Columns(),  # noqa: B008 - frozen
    max_history: int = 50,
    seed: int = 0,
) -> dict:
    """Reads, filters, splits and writes.

    Args:
        path (`str` or `Path`): the log.
        format (`str`): `letter`, `csv`, `jsonl` or `parquet`.
        output_dir (`str` or `Path`): a new folder.
        min_count (`int`, *optional*, defaults to 5): k-core: interactions that every user and item must have.
        split (`str`, *optional*, defaults to `"leave-one-out"`): or `"time"`.
        embedding (`str`, *optional*): `"cooccurrence"`, or a file as in [`read_embeddings`]; none by default.
        columns ([`Columns`], *optional*): names of a table's columns.
        max_history (`int`, *optional*, defaults to 50): items that histories keep, the last ones.
        seed (`int`, *optional*, defaults to 0): of the embedding.

    Returns:
        `dict` of what was read, dropped and written.

    Raises:
        ValueError: an unknown format or split, empty or broken data; see the readers.
        FileExistsError: `output_dir` holds something.
    """
    if format not in READERS:
        raise ValueError(f"`format` is {format!r}; choose one of {', '.join(READERS)}.")
    if split not in SPLITTERS:
        raise ValueError(f"`split` is {split!r}; choose one of {', '.join(SPLITTERS)}.")
    check_output_dir(output_dir)
    source = READERS[format](Path(path), columns)
    log = source.interactions
    core = k_core(log, min_count)
    interactions = drop_short_users(core)
    # a user who is too short anyway counts as that, whatever the k-core does with them
    left_out = ~np.isin(log.user_ids, core.user_ids) & (np.diff(log.starts) >= MIN_LENGTH)
    below_min_count = int(left_out.sum())
    too_short = len(log.user_ids) - len(interactions.user_ids) - below_min_count
    rows = SPLITTERS[split](interactions)
    embeddings = None
    if embedding == "cooccurrence":
        sequences, offsets = training_sequences(interactions, rows["train"])
        embeddings = cooccurrence_embedding(sequences, offsets, len(interactions.item_ids), seed=seed)
    elif embedding is not None:
        embeddings = read_embeddings(Path(embedding), interactions.item_ids.tolist(), log.item_ids.tolist())
    lengths = np.diff(interactions.starts)
    cells = len(interactions.user_ids) * len(interactions.item_ids)
    statistics = {
        "source": Path(path).name,
        "order": source.order,
        "split": split,
        "min_count": min_count,
        "users": len(interactions.user_ids),
        "items": len(interactions.item_ids),
        "interactions": len(interactions.users),
        "sparsity": round(1 - len(interactions.users) / cells, 6),
        "shortest_history": int(lengths.min()),
        "mean_length": round(float(lengths.mean()), 2),
        "longest_history": int(lengths.max()),
        "users_read": len(log.user_ids),
        "items_read": len(log.item_ids),
        "interactions_read": len(log.users),
        f"users_below_{MIN_LENGTH}_interactions_dropped": too_short,
        "users_below_min_count_dropped": below_min_count,
        "items_dropped": len(log.item_ids) - len(interactions.item_ids),
        "embedding": Path(embedding).name if embedding else "none",
        **{f"{name}_rows": len(split_rows.start) for name, split_rows in rows.items()},
    }
    if embeddings is not None:
        statistics["embedding_width"] = embeddings.shape[1]
        statistics["items_with_zero_embedding"] = int((~embeddings.any(axis=1)).sum())
    write_prepared(
        output_dir, interactions, rows, source.texts, embeddings, statistics, max_history, source.item_tokens
    )
    return statistics


def training_sequences(interactions: Interactions, train: SplitRows) -> tuple[np.ndarray, np.ndarray]:
    """Item rows of all training sequences one after the other, `[n]`, and where each starts, `[rows + 1]`."""
    lengths = train.target + 1 - train.start
    offsets = np.concatenate([[0], lengths.cumsum()])
    positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - train.start, lengths)
    return interactions.items[positions], offsets
