"""The folder of an export: its files, and the tables that a search reads from them."""

import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .trie import Floats, Numbers, Trie

FORMAT_VERSION = 2
SETTINGS, TABLES, HISTORY, STEP = "settings.json", "search.npz", "encoder", "decoder_step"
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


@dataclass(frozen=True, eq=False)
class SearchTables:
    """The tables that a search reads besides the two networks. Tables that a model lacks are None.

    Args:
        keys, child_start, leaf_items: the code trie, see [`Trie`].
        codes (array of shape `(n_items + 1, code_length)`): raw codes of all items; row 0 is padding.
        codebook_size (`int`): number of codes per level.
        is_constrained (`bool`): whether all probability goes to the codes that continue an item.
        repeat_bias (array of shape `(code_length,)`, *optional*): per level, the number added to the logits of codes
            that lead only to items of the history.
        repeats (array of shape `(1,)`, *optional*): the number added to the item logits of items of the history.
        transition_items, transition_weights (arrays of shape `(n_items + 1, n)`, *optional*): the items that came next
            to each item in training, and how strongly they count.
        directions (array of shape `(n_items + 1, input_size)`, *optional*): embeddings scaled to length 1.
        item_counts (array of shape `(n_items + 1,)`, *optional*): how often each item occurs in training.
    """

    keys: Numbers
    child_start: Numbers
    leaf_items: Numbers
    codes: Numbers
    codebook_size: int
    is_constrained: bool
    repeat_bias: Floats | None = None
    repeats: Floats | None = None
    transition_items: Numbers | None = None
    transition_weights: Floats | None = None
    directions: Floats | None = None
    item_counts: Numbers | None = None

    @cached_property
    def trie(self) -> Trie:
        """The trie of the items that can be recommended."""
        return Trie(self.keys, self.child_start, self.leaf_items, self.codes.shape[1], self.codebook_size)

    @cached_property
    def leaf_of_item(self) -> Numbers:
        """The leaf of each item index; -1 for padding and for items that can't be recommended."""
        leaves = np.full(len(self.codes), -1)
        leaves[self.leaf_items] = np.arange(len(self.leaf_items)) + self.trie.first_leaf
        return leaves

    def cosines(self, preference: Floats, items: Numbers) -> Floats:
        """Returns cosines `[users, n]` of preferences `[users, input_size]` and embeddings of items `[users, n]`."""
        assert self.directions is not None
        length = np.maximum(np.linalg.norm(preference, axis=1, keepdims=True), 1e-8)
        return np.einsum("und,ud->un", self.directions[items], preference / length)


@dataclass(frozen=True, eq=False)
class Export:
    """A folder that `etegrec export` wrote.

    Args:
        folder (`Path`): the folder.
        settings (`dict`): content of `settings.json`: sizes, `search_settings`, item ids and titles.
        tables ([`SearchTables`]): content of `search.npz`.
    """

    folder: Path
    settings: dict
    tables: SearchTables

    @classmethod
    def read(cls, folder: str | Path, kind: str = "onnx") -> "Export":
        """Reads all of a folder except its networks. Nothing is unpickled.

        Raises:
            FileNotFoundError: no such folder, or a file is missing.
            ValueError: a file is damaged.
            ValueError: another format version.
            ValueError: settings and tables of different numbers of items.
        """
        folder = Path(folder)
        names = [SETTINGS, TABLES, HISTORY + SUFFIXES[kind], STEP + SUFFIXES[kind]]
        for name in names if (folder / SETTINGS).exists() else names[:1]:
            if not (folder / name).exists():
                raise FileNotFoundError(
                    f"{str(folder)!r} isn't an export to {kind}: it holds no {name}; make one with "
                    f"`etegrec export MODEL --format {kind} --output-dir DIR`."
                )
        try:
            settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            version = settings["format_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(folder / SETTINGS) from error
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{str(folder)!r} has format version {version}, but this etegrec_hf reads {FORMAT_VERSION}; export "
                "the model again with this etegrec_hf."
            )
        try:
            with np.load(folder / TABLES, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            sizes = settings["codebook_size"], settings["is_constrained"]
            tables = SearchTables(codebook_size=sizes[0], is_constrained=sizes[1], **arrays)
            are_whole = len(tables.codes) == len(settings["item_ids"]) + 1
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise damaged(folder / TABLES) from error
        if not are_whole:
            raise ValueError(f"{SETTINGS} and {TABLES} of {str(folder)!r} disagree about the number of items; {AGAIN}")
        return cls(folder, settings, tables)


AGAIN = "copy the folder again, or export the model again."


def damaged(path: Path) -> ValueError:
    """Returns the error about a file that can't be read."""
    return ValueError(f"{path.name} of {str(path.parent)!r} is damaged; {AGAIN}")
