"""Errors of the Hub's client as errors of one line with a remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,  # of the client's HTTP library
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..data.hub_ids import split_revision

HUB_ID = r"\w[\w.-]*/[\w.-]+(@[\w./-]+)?"  # user/name or user/name@revision, unlike a relative path with dots


@contextmanager
def hub_errors(repo_id: str, intact: str = "") -> Iterator[None]:
    """Turns errors of the Hub's client about `repo_id` into errors of one line.

    Args:
        repo_id (`str`): the repository that the client is asked for.
        intact (`str`, *optional*): a sentence for the end of the message, about what wasn't changed.

    Raises:
        FileNotFoundError: the repository doesn't exist, or this token may not see it.
        FileNotFoundError: the repository has no such revision.
        PermissionError: there is no token, or the token lacks the right to read or write.
        PermissionError: the repository is gated.
        ConnectionError: the Hub can't be reached, or the connection broke.
        ValueError: the Hub refuses what it was sent.
    """
    try:
        yield
    except (HTTPError, ConnectionError, LocalTokenNotFoundError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) else error  # so the client wraps failed uploads
        if not isinstance(cause, (HTTPError, ConnectionError, LocalTokenNotFoundError)):
            raise
        raise _explained(cause, repr(repo_id), intact) from error


def cached_repository(name: str, repo_type: str, patterns: list[str]) -> str:
    """Returns the folder in the cache that holds a repository's files; missing files are downloaded.

    Args:
        name (`str`): `user/name` or `user/name@revision`.
        repo_type (`str`): `"model"` or `"dataset"`.
        patterns (`list[str]`): patterns of the names of the files.

    Raises:
        FileNotFoundError: the repository or revision doesn't exist.
        FileNotFoundError: the cache doesn't hold the repository, and the Hub can't be reached.
        PermissionError: this token may not read the repository.
        ConnectionError: the connection to the Hub broke.
    """
    repo_id, revision = split_revision(name)
    with hub_errors(name):
        try:
            return snapshot_download(repo_id, repo_type=repo_type, revision=revision, allow_patterns=patterns)
        except FileNotFoundError as error:  # nothing in the cache, and no way to the Hub
            raise FileNotFoundError(
                f"{name!r} isn't a folder, and the cache doesn't hold a {repo_type} of that name while the Hub "
                "can't be reached; check the name or the connection."
            ) from error


def _explained(error: Exception, repository: str, intact: str) -> Exception:
    """Returns the builtin exception that says in one line what the client's exception says."""
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError(
            f"HF_HUB_OFFLINE is set, so the Hub isn't asked for {repository}; unset HF_HUB_OFFLINE.{intact}"
        )
    if isinstance(error, LocalTokenNotFoundError):
        return PermissionError(f"there is no token for {repository}; log in with `hf auth login`.{intact}")
    if isinstance(error, RevisionNotFoundError):
        return FileNotFoundError(f"the Hub's {repository} has no such revision; see its page for branches.{intact}")
    message = getattr(error, "server_message", None) or (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, GatedRepoError):  # which is a RepositoryNotFoundError
        return PermissionError(
            f"{repository} is gated ({message}); ask for access on its page, and log in with `hf auth login`.{intact}"
        )
    if isinstance(error, RepositoryNotFoundError):
        return FileNotFoundError(
            f"{repository} isn't a folder, and isn't a repository on the Hub that you may see; check the name. If the "
            f"repository is private, log in with `hf auth login`.{intact}"
        )
    if not isinstance(error, HfHubHTTPError):
        return ConnectionError(
            f"there is no connection to {constants.ENDPOINT} for {repository} ({message}); try again.{intact}"
        )
    status = error.response.status_code
    if status in (401, 403):
        refused, right = ("write to", "write there") if intact else ("read", "read it")
        return PermissionError(
            f"the Hub doesn't let you {refused} {repository} ({message}); log in with `hf auth login` and a token "
            f"that may {right}.{intact}"
        )
    if status < 500:
        return ValueError(f"the Hub refuses {repository}: {message}.{intact}")
    return ConnectionError(f"the Hub answered {repository} with status {status}; try again later.{intact}")
