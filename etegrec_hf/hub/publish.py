"""Publishing a trained model: checked first, then one commit."""

import tempfile
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi

from ..models.modeling_rqvae import RQVAEModel
from .client import hub_errors
from .model_folder import load_model, load_recommender, model_type_of, save_model_folder
from .training_record import TrainingRecord


def publish(
    folder: str | Path,
    repo_id: str,
    private: bool | None = None,
    revision: str | None = None,
    without_embeddings: bool = False,
    license: str | None = None,
    dataset_id: str | None = None,
) -> str:
    """Sends a recommender or an item tokenizer to the Hub, with its tokenizer, code, card and training record.

    The model is loaded, checked and saved into a folder of its own, from which one commit is made: the repository has
    all of it or nothing. What an interrupted call has uploaded isn't sent again.

    Args:
        folder (`str` or `Path`): the model's; it stays as it is.
        repo_id (`str`): `user/name`, or a name in your own namespace.
        private (`bool`, *optional*): whether a new repository is private.
        revision (`str`, *optional*): a branch, made if needed.
        without_embeddings (`bool`, *optional*, defaults to `False`): whether to leave the items' semantic embeddings
            out, which only alternating training needs.
        license (`str`, *optional*): of the model, as the Hub abbreviates it (`"apache-2.0"`).
        dataset_id (`str`, *optional*): the training data's id on the Hub.

    Returns:
        the commit's address.

    Raises:
        FileNotFoundError, ValueError: the folder isn't whole, its codes collide, or tokenizer and model disagree.
        PermissionError, ConnectionError: see [`hub_errors`].
    """
    folder = Path(folder)
    if model_type_of(folder) == "etegrec":
        model, tokenizer = load_recommender(str(folder))
        _ = model.code_trie  # raises what is wrong with the codes
    else:
        model, tokenizer = load_model(RQVAEModel, str(folder)), None
    record = TrainingRecord.read(folder)
    if dataset_id:
        record.data["hub_id"] = dataset_id
    if without_embeddings and tokenizer is not None:
        model.config.has_semantic_embedding, model.semantic_embedding = False, None
    with tempfile.TemporaryDirectory() as temporary, hub_errors(repo_id, f" {str(folder)!r} is as it was."):
        client = HfApi()
        repo_id = client.create_repo(repo_id, private=private, exist_ok=True).repo_id
        copy = Path(temporary, "model")
        save_model_folder(copy, model, tokenizer, record, repo_id, license)
        if revision is not None:
            client.create_branch(repo_id, branch=revision, exist_ok=True)
        files = [CommitOperationAdd(path.name, path) for path in sorted(copy.iterdir())]
        message = f"Upload {model.config.model_type} model"
        return client.create_commit(repo_id, files, commit_message=message, revision=revision).commit_url
