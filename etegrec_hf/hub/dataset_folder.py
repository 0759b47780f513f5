"""Prepared datasets on the Hub: publishing a dataset, and loading a dataset by its id."""

import json
import re
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import datasets
import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from ..data.dataset_card import UNKNOWN, dataset_card, license_of
from ..data.hub_ids import split_revision
from ..data.named_embeddings import embedding_names, read_embedding
from ..data.prepared import PreparedDataset
from ..data.splits import SPLIT_NAMES
from .client import HUB_ID, cached_repository, hub_errors
from .repository import RepositoryOptions, open_repository


def local_dataset(name: str, splits: tuple[str, ...] = SPLIT_NAMES) -> str:
    """Returns the folder of that name, or the folder in the cache that the Hub's dataset is downloaded to.

    Args:
        name (`str`): a folder, `user/name` or `user/name@revision`.
        splits (`tuple[str, ...]`, *optional*): the splits that are downloaded.

    Raises:
        ValueError: the name is empty.
        FileNotFoundError: there is neither a folder nor a dataset of that name.
        ConnectionError: there is no such folder, and the connection to the Hub broke.
    """
    if not name:
        raise ValueError("the dataset is named by '', an empty text; name a folder, or `user/name` on the Hub.")
    if Path(name).exists() or not re.fullmatch(HUB_ID, name):
        return name  # whoever reads the folder says what is wrong with it
    patterns = [f"sequences/{split}.parquet" for split in splits]
    patterns += ["items/*.parquet", "embeddings/*.parquet", "statistics.json"]
    return cached_repository(name, "dataset", patterns)


def load_prepared(name: str, stream: bool = False, map_embeddings: bool = False) -> PreparedDataset:
    """Loads a prepared dataset from a folder or from the Hub.

    Args:
        name (`str`): a folder, or `user/name`.
        stream (`bool`, *optional*, defaults to `False`): whether to leave the training sequences out. Training then
            reads [`training_files`] instead.
        map_embeddings (`bool`, *optional*, defaults to `False`): see [`PreparedDataset.load`].

    Raises:
        FileNotFoundError, ConnectionError: as [`local_dataset`].
        ValueError: as [`PreparedDataset.load`].
    """
    splits = SPLIT_NAMES[1:] if stream else SPLIT_NAMES
    return PreparedDataset.load(local_dataset(name, splits), splits, map_embeddings)


def load_with_embeddings(
    name: str, stream: bool = False, map_embeddings: bool = False
) -> tuple[PreparedDataset, torch.FloatTensor]:
    """Loads a prepared dataset as [`load_prepared`] does, and its embeddings `[n_items, width]`.

    Raises:
        ValueError: the dataset has no embeddings.
    """
    data = load_prepared(name, stream, map_embeddings)
    if data.embeddings is None:
        raise ValueError(
            f"{name} holds no `embedding`; make one with `etegrec embed`, or prepare the log again with --embedding."
        )
    return data, torch.from_numpy(data.embeddings)


def training_files(name: str) -> list[str]:
    """Returns the parquet files of training rows in a folder, or those of the Hub's newest dataset of that name.

    Files on the Hub aren't downloaded: each is an address that `fsspec` opens.

    Raises:
        FileNotFoundError, ConnectionError: as [`local_dataset`].
        ValueError: the name is a folder with a revision.
    """
    repo_id, revision = split_revision(name)
    with hub_errors(name):
        builder = datasets.load_dataset_builder(repo_id, "sequences", revision=revision)
        return list(builder.config.data_files["train"])


def publish_dataset(folder: str | Path, repo_id: str, repository: RepositoryOptions | None = None) -> str:
    """Sends a prepared dataset to the Hub, where `datasets.load_dataset` opens it.

    The dataset is loaded and checked, and one commit is made: the repository has all of it or nothing. The card is
    written anew; its license stays unless another license is given.

    Args:
        folder (`str` or `Path`): the dataset; the folder isn't changed.
        repo_id (`str`): `user/name`, or a name in your own namespace.
        repository ([`RepositoryOptions`], *optional*): privacy of a new repository, branch, license.

    Returns:
        the commit's address.

    Raises:
        FileNotFoundError, ValueError: a file of the dataset is missing or damaged.
        ValueError: the repository is public, and `private` is True.
        PermissionError, ConnectionError: see [`hub_errors`].
    """
    folder = Path(folder)
    data = PreparedDataset.load(folder)
    embeddings = embedding_names(folder)
    for name in embeddings:
        read_embedding(folder, name, data.item_ids)  # raises what is wrong with it
    repository = repository or RepositoryOptions()
    statistics, revision = data.statistics, repository.revision
    with tempfile.TemporaryDirectory() as temporary, hub_errors(repo_id, f" {str(folder)!r} is as it was."):
        client = HfApi()
        repo_id, there = open_repository(client, repo_id, "dataset", repository)
        said: str | list[str] = UNKNOWN
        if "README.md" in there:  # a license that was given earlier stays
            path = client.hf_hub_download(repo_id, "README.md", repo_type="dataset", revision=revision)
            said = license_of(Path(path).read_text(encoding="utf-8"))
        known = said if said != UNKNOWN else statistics.get("license", UNKNOWN)
        statistics = statistics | {"license": repository.license or known}
        card, figures = Path(temporary, "README.md"), Path(temporary, "statistics.json")
        card.write_text(dataset_card(folder, repo_id, statistics), encoding="utf-8")
        figures.write_text(json.dumps(statistics, indent=2) + "\n", encoding="utf-8")
        files = {card.name: card, figures.name: figures}
        parts = [f"sequences/{name}.parquet" for name in SPLIT_NAMES] + ["items/items.parquet"]
        parts += [f"embeddings/{name}.parquet" for name in embeddings]
        files |= {part: folder / part for part in parts}
        operations: list = [CommitOperationAdd(name, path) for name, path in files.items()]
        # embeddings that this dataset doesn't have any more
        stale = sorted(name for name in there - set(files) if fnmatch(name, "embeddings/*.parquet"))
        operations += [CommitOperationDelete(name) for name in stale]
        return client.create_commit(
            repo_id,
            operations,
            commit_message="Upload prepared dataset",
            repo_type="dataset",
            revision=revision,
        ).commit_url
