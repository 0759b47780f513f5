"""Repositories on the Hub that models and datasets are published in."""

from dataclasses import dataclass

from huggingface_hub import HfApi


@dataclass(frozen=True)
class RepositoryOptions:
    """Options of the repository on the Hub that a model or a dataset is published in.

    Args:
        private (`bool`, *optional*): whether a new repository is private.
        revision (`str`, *optional*): the branch that gets the commit; a missing branch is made.
        license (`str`, *optional*): the license of the model or the data, as the Hub abbreviates it (`"apache-2.0"`,
            `"cc-by-4.0"`). By default the license that the repository already names stays, and a repository without
            one gets that of the folder.
    """

    private: bool | None = None
    revision: str | None = None
    license: str | None = None


def open_repository(client: HfApi, repo_id: str, repo_type: str, options: RepositoryOptions) -> tuple[str, set[str]]:
    """Makes a repository and its branch, unless they exist.

    Args:
        client (`HfApi`): a client that is logged in.
        repo_id (`str`): `user/name`, or a name in your own namespace.
        repo_type (`str`): `"model"` or `"dataset"`.
        options ([`RepositoryOptions`]): whether it is private, and its branch.

    Returns:
        the repository's id with its namespace, and the names of the files in it.

    Raises:
        ValueError: the repository exists and is public, and `private` is True.
    """
    revision = options.revision
    repo_id = client.create_repo(repo_id, repo_type=repo_type, private=options.private, exist_ok=True).repo_id
    if options.private and not client.repo_info(repo_id, repo_type=repo_type).private:
        raise ValueError(f"`private` is True, and {repo_id!r} exists and is public; make it private first.")
    if revision is not None:
        client.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
    return repo_id, set(client.list_repo_files(repo_id, revision=revision, repo_type=repo_type))
