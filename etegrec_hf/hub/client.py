"""What can go wrong between this machine and the Hub, said in one line with its remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,  # of the client's HTTP library
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


@contextmanager
def hub_errors(repo_id: str, intact: str = "") -> Iterator[None]:
    """Turns the client's errors about `repo_id` into short ones; `intact` says what was not harmed.

    Raises:
        FileNotFoundError: no such repository or revision, or none that this token may see.
        PermissionError: no token, or one without the right to write.
        ConnectionError: the Hub can't be reached, or broke off.
        ValueError: the Hub refuses what it was sent.
    """
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ConnectionError(
            f"HF_HUB_OFFLINE is set, so the Hub isn't asked for {repo_id!r}; unset it to go online.{intact}"
        ) from error
    except LocalTokenNotFoundError as error:
        raise PermissionError(f"no token for {repo_id!r}; log in with `hf auth login`.{intact}") from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"the Hub's {repo_id!r} has no such revision; see its page for branches.") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{repo_id!r} is no repository on the Hub that you may see, and no folder here; check the name, or log in "
            f"with `hf auth login` if it is private.{intact}"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise PermissionError(
                f"the Hub doesn't let you write to {repo_id!r} ({error.server_message or status}); log in with "
                f"`hf auth login` and a token that may write there.{intact}"
            ) from error
        if status < 500:
            raise ValueError(f"the Hub refuses {repo_id!r}: {error.server_message or error}.{intact}") from error
        raise ConnectionError(f"the Hub answered {status} for {repo_id!r}; try again later.{intact}") from error
    except (HTTPError, ConnectionError) as error:
        raise _unreachable(repo_id, error, intact) from error
    except RuntimeError as error:  # so the client wraps what stops a large upload
        if not isinstance(error.__cause__, (HTTPError, ConnectionError)):
            raise
        raise _unreachable(repo_id, error.__cause__, intact) from error


def _unreachable(repo_id: str, error: Exception, intact: str) -> ConnectionError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ConnectionError(f"no connection to {constants.ENDPOINT} for {repo_id!r} ({reason}); try again.{intact}")
