"""Ids on the Hub, which may end with a revision: `user/name@v2`."""

from pathlib import Path


def split_revision(name: str) -> tuple[str, str | None]:
    """Splits an id into the repository and the branch, tag or commit after `@`, or None; folders aren't split.

    Raises:
        ValueError: a revision after the name of a folder.

    >>> split_revision("user/name@refs/pr/1"), split_revision("user/name")
    (('user/name', 'refs/pr/1'), ('user/name', None))
    """
    if Path(name).exists():
        return name, None
    repo_id, _, revision = name.partition("@")
    if revision and Path(repo_id).exists():  # readers of ids would open the folder and ignore the revision
        raise ValueError(
            f"{name!r} names a revision, but {repo_id!r} is a folder; leave it out, or give an id on the Hub."
        )
    return repo_id, revision or None


def at_revision(name: str, revision: str | None) -> str:
    """Returns an id followed by `@` and its revision, or the name alone without a revision.

    Args:
        name (`str`): a folder, or an id on the Hub.
        revision (`str`, *optional*): branch, tag or commit.

    Raises:
        ValueError: a revision for a folder.
        ValueError: a revision for an id that already has one.
    """
    if revision is None:
        return name
    if Path(name).exists():
        raise ValueError(
            f"`revision` is {revision!r}, but {name!r} is a folder; leave the revision out, or give an id on the Hub."
        )
    if "@" in name:
        raise ValueError(f"`revision` is {revision!r}, but {name!r} already names a revision; give only one.")
    return f"{name}@{revision}"
