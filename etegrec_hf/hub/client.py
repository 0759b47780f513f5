"""What can go wrong between this machine and the Hub, said in one line with its remedy."""

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
    """Turns the client's errors about `repo_id` into short ones; `intact` says what was not harmed.

    Raises:
        FileNotFoundError: no such repository or revision, or none that this token may see.
        PermissionError: no token, one without the right to read or write, or a gated repository.
        ConnectionError: the Hub can't be reached, or broke off.
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
    """Returns the folder in the cache that holds a repository's files, downloaded if needed.

    Args:
        name (`str`): `user/name` or `user/name@revision`.
        repo_type (`str`): `"model"` or `"dataset"`.
        patterns (`list[str]`): of the files.

    Raises:
        FileNotFoundError: no such repository or revision.
        PermissionError: a repository that this token may not read.
        FileNotFoundError: nothing in the cache, and the Hub can't be reached.
        ConnectionError: the Hub broke off.
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
    """The builtin exception that says in one line what the client's says."""
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError(f"HF_HUB_OFFLINE is set, so the Hub isn't asked for {repository}; unset it.{intact}")
    if isinstance(error, LocalTokenNotFoundError):
        return PermissionError(f"no token for {repository}; log in with `hf auth login`.{intact}")
    if isinstance(error, RevisionNotFoundError):
        return FileNotFoundError(f"the Hub's {repository} has no such revision; see its page for branches.{intact}")
    message = getattr(error, "server_message", None) or (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, GatedRepoError):  # which is a RepositoryNotFoundError
        return PermissionError(
            f"{repository} is gated ({message}); ask for access on its page, and log in with `hf auth login`.{intact}"
        )
    if isinstance(error, RepositoryNotFoundError):
        return FileNotFoundError(
            f"{repository} is no folder, and no repository on the Hub that you may see; check the name, or log in "
            f"with `hf auth login` if it is private.{intact}"
        )
    if not isinstance(error, HfHubHTTPError):
        return ConnectionError(
            f"no connection to {constants.ENDPOINT} for {repository} ({message}); try again.{intact}"
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
    return ConnectionError(f"the Hub answered {status} for {repository}; try again later.{intact}")
