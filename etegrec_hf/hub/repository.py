"""A repository on the Hub that is about to get a commit."""

from huggingface_hub import HfApi


def open_repository(
    client: HfApi, repo_id: str, repo_type: str, private: bool | None, revision: str | None
) -> tuple[str, set[str]]:
    """Makes a repository and branch where there is none.

    Args:
        client (`HfApi`): logged in.
        repo_id (`str`): `user/name`, or a name in your own namespace.
        repo_type (`str`): `"model"` or `"dataset"`.
        private (`bool`, *optional*): whether a new repository is private.
        revision (`str`, *optional*): a branch, made if needed.

    Returns:
        the repository's whole id, and the files that it has.

    Raises:
        ValueError: it exists and is public, and `private` asks for a private one.
    """
    repo_id = client.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True).repo_id
    if private and not client.repo_info(repo_id, repo_type=repo_type).private:
        raise ValueError(f"`private` is True, and {repo_id!r} exists and is public; make it private first.")
    if revision is not None:
        client.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
    return repo_id, set(client.list_repo_files(repo_id, revision=revision, repo_type=repo_type))
