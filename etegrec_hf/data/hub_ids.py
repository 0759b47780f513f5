"""Ids on the Hub, with the revision that they may name: `user/name@v2`."""

from pathlib import Path


def split_revision(name: str) -> tuple[str, str | None]:
    """Returns the id, and the branch, tag or commit after its `@`, if it names one; a folder as it is.

    Raises:
        ValueError: the revision of a folder.

    >>> split_revision("user/name@refs/pr/1"), split_revision("user/name")
    (('user/name', 'refs/pr/1'), ('user/name', None))
    """
    if Path(name).exists():
        return name, None
    repo_id, _, revision = name.partition("@")
    if revision and Path(repo_id).exists():  # which the readers of ids would take, whatever the revision
        raise ValueError(
            f"{name!r} names a revision of the folder {repo_id!r}; leave it out, or give an id on the Hub."
        )
    return repo_id, revision or None


def at_revision(name: str, revision: str | None) -> str:
    """Returns the id with its revision, as everything reads it that takes an id.

    Args:
        name (`str`): a folder, or an id.
        revision (`str`, *optional*): of an id.

    Raises:
        ValueError: the revision of a folder, or a second one.
    """
    if revision is None:
        return name
    if Path(name).exists():
        raise ValueError(
            f"`revision` is {revision!r}, and {name!r} is a folder; leave it out, or give an id on the Hub."
        )
    if "@" in name:
        raise ValueError(f"`revision` is {revision!r}, and {name!r} names one too; give one of them.")
    return f"{name}@{revision}"
