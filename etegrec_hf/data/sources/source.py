"""The options and the result that all readers of logs share."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from ..interactions import Interactions
from ..wording import counted

ROW_ORDER = "rows of the file"
TEXT_FIELDS = ("title", "description", "brand", "categories")  # texts that an item can have
Texts = dict[str, dict[str, str]]  # texts by item id and then by field, none of them empty


@dataclass(frozen=True)
class SourceOptions:
    """Options for reading a log. `READERS` lists which options a format uses.

    Args:
        user_column, item_column (`str`, *optional*): columns of user and item ids; by default columns with common
            names, such as `user_id`, `CustomerID` or `visitorid`, and `item_id`, `sku` or `movieId`.
        time_column (`str`, *optional*): column of timestamps; by default a column with a common name, such as
            `timestamp` or `created_at`. If there is none, rows are taken to be in time order.
        title_column (`str`, *optional*): column of titles; by default a column with a common name, such as `title` or
            `name`, or the column of descriptions.
        split_column (`str`, *optional*): column with the split of each interaction: `train`, `validation` or `test`.
        items (`str`, *optional*): file with the items' texts (for Amazon: the metadata file).
        max_malformed (`float`, *optional*, defaults to 0.001): largest share of rows that may be malformed. Malformed
            rows are left out and reported.
        hub_config (`str`, *optional*): configuration of a data set that `datasets` opens.
        hub_split (`str`, *optional*, defaults to `"train"`): split of that data set.
        separator (`str`, *optional*): character between the cells of a delimited log, or `"tab"`; by default the
            separator for which the header has columns of ids.

    Raises:
        ValueError: a share outside 0..1.
        ValueError: an empty name of the items' file.
        ValueError: a separator that isn't one character.
    """

    help_group: ClassVar[str] = "data"

    user_column: str | None = field(
        default=None, metadata={"help": "Column of user ids; by default, this and other columns are found by name."}
    )
    item_column: str | None = field(default=None, metadata={"help": "Column of item ids."})
    time_column: str | None = field(
        default=None, metadata={"help": "Column of timestamps; without times, rows count as sorted by time."}
    )
    title_column: str | None = field(default=None, metadata={"help": "Column of titles."})
    split_column: str | None = field(
        default=None, metadata={"help": "Column of the words train, validation and test, for the split 'given'."}
    )
    items: str | None = field(
        default=None,
        metadata={"help": "File of the items' texts: .csv, .tsv, .jsonl or .parquet; for Amazon, the metadata file."},
    )
    max_malformed: float = field(default=0.001, metadata={"help": "Largest share of rows that may be unreadable."})
    hub_config: str | None = field(default=None, metadata={"help": "Configuration of a dataset on the Hub."})
    hub_split: str = field(default="train", metadata={"help": "Split of that dataset."})
    separator: str | None = field(
        default=None,
        metadata={"help": "Separator of cells: one character or 'tab'; by default it is found by the id columns."},
    )

    def __post_init__(self):
        if not 0 <= self.max_malformed <= 1:
            raise ValueError(f"`max_malformed` is {self.max_malformed}, but it is a share of rows; choose 0 to 1.")
        if self.items == "":
            raise ValueError("`items` is ''; name the file with the items' texts, or leave the option out.")
        separator = self.separator
        if separator in ("tab", r"\t"):
            object.__setattr__(self, "separator", "\t")
        elif separator is not None and (len(separator) != 1 or not separator.isascii() or separator in '"\r\n'):
            raise ValueError(f"`separator` is {separator!r}; give one character, such as ; or |, or 'tab'.")


@dataclass(frozen=True)
class LogColumns:
    """The names of a log's columns, by their use.

    Args:
        names (`tuple[str, ...]`): names of all columns.
        user, item (`str`): columns of user and item ids.
        time, split (`str`, *optional*): columns of timestamps, and of splits (`train`, `validation` or `test`).
        texts (`dict[str, str]`): columns by field, for those of `TEXT_FIELDS` that the log has.

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
        """Returns the columns that are used, in the order of the file."""
        wanted = {self.user, self.item, self.time, self.split, *self.texts.values()}
        return [name for name in dict.fromkeys(self.names) if name in wanted]

    def others(self) -> list[str]:
        """Returns the columns that aren't used, in the order of the file."""
        needed = self.needed()
        return [name for name in dict.fromkeys(self.names) if name not in needed]


@dataclass
class Malformed:
    """A count of a file's malformed rows, and what is wrong with the first three.

    Args:
        path (`Path`): the file.
        unit (`str`, *optional*, defaults to `"line"`): unit of numbers, which begin at 1: `"line"`, or `"row"` of a
            table after its header.
        rows (`int`, *optional*, defaults to 0): number of rows in the file.
        count (`int`, *optional*, defaults to 0): number of malformed rows.
        first (`list[tuple[int, str]]`, *optional*): numbers of the first three malformed rows, and what is wrong.
    """

    path: Path
    unit: str = "line"
    rows: int = 0
    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, reason: str, rows: int = 1) -> None:
        """Counts row `number` as malformed; `rows` is the number of rows that are lost with it."""
        self.count += rows
        self.show(number, reason)

    def show(self, number: int, reason: str) -> None:
        """Keeps the reason for a row if it is among the first three; the row isn't counted again."""
        if len(self.first) < 3 or number < self.first[-1][0]:
            self.first = sorted([*self.first, (number, reason)])[:3]

    def __str__(self) -> str:
        reasons = "; ".join(f"{self.unit} {number}: {reason}" for number, reason in self.first)
        return f"{counted(self.count, f'malformed {self.unit}')} in {self.path} ({reasons})"

    def check(self, max_malformed: float) -> None:
        """Raises a `ValueError` if the share of malformed rows is larger than `max_malformed`."""
        share = self.count / max(1, self.rows)
        if share > max_malformed:
            raise ValueError(
                f"{self}, that is {share:.2%} of all, but `max_malformed` allows {max_malformed:.2%}; repair them, "
                "check --format, or raise --max-malformed to leave such rows out."
            )


@dataclass
class ItemsFile:
    """A file of items' texts, which is read after the log, and the findings of reading it.

    Args:
        malformed ([`Malformed`]): path of the file, and its malformed rows.
        item_column (`str`): column of item ids.
        fields (`dict[str, str]`): columns by field of `TEXT_FIELDS`; the file may lack some.
        columns (`dict[str, None]`, *optional*): all columns that were found.
        first_id (`str`, *optional*): the first id in the file.
        found (`set[str]`, *optional*): ids of the log's items that are in the file.
        item_columns (`dict[str, pa.Array]`, *optional*): numbers and categories of the log's items, in their order.
    """

    malformed: Malformed
    item_column: str
    fields: dict[str, str]
    columns: dict[str, None] = field(default_factory=dict)
    first_id: str | None = None
    found: set[str] = field(default_factory=set)
    item_columns: dict[str, pa.Array] = field(default_factory=dict)

    def unused(self) -> list[str]:
        """Returns the columns that aren't used."""
        used = (self.item_column, *self.fields.values(), *self.item_columns)
        return [name for name in self.columns if name not in used]

    def notes(self, item_ids: list[str]) -> list[str]:
        """Returns notes for the user about a file that fits these items badly."""
        path, notes = self.malformed.path, []
        if not self.found:
            ids = f"its first id is {self.first_id!r}, the log's is {item_ids[0]!r}"
            notes.append(f"0 of {len(item_ids)} items are in {path}: {ids}")
        if self.columns and not self.columns.keys() & set(self.fields.values()):
            names = ", ".join(self.fields.values())
            notes.append(
                f"{path} has no texts: it lacks the columns {names} and has only {list(self.columns)} (name one with "
                "--title-column)"
            )
        return notes


def no_texts(item_ids: Collection[str]) -> Texts:
    """Returns no texts, for a source without any."""
    return {}


@dataclass(frozen=True)
class Source:
    """The result of a reader.

    Args:
        interactions ([`Interactions`]): the log.
        read_texts (`Callable`): function from item ids to their texts, as far as they are known. It reads the file of
            texts when it is called, after filtering, so that texts of dropped items take no memory.
        item_tokens (`dict[str, list[str]]`): token strings by item id, if the source has codes of its own.
        order (`str`): the column that ordered the interactions, or `ROW_ORDER`.
        embedding_rows (`np.ndarray` of `int64`, shape `(n_items,)`, *optional*): row of each of the log's items in the
            source's matrix of embeddings, in which row 0 is padding. By default a matrix has the items' own order and
            no row for padding.
        n_embedding_rows (`int`, *optional*): number of rows of such a matrix, including padding.
        malformed (`list[Malformed]`): malformed rows that were left out of the log.
        unused (`list[str]`): columns of the log that aren't used.
        items_file ([`ItemsFile`], *optional*): the file of texts, if there is one.
        columns ([`LogColumns`], *optional*): columns of the table, if the log is a table.
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
