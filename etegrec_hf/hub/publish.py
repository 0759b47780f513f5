"""Publishing of a trained model on the Hub, after checks, in one commit."""

import re
import shutil
import tempfile
from importlib.metadata import requires
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from ..models import modeling_rqvae
from ..models.modeling_rqvae import RQVAEModel
from .client import hub_errors
from .eval_results import EVAL_RESULTS
from .model_card import license_in, read_card_data
from .model_folder import load_model, load_recommender, model_config, save_model_folder
from .repository import RepositoryOptions, open_repository
from .training_record import TrainingRecord

# Files that this package may have put into a repository
OWN_FILES = {"generation_config.json", "item_index.json", "item_titles.json", "tokenizer_config.json", EVAL_RESULTS}
OWN_FILES |= {path.name for path in Path(modeling_rqvae.__file__).parent.glob("*.py") if path.stem != "__init__"}


def publish(
    folder: str | Path,
    repo_id: str,
    repository: RepositoryOptions | None = None,
    without_embeddings: bool = False,
    dataset_id: str | None = None,
    endpoint: bool = False,
) -> str:
    """Sends a recommender or an item tokenizer to the Hub, with its tokenizer, code, card and training record.

    The model is loaded, checked and saved into a temporary folder, from which one commit is made: the repository has
    all of it or nothing. Files that an interrupted call has uploaded aren't sent again. The card is written anew. Its
    license and dataset stay unless others are given; the license of the folder's card is the next choice.

    Args:
        folder (`str` or `Path`): folder of the model; it isn't changed.
        repo_id (`str`): `user/name`, or a name in your own namespace.
        repository ([`RepositoryOptions`], *optional*): privacy of a new repository, branch, license.
        without_embeddings (`bool`, *optional*, defaults to `False`): whether to leave out the items' semantic
            embeddings. Only alternating training, alignment, re-ranking and the reward `semantic` need them.
        dataset_id (`str`, *optional*): the training data's id on the Hub.
        endpoint (`bool`, *optional*, defaults to `False`): whether to add `handler.py` and `requirements.txt`, with
            which Inference Endpoints run the recommender.

    Returns:
        the commit's address.

    Raises:
        FileNotFoundError, ValueError: a file in the folder is missing or damaged.
        ValueError: two items have the same codes, or tokenizer and model disagree.
        ValueError: `without_embeddings` is True, and the model needs the embeddings.
        ValueError: the repository is public, and `private` is True.
        ValueError: `endpoint` or `without_embeddings` is True, and the folder holds an item tokenizer.
        PermissionError, ConnectionError: see [`hub_errors`].
    """
    folder = Path(folder)
    if model_config(folder).get("model_type") == "etegrec":
        model, tokenizer = load_recommender(str(folder))
        _ = model.catalogue.trie  # raises what is wrong with the codes
    else:
        if endpoint:
            raise ValueError("`endpoint` is True and the folder holds an item tokenizer; give a recommender's folder.")
        if without_embeddings:
            raise ValueError(
                "`without_embeddings` is True and the folder holds an item tokenizer, which has no embeddings to "
                "leave out; omit the option, or give a recommender's folder."
            )
        model, tokenizer = load_model(RQVAEModel, str(folder)), None
    record = TrainingRecord.read(folder)
    repository = repository or RepositoryOptions()
    revision, license_name = repository.revision, repository.license
    own_license = None if license_name else license_in(folder)
    if without_embeddings:
        weights = [result.get("rerank_weight") for result in (*record.evaluations, model.config.search_settings)]
        if model.config.reads_items or any(weights):
            use = "the model's encoder reads" if model.config.reads_items else "the model's lists are ranked again by"
            raise ValueError(f"`without_embeddings` is True, but {use} the embeddings; publish them with the model.")
        model.config.has_semantic_embedding, model.catalogue.semantic_embedding = False, None
    with tempfile.TemporaryDirectory() as temporary, hub_errors(repo_id, f" {str(folder)!r} is as it was."):
        client = HfApi()
        repo_id, there = open_repository(client, repo_id, "model", repository)
        if "README.md" in there:  # a license and a dataset that were given earlier stay
            card = read_card_data(client.hf_hub_download(repo_id, "README.md", revision=revision))
            license_name = license_name or card.license
            named = [card.datasets] if isinstance(card.datasets, str) else card.datasets or []
            dataset_id = dataset_id or next(iter(named), None)
        if dataset_id:
            record.data["hub_id"] = dataset_id
        copy = Path(temporary, "model")
        save_model_folder(copy, model, tokenizer, record, repo_id, license_name or own_license)
        if endpoint:
            write_endpoint(copy)
        files = sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
        stale = sorted((there & OWN_FILES) - set(files))  # files of an earlier model of another kind
        operations: list = [CommitOperationAdd(name, copy / name) for name in files]
        operations += [CommitOperationDelete(name) for name in stale]
        message = f"Upload {model.config.model_type} model"
        return client.create_commit(repo_id, operations, commit_message=message, revision=revision).commit_url


def write_endpoint(folder: Path) -> None:
    """Writes `handler.py` and `requirements.txt`, which an Inference Endpoint needs besides a recommender."""
    shutil.copyfile(Path(__file__).with_name("endpoint_handler.py"), folder / "handler.py")
    needed = [line for line in requires("etegrec_hf") or () if re.match("(torch|transformers)[<>=]", line)]
    (folder / "requirements.txt").write_text("\n".join(sorted(needed)) + "\n", encoding="utf-8")
