"""What every reader of a log takes and returns."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..interactions import Interactions

ROW_ORDER = "rows of the file"
TEXT_FIELDS = ("title", "description", "brand", "categories")  # what an item's text can be made of
Texts = dict[str, dict[str, str]]  # item id to field to text, none of them empty


@dataclass(frozen=True)
class SourceOptions:
    """How a log is read. Which options a format knows stands in `READERS`.

    Args:
        user_column, item_column (`str`, *optional*): columns of the ids; without them those that are called so, as
            `user_id`, `CustomerID` or `visitorid`, and `item_id`, `sku` or `movieId`.
        time_column (`str`, *optional*): column of timestamps; without it one that is called so, as `timestamp` or
            `created_at`, and where there is none the order of the rows is the time.
        title_column (`str`, *optional*): column of titles; without it one that is called so, as `title` or `name`, or
            that of descriptions.
        split_column (`str`, *optional*): column that says `train`, `validation` or `test` of each interaction.
        items (`str`, *optional*): file of the items' texts (for Amazon: the metadata file).
        max_malformed (`float`, *optional*): largest share of rows that may be unreadable; they are left out, and told.
        hub_config (`str`, *optional*): configuration of a `datasets` data set.
        hub_split (`str`, *optional*): split of it.
        separator (`str`, *optional*): one character between the cells of a delimited log, or `"tab"`; without it the
            one by which the header has the columns of ids is taken.

    Raises:
        ValueError: a share outside 0..1, or a separator that is none.
    """

    user_column: str | None = None
    item_column: str | None = None
    time_column: str | None = None
    title_column: str | None = None
    split_column: str | None = None
    items: str | None = None
    max_malformed: float = 0.001
    hub_config: str | None = None
    hub_split: str = "train"
    separator: str | None = None

    def __post_init__(self):
        if not 0 <= self.max_malformed <= 1:
            raise ValueError(f"`max_malformed` is {self.max_malformed}, but it is a share of rows; choose 0 to 1.")
        separator = self.separator
        if separator in ("tab", r"\t"):
            object.__setattr__(self, "separator", "\t")
        elif separator is not None and (len(separator) != 1 or not separator.isascii() or separator in '"\r\n'):
            raise ValueError(f"`separator` is {separator!r}; name one character, such as ; or |, or 'tab'.")


@dataclass(frozen=True)
class LogColumns:
    """What the columns of a log are.

    Args:
        names (`tuple[str, ...]`): all of them.
        user, item (`str`): those of ids.
        time, split (`str`, *optional*): those of timestamps, and of train, validation and test.
        texts (`dict[str, str]`): those of `TEXT_FIELDS` that there are.

    >>> str(LogColumns(("CustomerID", "sku", "day"), "CustomerID", "sku", "day", None, {}))
    'CustomerID is the user, sku the item, day the time'
    """

    names: tuple[str, ...]
    user: str
    item: str
    time: str | None
    split: str | None
    texts: dict[str, str]

    def __str__(self) -> str:
        others = {"time": self.time, "split": self.split, **self.texts}
        told = [f"{self.user} is the user", f"{self.item} the item"]
        return ", ".join(told + [f"{name} the {what}" for what, name in others.items() if name is not None])

    def needed(self) -> list[str]:
        """Those that a log is made of, in the order of the file."""
        wanted = {self.user, self.item, self.time, self.split, *self.texts.values()}
        return [name for name in dict.fromkeys(self.names) if name in wanted]

    def others(self) -> list[str]:
        """All but these."""
        needed = self.needed()
        return [name for name in dict.fromkeys(self.names) if name not in needed]


@dataclass
class Malformed:
    """Rows of a file that can't be read: how many of all there are, and what is wrong with the first three.

    Args:
        path (`Path`): the file.
        unit (`str`, *optional*): what is counted, from 1: `"line"`, or `"row"` of a table, after its header.
    """

    path: Path
    unit: str = "line"
    rows: int = 0
    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, reason: str, rows: int = 1) -> None:
        """Counts row `number`, with which so many `rows` are lost."""
        self.count += rows
        self.show(number, reason)

    def show(self, number: int, reason: str) -> None:
        """Keeps the reason if the row, which was counted already, is among the first three."""
        if len(self.first) < 3 or number < self.first[-1][0]:
            self.first = sorted([*self.first, (number, reason)])[:3]

    def __str__(self) -> str:
        reasons = "; ".join(f"{self.unit} {number}: {reason}" for number, reason in self.first)
        return f"{self.count} malformed {self.unit}s in {self.path} ({reasons})"

    def check(self, max_malformed: float) -> None:
        """Raises a `ValueError` if they are more than a share `max_malformed` of all rows."""
        share = self.count / max(1, self.rows)
        if share > max_malformed:
            raise ValueError(
                f"{self}, that is {share:.2%} of all, and `max_malformed` allows {max_malformed:.2%}; repair them, "
                "check --format, or raise --max-malformed to leave such rows out."
            )


@dataclass
class ItemsFile:
    """A file of items' texts, which is read after the log, and what was found in it.

    Args:
        malformed ([`Malformed`]): its path, and its rows that can't be read.
        item_column (`str`): where it has ids.
        fields (`dict[str, str]`): where it may have each of `TEXT_FIELDS`.
        columns (`dict[str, None]`, *optional*): all that it has.
        first_id (`str`, *optional*): the first id in it.
        found (`set[str]`, *optional*): those of the items asked for that have an entry in it.
        item_columns (`dict[str, pa.Array]`, *optional*): numbers and categories of the items asked for, in order.
    """

    malformed: Malformed
    item_column: str
    fields: dict[str, str]
    columns: dict[str, None] = field(default_factory=dict)
    first_id: str | None = None
    found: set[str] = field(default_factory=set)
    item_columns: dict[str, pa.Array] = field(default_factory=dict)

    def unused(self) -> list[str]:
        """Columns that nothing is taken from."""
        used = (self.item_column, *self.fields.values(), *self.item_columns)
        return [name for name in self.columns if name not in used]

    def notes(self, item_ids: list[str]) -> list[str]:
        """What whoever gave the file for these items should know."""
        path, notes = self.malformed.path, []
        if not self.found:
            ids = f"its first id is {self.first_id!r}, the log's is {item_ids[0]!r}"
            notes.append(f"0 of {len(item_ids)} items are in {path}: {ids}")
        if self.columns and not self.columns.keys() & set(self.fields.values()):
            names = ", ".join(self.fields.values())
            notes.append(
                f"{path} has no texts: none of the columns {names}, only {list(self.columns)} (--title-column)"
            )
        return notes


def no_texts(item_ids: Collection[str]) -> Texts:
    """The texts of a source without any."""
    return {}


@dataclass(frozen=True)
class Source:
    """What a reader returns.

    Args:
        interactions ([`Interactions`]): the log.
        read_texts (`Callable`): gives the texts of the items that it is asked for, where they are known. Only then is
            the file of texts read, so that those of filtered items take no memory.
        item_tokens (`dict[str, list[str]]`): item id to token strings, where the source brings codes of its own.
        order (`str`): the column that ordered the interactions, or `ROW_ORDER`.
        embedding_rows (`np.ndarray` of `int64`, shape `(n_items,)`, *optional*): row of each of the log's items in a
            matrix of embeddings that belongs to it, whose row 0 is padding; by default the items' own order, without.
        n_embedding_rows (`int`, *optional*): rows of such a matrix, with that of padding.
        malformed (`list[Malformed]`): what was left out of the log.
        unused (`list[str]`): columns of the log that nothing was taken from.
        items_file ([`ItemsFile`], *optional*): the file of texts, where there is one.
        columns ([`LogColumns`], *optional*): what the columns of a table are.
        item_columns (`dict[str, pa.Array]`): numbers and categories of the log's items, in their order.
    """

    interactions: Interactions
    read_texts: Callable[[Collection[str]], Texts] = no_texts
    item_tokens: dict[str, list[str]] = field(default_factory=dict)
    order: str = ROW_ORDER
    embedding_rows: np.ndarray | None = None
    n_embedding_rows: int | None = None
    malformed: list[Malformed] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    items_file: ItemsFile | None = None
    columns: LogColumns | None = None
    item_columns: dict[str, pa.Array] = field(default_factory=dict)
