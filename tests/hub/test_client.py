"""Errors for the Hub's refusals, without a Hub."""

import httpx
import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from etegrec_hf.data.hub_ids import at_revision, split_revision
from etegrec_hf.hub import client
from etegrec_hf.hub.client import cached_repository, hub_errors
from etegrec_hf.hub.dataset_folder import local_dataset
from etegrec_hf.hub.model_folder import local_folder

TOLD = "Access to model user/it is restricted. Visit https://huggingface.co/user/it to ask for access."


def refusal(kind: type[HfHubHTTPError], status: int, told: str = TOLD) -> HfHubHTTPError:
    response = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/user/it"))
    return kind(f"{status} Client Error\nfor url", response=response, server_message=told)


@pytest.mark.parametrize(
    ("error", "intact", "kind", "message"),
    [
        (refusal(GatedRepoError, 403), "", PermissionError, rf"'user/it' is gated \({TOLD}\); ask for access on its"),
        (refusal(GatedRepoError, 401), "", PermissionError, "ask for access on its page, and log in with `hf auth"),
        (
            refusal(RepositoryNotFoundError, 404),
            "",
            FileNotFoundError,
            "isn't a repository on the Hub that you may see",
        ),
        (refusal(RevisionNotFoundError, 404), "", FileNotFoundError, "has no such revision"),
        (
            refusal(HfHubHTTPError, 403, "no scope"),
            "",
            PermissionError,
            r"doesn't let you read 'user/it' \(no scope\); .* a token that may read it\.$",
        ),
        (
            refusal(HfHubHTTPError, 403, "no scope"),
            " All is as it was.",
            PermissionError,
            r"doesn't let you write to 'user/it' \(no scope\); .* a token that may write there\. All is as it was\.$",
        ),
        (refusal(HfHubHTTPError, 503), "", ConnectionError, "with status 503"),
    ],
)
def test_refusals_keep_what_the_hub_says(error, intact, kind, message):
    with pytest.raises(kind, match=message), hub_errors("user/it", intact):
        raise error


@pytest.mark.parametrize(
    ("name", "repo_id", "revision"),
    [
        ("user/it", "user/it", None),
        ("user/it@v2", "user/it", "v2"),
        ("user/it@refs/pr/3", "user/it", "refs/pr/3"),
        ("user/it@0123456789abcdef", "user/it", "0123456789abcdef"),
    ],
)
@pytest.mark.parametrize(("read", "kind"), [(local_folder, "model"), (local_dataset, "dataset")])
def test_ids_name_their_revision(read, kind, name, repo_id, revision, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(client, "snapshot_download", lambda *args, **kwargs: asked.append((args, kwargs)) or "/cached")
    monkeypatch.chdir(tmp_path)
    assert str(read(name)) == "/cached"
    ((args, kwargs),) = asked
    assert (args, kwargs["repo_type"], kwargs["revision"]) == ((repo_id,), kind, revision)
    (tmp_path / name).mkdir(parents=True)  # a folder of that name comes first
    assert str(read(name)) == name
    assert len(asked) == 1


def test_revisions_that_are_not_in_the_cache(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'user/it@v2' isn't a folder, and the cache doesn't hold a model"):
        cached_repository("user/it@v2", "model", ["*.json"])  # this process is offline


def test_a_revision_belongs_to_one_id(tmp_path):
    assert at_revision("user/it", None) == "user/it"
    assert split_revision(at_revision("user/it", "v2")) == ("user/it", "v2")
    with pytest.raises(ValueError, match=r"`revision` is 'v2', but '.*' is a folder; leave the revision out"):
        at_revision(str(tmp_path), "v2")
    with pytest.raises(ValueError, match="'user/it@v1' already names a revision"):
        at_revision("user/it@v1", "v2")
