"""Requests to an exported recommender: checks histories of item ids and options, and turns ids into item indices."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from numbers import Integral, Real

from ..data.checks import check_choice
from ..data.wording import counted

CHOICES = {"unknown": ("error", "skip"), "on_empty": ("error", "empty", "popular")}


@dataclass(frozen=True)
class RequestOptions:
    """Options of a search, and of its results for unknown items and for histories without items.

    Args:
        top_k (`int`, *optional*, defaults to 10): items per history.
        num_beams (`int`, *optional*): number of prefixes that each level keeps, at least `top_k`; by default the
            model's own setting, or `top_k` if that is larger.
        exclude_history (`bool`, *optional*): whether to leave out items of the history; by default the model's own
            setting.
        rerank_weight, transition_weight (`float`, *optional*): weight of preference re-ranking and share of transition
            votes, as in `model.recommend`; by default the model's own settings.
        unknown (`str`, *optional*, defaults to `"error"`): `"skip"` leaves out ids that aren't in the catalogue;
            `"error"` raises.
        on_empty (`str`, *optional*, defaults to `"error"`): result for a history without an item of the catalogue:
            `"empty"` gives an empty list, `"popular"` the items that occur most often in training; `"error"` raises.

    Raises:
        ValueError: `top_k` or `num_beams` that isn't a whole number, or is below 1.
        ValueError: a beam that is narrower than the list.
        ValueError: an `exclude_history` that isn't True or False.
        ValueError: a weight that isn't a number, or is out of range.
        ValueError: an unknown choice for `unknown` or `on_empty`.
    """

    top_k: int = 10
    num_beams: int | None = None
    exclude_history: bool | None = None
    rerank_weight: float | None = None
    transition_weight: float | None = None
    unknown: str = "error"
    on_empty: str = "error"

    def __post_init__(self):
        for name in ("top_k", "num_beams"):
            number = getattr(self, name)
            if number is None and name != "top_k":
                continue
            if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
                raise ValueError(f"`{name}` is {number!r}; give a whole number of 1 or more.")
        if self.num_beams is not None and self.num_beams < self.top_k:
            raise ValueError(
                f"`num_beams` is {self.num_beams} and `top_k` is {self.top_k}; a beam must be at least as wide as "
                "the list."
            )
        if self.exclude_history is not None and not isinstance(self.exclude_history, bool):
            raise ValueError(f"`exclude_history` is {self.exclude_history!r}; give True or False.")
        for name, limit in (("rerank_weight", float("inf")), ("transition_weight", 1)):
            weight = getattr(self, name)
            if weight is None:
                continue
            if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= float(weight) < limit:
                raise ValueError(f"`{name}` is {weight!r}; give a number of at least 0 and below {limit}.")
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)

    @classmethod
    def of(cls, options: dict) -> "RequestOptions":
        """Makes options from a mapping of names to values.

        Raises:
            TypeError: an unknown name.
            ValueError: values that the class refuses.
        """
        names = [option.name for option in fields(cls)]
        unknown = sorted(options.keys() - set(names))
        if unknown:
            choices = ", ".join(["exclude", "allowed", *names])
            raise TypeError(f"unknown arguments {unknown}; choose among {choices}.")
        return cls(**options)


class Catalogue:
    """Item ids and titles.

    Args:
        item_ids (`list[str]`): item ids, in the order of item indices, which begin with 1.
        item_titles (`dict[str, str]`): titles by item id, of some or all items.
    """

    def __init__(self, item_ids: list[str], item_titles: dict[str, str]):
        self.item_ids, self.item_titles = item_ids, item_titles
        self._index = {item_id: index for index, item_id in enumerate(item_ids, start=1)}

    def index_of(self, item_ids: list, unknown: str) -> list[int]:
        """Returns item indices of item ids; `"skip"` leaves out ids that aren't in the catalogue.

        Raises:
            ValueError: an id that isn't a string.
            ValueError: an unknown id, unless such ids are skipped.
        """
        for item_id in item_ids:
            if not isinstance(item_id, str):
                shown = str(item_id)
                remedy = f"give {shown!r}" if shown in self._index else "give strings"
                raise ValueError(
                    f"item {item_id!r} is of type {type(item_id).__name__}, but item ids are strings; {remedy}."
                )
            if unknown == "error" and item_id not in self._index:
                raise ValueError(
                    f"item {item_id!r} is not in the catalogue of {len(self.item_ids)} items; leave it out, or give "
                    "`unknown` 'skip' to leave out all such items."
                )
        return [self._index[item_id] for item_id in item_ids if item_id in self._index]


@dataclass(frozen=True)
class Request:
    """A history, and the items that its user must not get, as item indices."""

    history: list[int]
    excluded: list[int]


def requests_of(histories, exclude, catalogue: Catalogue, options: RequestOptions) -> tuple[list[Request], bool]:
    """Returns one request per history, and whether `histories` is a single history.

    Args:
        histories: one history or a list of histories, each a list of item ids or a `dict` with `history` and
            `exclude`.
        exclude (`list`, *optional*): item ids that no history gets, or a list of item ids per history.
        catalogue ([`Catalogue`]): the model's items.
        options ([`RequestOptions`]): options for unknown items and empty histories.

    Raises:
        ValueError: anything that isn't a history or a list of item ids.
        ValueError: an unknown item, or a history without items; among several histories, the error begins with the
            number of the history, from 0.
    """
    exclude = [] if exclude is None else _ids("exclude", exclude, nested=True)
    is_one = isinstance(histories, dict)
    if not is_one:
        histories = _ids("histories", histories, nested=True)
        is_one = bool(histories) and not any(_is_list(entry) or isinstance(entry, dict) for entry in histories)
    entries = [histories] if is_one else histories
    by_history = any(map(_is_list, exclude))
    if by_history and is_one:
        raise ValueError(
            "`exclude` holds one list per history, but there is only one history; give a list of item ids."
        )
    if by_history and len(exclude) != len(entries):
        raise ValueError(
            f"`exclude` holds {counted(len(exclude), 'list')} for {counted(len(entries), 'history', 'histories')}; "
            "give one list per history."
        )
    of_all = [] if by_history else catalogue.index_of(exclude, options.unknown)
    found = []
    for number, entry in enumerate(entries):
        with _numbered(None if is_one else number):
            history, own = _parts(entry)
            own = own + (_ids("exclude", exclude[number]) if by_history else [])
            indices = catalogue.index_of(history, options.unknown)
            if not indices and options.on_empty == "error":
                raise ValueError(
                    "the history holds no item of the catalogue; give one, or pass on_empty='empty' for an empty list "
                    "or on_empty='popular' for popular items."
                )
            found.append(Request(indices, of_all + catalogue.index_of(own, options.unknown)))
    return found, is_one


def allowed_of(allowed, catalogue: Catalogue, options: RequestOptions) -> list[int]:
    """Returns the indices of the items to choose from.

    Raises:
        ValueError: anything that isn't a list of item ids.
        ValueError: an unknown item, unless such items are skipped.
    """
    return catalogue.index_of(_ids("allowed", allowed), options.unknown)


def _parts(entry) -> tuple[list, list]:
    """Returns the item ids of a history, and the item ids to exclude for it alone."""
    entry = entry if isinstance(entry, dict) else {"history": entry}
    if "history" not in entry or entry.keys() - {"history", "exclude"}:
        raise ValueError(
            f"a history is a dict with the keys {sorted(entry)}; give `history`, and optionally `exclude`."
        )
    if isinstance(entry["history"], (set, frozenset)):
        raise ValueError(
            f"{entry['history']!r} has no order; give a list of item ids, oldest first, also for a single item."
        )
    own = entry.get("exclude")
    return _ids("history", entry["history"]), [] if own is None else _ids("exclude", own)


def _is_list(values) -> bool:
    return isinstance(values, (list, tuple, set, frozenset)) or (
        hasattr(values, "tolist") and getattr(values, "ndim", 1) > 0
    )


def _ids(name: str, values, nested: bool = False) -> list:
    """Returns item ids as a list, given a list, tuple, set, array or series; if `nested`, entries may be lists."""
    if not _is_list(values):
        raise ValueError(f"`{name}` is {values!r}; give a list of item ids, also for a single item.")
    ids = values.tolist() if hasattr(values, "tolist") else list(values)
    for item_id in () if nested else ids:
        if _is_list(item_id):
            shared = ", the same for all histories" if name == "allowed" else ""
            raise ValueError(f"`{name}` holds {item_id!r}, which isn't an item id; give a list of item ids{shared}.")
    return ids


@contextmanager
def _numbered(number: int | None) -> Iterator[None]:
    """Begins errors with the number of the history that they are about."""
    try:
        yield
    except ValueError as error:
        if number is None:
            raise
        raise ValueError(f"history {number}: {error}") from error
