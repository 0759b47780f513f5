"""Text embeddings of items, made by any sentence-transformers model."""

import hashlib
import json
import shutil
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from string import Formatter

import numpy as np
import pyarrow as pa

from .embedding_files import read_array
from .folders import replace_file
from .hub_ids import split_revision
from .named_embeddings import NamedEmbedding, check_name, embedding_file, write_embedding
from .prepared import read_items
from .progress import WorkProgress

CHUNK = 512  # items whose embeddings are written to disk together


def item_texts(items: pa.Table, template: str) -> list[str]:
    """Makes the text of each item by a template such as `"{title} {description}"`.

    Names in braces are replaced by columns. Nothing else in a template has a special meaning, and nothing in the texts
    has. An item whose columns are all empty gets the text "".

    Args:
        items (`pa.Table`): a dataset's items.
        template (`str`): a template with at least one column.

    Raises:
        ValueError: a template without columns, or with columns that don't exist.
        ValueError: a template with more than a name in braces.
        ValueError: no item has a text.

    >>> item_texts(pa.table({"title": ["<b>{x}</b>", None], "brand": ["A  B", "C"]}), "{title} by {brand}")
    ['<b>{x}</b> by A B', 'by C']
    """
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(
            f"`text` is {template!r}, which isn't a template ({error}); write a column's name in braces: '{{title}}'."
        ) from error
    columns = [field for _, field, _, _ in pieces if field is not None]
    if not columns:
        raise ValueError(
            f"`text` is {template!r} and names no column of the items; write a column's name in braces: '{{title}}'."
        )
    there = [column.name for column in items.schema if pa.types.is_string(column.type)]
    for _, field, specification, conversion in pieces:
        if specification or conversion:
            raise ValueError(
                f"`text` is {template!r}, with more than a name in braces; leave ':' and '!' out of braces."
            )
        if field is not None and field not in there:
            near = get_close_matches(field, there, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"choose among {there}."
            raise ValueError(f"`text` is {template!r}, but the items have no column of texts {field!r}; {remedy}")
    values = {name: ["" if value is None else str(value) for value in items[name].to_pylist()] for name in columns}
    if not any(any(column) for column in values.values()):
        raise ValueError(f"`text` is {template!r}, but no item has a text in {columns}; name other columns.")
    texts = []
    for cells in zip(*(values[name] for name in columns)):
        following = iter(cells)
        text = "".join(before + (next(following) if name is not None else "") for before, name, _, _ in pieces)
        texts.append(" ".join(text.split()) if any(cells) else "")
    return texts


def check_texts(folder: str | Path, model: str | None, template: str) -> None:
    """Raises the errors that [`embed_texts`] would raise for a template and, unless it is `None`, for a model."""
    item_texts(read_items(Path(folder)), template)
    if model is not None:
        _encoder(model)


def embed_texts(
    folder: str | Path, model: str, template: str, name: str = "text", batch_size: int = 64
) -> NamedEmbedding:
    """Embeds the texts of a dataset's items, and writes the embedding into the dataset.

    Parts that are done are kept in the dataset's folder, so that an interrupted call can be repeated to continue.

    Args:
        folder (`str` or `Path`): a prepared dataset with texts.
        model (`str`): a sentence-transformers model: a folder, or an id on the Hub, optionally with `@revision`.
        template (`str`): template of an item's text, see [`item_texts`].
        name (`str`, *optional*, defaults to `"text"`): name of the embedding.
        batch_size (`int`, *optional*, defaults to 64): texts per batch.

    Returns:
        [`NamedEmbedding`] of the model's width; rows of items without any text are 0.

    Raises:
        FileNotFoundError: no such dataset or model.
        ValueError: the errors of [`item_texts`].
        ValueError: a damaged model.
        ValueError: sentence-transformers isn't installed.
    """
    check_name(name)
    folder = Path(folder)
    items = read_items(folder)
    texts = item_texts(items, template)
    made = {"model": Path(model).name if Path(model).is_dir() else model, "text": template}
    key = hashlib.sha256(json.dumps([_fingerprint(model), template, texts]).encode()).hexdigest()[:16]
    unfinished = embedding_file(folder, name).with_name(f".{name}")
    done = unfinished / key
    starts = range(0, len(texts), CHUNK)
    missing = [start for start in starts if not _is_whole(done / f"{start}.npy")]
    if missing:
        encoder = _encoder(model)
        done.mkdir(parents=True, exist_ok=True)
        with WorkProgress() as progress:
            chunks = {start: texts[start : start + CHUNK] for start in missing}
            task = progress.begin("embedding", sum(map(len, chunks.values())), "texts")
            for start, chunk in chunks.items():
                values = encoder.encode(chunk, batch_size=batch_size, show_progress_bar=False)
                replace_file(done / f"{start}.npy", partial(_save, values))
                progress.work_done(task, len(chunk))
    values = np.concatenate([read_array(done / f"{start}.npy") for start in starts])
    values[[not text for text in texts]] = 0  # items without a text
    part = NamedEmbedding(name, values, made)
    write_embedding(folder, part, items["item_id"].to_pylist())
    shutil.rmtree(unfinished, ignore_errors=True)
    return part


def _fingerprint(model: str) -> list:
    """Returns values that identify a model: its id, or its folder and the files' sizes and dates."""
    folder = Path(model)
    if not folder.is_dir():
        return [model]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [str(folder.resolve()), *((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)]


def _encoder(model: str):
    repo_id, revision = split_revision(model)
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ValueError(
            "text embeddings need sentence-transformers; install it with `pip install 'etegrec_hf[text]'`."
        ) from error
    try:
        return SentenceTransformer(repo_id, revision=revision)
    except Exception as error:  # readers of a damaged model raise errors of any kind
        what = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        if Path(model).is_dir():
            raise ValueError(
                f"the folder {model!r} doesn't hold a complete sentence-transformers model: {what}; copy it again, or "
                "name another."
            ) from error
        raise FileNotFoundError(
            f"{model!r} isn't a sentence-transformers model, neither a folder nor an id that can be loaded from the "
            f"Hub: {what}; check the name or the connection."
        ) from error


def _is_whole(path: Path) -> bool:
    """Returns whether an earlier call kept embeddings in this file that can be used."""
    try:
        return bool(np.isfinite(read_array(path)).all())
    except (FileNotFoundError, ValueError):
        return False


def _save(values: np.ndarray, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, values.astype(np.float32))
