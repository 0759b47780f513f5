"""What a caller asks of an exported recommender: histories of item ids and options, checked, as item indices."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from numbers import Integral, Real

from ..data.checks import check_choice

CHOICES = {"unknown": ("error", "skip"), "on_empty": ("error", "empty", "popular")}


@dataclass(frozen=True)
class RequestOptions:
    """How items are searched for, and what is answered where there is little to search by.

    Args:
        top_k (`int`, *optional*, defaults to 10): items per history.
        num_beams (`int`, *optional*): prefixes that each level keeps, at least `top_k`; by default the model's own
            number, or `top_k` where that is more.
        exclude_history (`bool`, *optional*): whether nobody gets an item of their history. This and both weights are
            the model's own by default.
        rerank_weight, transition_weight (`float`, *optional*): weight of preference re-ranking and share of transition
            votes, as in `model.recommend`.
        unknown (`str`, *optional*, defaults to `"error"`): `"skip"` passes over ids that aren't in the catalogue.
        on_empty (`str`, *optional*, defaults to `"error"`): `"empty"` answers a history without known items by an
            empty list, `"popular"` by the items that occur most often in training.

    Raises:
        ValueError: something else than a number, a flag or a choice where one belongs.
        ValueError: `top_k` below 1, a beam narrower than the list, or a weight out of range.
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
                f"`num_beams` is {self.num_beams} and `top_k` {self.top_k}; a beam must be at least as wide as the "
                "list."
            )
        if self.exclude_history is not None and not isinstance(self.exclude_history, bool):
            raise ValueError(f"`exclude_history` is {self.exclude_history!r}; give True or False.")
        for name, limit in (("rerank_weight", float("inf")), ("transition_weight", 1)):
            weight = getattr(self, name)
            if weight is None:
                continue
            if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= float(weight) < limit:
                raise ValueError(f"`{name}` is {weight!r}; give a number from 0 on and below {limit}.")
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)

    @classmethod
    def of(cls, options: dict) -> "RequestOptions":
        """Returns options by their names.

        Raises:
            TypeError: a name that doesn't exist.
            ValueError: what the class refuses.
        """
        names = [option.name for option in fields(cls)]
        unknown = sorted(options.keys() - set(names))
        if unknown:
            raise TypeError(f"unknown arguments {unknown}; choose among {', '.join(names)}.")
        return cls(**options)


class Catalogue:
    """Item ids and what they are called.

    Args:
        item_ids (`list[str]`): by item index, from 1 on.
        item_titles (`dict[str, str]`): of some or all items.
    """

    def __init__(self, item_ids: list[str], item_titles: dict[str, str]):
        self.item_ids, self.item_titles = item_ids, item_titles
        self._index = {item_id: index for index, item_id in enumerate(item_ids, start=1)}

    def index_of(self, item_ids: list, unknown: str) -> list[int]:
        """Returns item indices of item ids; `"skip"` leaves out ids that the catalogue doesn't hold.

        Raises:
            ValueError: something else than a string, or an unknown id that isn't to be skipped.
        """
        for item_id in item_ids:
            if not isinstance(item_id, str):
                raise ValueError(f"item {item_id!r} is of type {type(item_id).__name__}, and ids are text.")
            if unknown == "error" and item_id not in self._index:
                raise ValueError(
                    f"item {item_id!r} is not in the catalogue of {len(self.item_ids)} items; leave it out, or pass "
                    "unknown='skip' to leave out all such items."
                )
        return [self._index[item_id] for item_id in item_ids if item_id in self._index]


@dataclass(frozen=True)
class Request:
    """A history and what its user must not get, as item indices."""

    history: list[int]
    excluded: list[int]


def requests_of(histories, exclude, catalogue: Catalogue, options: RequestOptions) -> tuple[list[Request], bool]:
    """Returns what is asked for, and whether it is one history.

    Args:
        histories: one history, a list of histories, or dictionaries of `history` and `exclude` in their places.
        exclude (`list`, *optional*): item ids that nobody gets, or a list of them per history.
        catalogue ([`Catalogue`]): of the model.
        options ([`RequestOptions`]): what happens to unknown items and empty histories.

    Raises:
        ValueError: what isn't a history or list of ids, or an item that is refused; of many histories the number is
            named, from 0.
    """
    exclude = [] if exclude is None else _ids("exclude", exclude, nested=True)
    is_one = isinstance(histories, dict)
    if not is_one:
        histories = _ids("histories", histories, nested=True)
        is_one = bool(histories) and not any(_is_list(entry) or isinstance(entry, dict) for entry in histories)
    entries = [histories] if is_one else histories
    by_history = any(map(_is_list, exclude))
    if by_history and (is_one or len(exclude) != len(entries)):
        raise ValueError(f"`exclude` holds {len(exclude)} lists for {len(entries)} histories; give one each.")
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
                    "or on_empty='popular'."
                )
            found.append(Request(indices, of_all + catalogue.index_of(own, options.unknown)))
    return found, is_one


def allowed_of(allowed, catalogue: Catalogue, options: RequestOptions) -> list[int]:
    """Returns item indices of the ids that all users choose from.

    Raises:
        ValueError: no list of ids, or an unknown item that isn't to be skipped.
    """
    return catalogue.index_of(_ids("allowed", allowed), options.unknown)


def _parts(entry) -> tuple[list, list]:
    """The ids of a history, and those that it brings along to exclude."""
    entry = entry if isinstance(entry, dict) else {"history": entry}
    if "history" not in entry or entry.keys() - {"history", "exclude"}:
        raise ValueError(f"a history is a dict of {sorted(entry)}; give `history`, and `exclude` if you like.")
    if isinstance(entry["history"], (set, frozenset)):
        raise ValueError(f"{entry['history']!r} has no order; give a list of item ids, oldest first.")
    own = entry.get("exclude")
    return _ids("history", entry["history"]), [] if own is None else _ids("exclude", own)


def _is_list(values) -> bool:
    return isinstance(values, (list, tuple, set, frozenset)) or (
        hasattr(values, "tolist") and getattr(values, "ndim", 1) > 0
    )


def _ids(name: str, values, nested: bool = False) -> list:
    """A list of Python's, whose entries may be lists where `nested`."""
    if not _is_list(values):
        raise ValueError(f"`{name}` is {values!r}; give a list of item ids, also for a single item.")
    ids = values.tolist() if hasattr(values, "tolist") else list(values)
    for item_id in () if nested else ids:
        if _is_list(item_id):
            raise ValueError(f"`{name}` holds {item_id!r} where an item id belongs; give a list of item ids.")
    return ids


@contextmanager
def _numbered(number: int | None) -> Iterator[None]:
    """Has errors say which of many histories they are about."""
    try:
        yield
    except ValueError as error:
        if number is None:
            raise
        raise ValueError(f"history {number}: {error}") from error
