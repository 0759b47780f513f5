"""Text embeddings of items, by any sentence-transformers model."""

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

CHUNK = 512  # items whose embeddings are kept at a time


def item_texts(items: pa.Table, template: str) -> list[str]:
    """The text of each item, by a template like `"{title} {description}"`.

    Names in braces stand for columns; nothing else in a template has a meaning, and nothing in the texts has. An item
    whose columns are all empty has the text "".

    Args:
        items (`pa.Table`): a dataset's items.
        template (`str`): with one column or more.

    Raises:
        ValueError: a template without columns, with columns that don't exist, or with more than names in braces; or no
            item has a text.

    >>> item_texts(pa.table({"title": ["<b>{x}</b>", None], "brand": ["A  B", "C"]}), "{title} by {brand}")
    ['<b>{x}</b> by A B', 'by C']
    """
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"`text` is {template!r}, no template ({error}); write one like '{{title}}'.") from error
    columns = [field for _, field, _, _ in pieces if field is not None]
    if not columns:
        raise ValueError(f"`text` is {template!r} and names no column of the items; write one like '{{title}}'.")
    there = [column.name for column in items.schema if pa.types.is_string(column.type)]
    for _, field, specification, conversion in pieces:
        if specification or conversion:
            raise ValueError(
                f"`text` is {template!r}, and braces hold more than a name; leave ':' and '!' out of them."
            )
        if field is not None and field not in there:
            near = get_close_matches(field, there, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"choose among {there}."
            raise ValueError(f"`text` is {template!r}, and the items have no texts {field!r}; {remedy}")
    values = {name: ["" if value is None else str(value) for value in items[name].to_pylist()] for name in columns}
    if not any(any(column) for column in values.values()):
        raise ValueError(f"`text` is {template!r}, and no item has a text in {columns}; name other columns.")
    texts = []
    for cells in zip(*(values[name] for name in columns)):
        following = iter(cells)
        text = "".join(before + (next(following) if name is not None else "") for before, name, _, _ in pieces)
        texts.append(" ".join(text.split()) if any(cells) else "")
    return texts


def check_texts(folder: str | Path, model: str | None, template: str) -> None:
    """Raises the errors that [`embed_texts`] would raise for a template and, if it is given, for a model."""
    item_texts(read_items(Path(folder)), template)
    if model is not None:
        _encoder(model)


def embed_texts(
    folder: str | Path, model: str, template: str, name: str = "text", batch_size: int = 64
) -> NamedEmbedding:
    """Embeds a dataset's items by their texts, and writes the embedding into the dataset.

    What is done is kept beside it while it goes on, so that an interrupted call goes on where it was.

    Args:
        folder (`str` or `Path`): a prepared dataset with texts.
        model (`str`): a sentence-transformers model: a folder, or an id on the Hub, maybe with `@revision`.
        template (`str`): see [`item_texts`].
        name (`str`, *optional*, defaults to `"text"`): of the embedding.
        batch_size (`int`, *optional*, defaults to 64): texts at a time.

    Returns:
        [`NamedEmbedding`] of the model's width; items without any text are 0.

    Raises:
        FileNotFoundError: no such dataset or model.
        ValueError: see [`item_texts`]; a model that is damaged; sentence-transformers isn't installed.
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
    values[[not text for text in texts]] = 0  # nothing is known of them
    part = NamedEmbedding(name, values, made)
    write_embedding(folder, part, items["item_id"].to_pylist())
    shutil.rmtree(unfinished, ignore_errors=True)
    return part


def _fingerprint(model: str) -> list:
    """What tells a model from others: its id, or its folder and the sizes and dates of the files there."""
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
    except Exception as error:  # a damaged model breaks its readers anywhere, with errors of any kind
        what = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        if Path(model).is_dir():
            raise ValueError(
                f"the folder {model!r} holds no whole sentence-transformers model: {what}; copy it again, or name "
                "another."
            ) from error
        raise FileNotFoundError(
            f"{model!r} is no sentence-transformers model, neither a folder nor an id that the Hub gives: {what}; "
            "check the name or the connection."
        ) from error


def _is_whole(path: Path) -> bool:
    """Whether embeddings are there that an earlier call kept, and that can be used."""
    try:
        return bool(np.isfinite(read_array(path)).all())
    except (FileNotFoundError, ValueError):
        return False


def _save(values: np.ndarray, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, values.astype(np.float32))
