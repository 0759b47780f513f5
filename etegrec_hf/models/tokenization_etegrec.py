"""The tokenizer, which turns item ids into code tokens and back."""

import difflib
import json
import os
import re

import torch
from transformers import BatchEncoding, PreTrainedTokenizer

from .token_layout import TokenLayout

LEVEL_LETTERS = "abcdefghijklmnopqrstuvwxyz"
CODE_TOKEN = re.compile(r"<([a-z])_(0|[1-9]\d*)>")
MOST_COMPARED = 20_000  # largest catalogue that is searched for ids like an unknown one, for up to half a second


def code_token(level: int, code: int) -> str:
    """Returns the token string of a code: `<a_12>` for code 12 of level 0."""
    return f"<{LEVEL_LETTERS[level]}_{code}>"


def first_repeated(item_ids: list[str]) -> str:
    """Returns the first id that occurs a second time in the list, which must hold one."""
    seen: set[str] = set()
    for item_id in item_ids:
        if item_id in seen:
            break
        seen.add(item_id)
    return item_id


def is_list_like(values) -> bool:
    """Returns whether these are ordered values: a list, a tuple, an array or a series."""
    return isinstance(values, (list, tuple)) or (hasattr(values, "tolist") and getattr(values, "ndim", 1) > 0)


def as_list(values) -> list:
    """Returns values as a Python list, given any iterable."""
    return values.tolist() if hasattr(values, "tolist") else list(values)


def read_by_item(path: str) -> dict:
    """Reads a JSON file with one entry per item id, like an `*.index.json`, in the file's order.

    Raises:
        ValueError: an item id occurs twice in the file.
    """

    def unique(pairs):
        item_index = dict(pairs)
        if len(item_index) != len(pairs):
            twin = first_repeated([key for key, _ in pairs])
            raise ValueError(f"item id {twin!r} occurs twice in {path}; every item needs an id of its own.")
        return item_index

    with open(path, encoding="utf-8") as file:
        return json.load(file, object_pairs_hook=unique)


def as_item_index(item_ids: list[str], codes: torch.Tensor) -> dict[str, list[str]]:
    """Returns token strings by item id, given raw codes `[n_items, code_length]`.

    Raises:
        ValueError: an item id that occurs twice or isn't a string.
        ValueError: different numbers of ids and rows.
    """
    for item_id in item_ids:
        if not isinstance(item_id, str):
            raise ValueError(f"item id {item_id!r} isn't a string; give ids as strings.")
    if len(item_ids) != len(codes):
        raise ValueError(f"`item_ids` holds {len(item_ids)} ids and `codes` {len(codes)} rows; give one row per id.")
    strings = [  # one object per token string, which all items share
        {code: code_token(level, code) for code in level_codes.unique().tolist()}
        for level, level_codes in enumerate(codes.unbind(1))
    ]
    item_index = {
        item_id: [by_code[code] for by_code, code in zip(strings, row)]
        for item_id, row in zip(item_ids, codes.tolist())
    }
    if len(item_index) != len(item_ids):
        twin = first_repeated(item_ids)
        raise ValueError(f"item id {twin!r} occurs twice in `item_ids`; every item needs an id of its own.")
    return item_index


class ETEGRecTokenizer(PreTrainedTokenizer):
    """Turns histories of item ids into code tokens, and code tokens into item ids.

    `item_index.json` maps each item id to its token strings, in the order of item indices: the `*.index.json`
    convention of LC-Rec, LETTER and MiniOneRec. `item_titles.json` maps item ids to titles, as far as they are known.

    Args:
        item_index_file (`str`, *optional*): path of `item_index.json`.
        item_index (`dict[str, list[str]]`, *optional*): the same mapping, instead of a file.
        codebook_size (`int`, *optional*, defaults to 256): K, codes per level.
        max_history (`int`, *optional*, defaults to 50): number of a history's last items that are read.
        item_titles_file (`str`, *optional*): path of `item_titles.json`.
        item_titles (`dict[str, str]`, *optional*): the same mapping, instead of a file; may be changed at any time.

    Raises:
        ValueError: no items.
        ValueError: items with different numbers of codes.
        ValueError: strings that aren't token strings, or codes out of range.
        ValueError: two items with the same codes.
        ValueError: a title of an item that isn't in the catalogue.
    """

    vocab_files_names = {"item_index_file": "item_index.json", "item_titles_file": "item_titles.json"}
    model_input_names = ["input_ids", "attention_mask"]
    padding_side = "right"

    def __init__(
        self,
        item_index_file=None,
        item_index=None,
        codebook_size=256,
        max_history=50,
        item_titles_file=None,
        item_titles=None,
        **kwargs,
    ):
        if item_index is None:
            if item_index_file is None:
                raise ValueError("the tokenizer needs its items: give `item_index_file` or `item_index`.")
            item_index = read_by_item(item_index_file)
        if not item_index:
            raise ValueError("`item_index` is empty; a tokenizer needs at least one item.")
        self.codebook_size, self.max_history = codebook_size, max_history
        self.code_length = len(next(iter(item_index.values())))
        self._layout = TokenLayout(self.code_length, codebook_size)
        self._token_strings = ["<pad>"] + [
            code_token(level, code) for level in range(self.code_length) for code in range(codebook_size)
        ]
        self._token_ids = {token: index for index, token in enumerate(self._token_strings)}
        self._set_items(item_index)
        self.item_titles = dict(item_titles or (read_by_item(item_titles_file) if item_titles_file else {}))
        self._check_titles()
        kwargs.setdefault("pad_token", "<pad>")
        kwargs.setdefault("model_max_length", max_history * self.code_length)
        super().__init__(codebook_size=codebook_size, max_history=max_history, **kwargs)

    def _set_items(self, item_index: dict[str, list[str]]) -> None:
        """Replaces the items; after an error nothing has changed."""
        rows = [self._item_row(item_id, tokens) for item_id, tokens in item_index.items()]
        item_of_tokens: dict[tuple[int, ...], str] = {}
        for item_id, row in zip(item_index, rows):
            if (twin := item_of_tokens.setdefault(row, item_id)) != item_id:
                raise ValueError(
                    f"items {twin!r} and {item_id!r} share the codes {item_index[item_id]}; codes must be unique: "
                    "make them unique with `assign_item_codes`."
                )
        self.item_ids = list(item_index)
        self.item_tokens = torch.tensor([(0,) * self.code_length, *rows])  # [n_items + 1, L]
        self._item_of_tokens = item_of_tokens
        self._index_of_item = {item_id: index for index, item_id in enumerate(self.item_ids, start=1)}

    def _item_row(self, item_id: str, tokens: list[str]) -> tuple[int, ...]:
        """Returns the token ids of one item's token strings."""
        if len(tokens) != self.code_length:
            raise ValueError(
                f"item {item_id!r} has {len(tokens)} code{'s' * (len(tokens) != 1)} and the first item "
                f"{self.code_length}; all items need the same number."
            )
        row = tuple(self._token_ids.get(token, 0) for token in tokens)  # token id 0 belongs to no level
        for level, (token, token_id) in enumerate(zip(tokens, row)):
            if self._layout.level_of(token_id) != level:
                raise ValueError(
                    f"item {item_id!r} has {token!r} at level {level}; expected <{LEVEL_LETTERS[level]}_0> to "
                    f"<{LEVEL_LETTERS[level]}_{self.codebook_size - 1}> (`codebook_size` is {self.codebook_size})."
                )
        return row

    @classmethod
    def from_item_codes(cls, item_ids: list[str], codes: torch.Tensor, codebook_size: int, **kwargs):
        """Makes a tokenizer of items with raw codes `[n_items, code_length]`; further arguments as in the class.

        Raises:
            ValueError: an item id that occurs twice.
            ValueError: different numbers of ids and rows.
        """
        return cls(item_index=as_item_index(item_ids, codes), codebook_size=codebook_size, **kwargs)

    # Methods of the vocabulary that transformers calls

    @property
    def vocab_size(self) -> int:
        return len(self._token_strings)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._token_ids)

    def _convert_token_to_id(self, token: str) -> int | None:
        return self._token_ids.get(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self._token_strings[index]

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Writes `item_index.json` and `item_titles.json`.

        Raises:
            ValueError: a title that isn't a string, or of an item that isn't in the catalogue.
        """
        self._check_titles()
        contents = {"item_index_file": self._item_index(), "item_titles_file": self.item_titles}
        paths = []
        for kind, content in contents.items():
            name = (f"{filename_prefix}-" if filename_prefix else "") + self.vocab_files_names[kind]
            path = os.path.join(save_directory, name)
            with open(path, "w", encoding="utf-8") as file:
                json.dump(content, file, ensure_ascii=False)
            paths.append(path)
        return tuple(paths)

    # Item ids and tokens

    def _check_titles(self) -> None:
        for item_id, title in self.item_titles.items():
            if item_id not in self._index_of_item:
                raise ValueError(
                    f"`item_titles` has a title for item {item_id!r}, which isn't in the catalogue; drop that title."
                )
            if not isinstance(title, str):
                raise ValueError(f"`item_titles` has {title!r} for item {item_id!r}; give titles as strings.")

    def _item_index(self) -> dict[str, list[str]]:
        rows = self.item_tokens[1:].tolist()
        return {item_id: [self._token_strings[token] for token in row] for item_id, row in zip(self.item_ids, rows)}

    def add_items(self, item_ids: list[str], codes: torch.Tensor) -> None:
        """Appends items with raw codes `[n, code_length]`; other items keep their indices.

        After an error the tokenizer is unchanged.

        Raises:
            ValueError: an id or codes that another item has.
            ValueError: codes out of range.
        """
        new = as_item_index(item_ids, codes)
        for item_id in new:
            if item_id in self._index_of_item:
                raise ValueError(f"item {item_id!r} is in the catalogue already; every item needs an id of its own.")
        self._set_items(self._item_index() | new)

    def index_of(self, item_ids: list[str], unknown: str = "error") -> list[int]:
        """Returns item indices of item ids.

        Args:
            item_ids (`list[str]`): item ids.
            unknown (`str`, *optional*, defaults to `"error"`): `"skip"` leaves out ids that aren't in the catalogue;
                `"error"` raises.

        Raises:
            ValueError: an id that isn't a string.
            ValueError: an unknown id, unless such ids are skipped. The error suggests a similar id, if there is one.
        """
        if unknown not in ("error", "skip"):
            raise ValueError(f"`unknown` is {unknown!r}; choose 'error' or 'skip'.")
        for item_id in item_ids:
            if not isinstance(item_id, str):
                shown = str(item_id)
                remedy = f"give {shown!r}" if shown in self._index_of_item else "give strings"
                raise ValueError(
                    f"item {item_id!r} is of type {type(item_id).__name__}, but item ids are strings; {remedy}."
                )
            if item_id not in self._index_of_item and unknown == "error":
                raise ValueError(
                    f"item {item_id!r} is not in the catalogue of {len(self.item_ids)} items; {self._nearest(item_id)}"
                    "leave it out, or give `unknown` 'skip' to leave out all such items."
                )
        return [self._index_of_item[item_id] for item_id in item_ids if item_id in self._index_of_item]

    def _nearest(self, item_id: str) -> str:
        """Suggests the item that has this title, or else one with a similar id or title; `""` if there is none."""
        title_of = self.item_titles
        found = [known for known, title in title_of.items() if title.casefold() == item_id.casefold()]
        if not found and len(self.item_ids) <= MOST_COMPARED:
            found = difflib.get_close_matches(item_id, self.item_ids, n=1)
            if not found:
                near = difflib.get_close_matches(item_id, title_of.values(), n=1)
                found = [known for known, title in title_of.items() if title in near]
        if not found:
            return ""
        title = f" ({title_of[found[0]]})" if found[0] in title_of else ""
        return f"did you mean {found[0]!r}{title}? Otherwise, "

    def ids_of(self, items) -> list:
        """Returns item ids of item indices, as `recommend` returns them; index 0, padding, is left out.

        Args:
            items (`torch.LongTensor` of shape `(n,)` or `(batch, n)`, or lists): item indices.

        Returns:
            `list[str]` of at most n ids, or a list of such lists.

        Raises:
            ValueError: an index beyond the catalogue.
        """
        rows = torch.as_tensor(items)
        if rows.numel() and not 0 <= rows.min() <= rows.max() <= len(self.item_ids):
            raise ValueError(
                f"item indices range from {rows.min().item()} to {rows.max().item()}; the catalogue has "
                f"1..{len(self.item_ids)}."
            )
        if rows.ndim > 1:
            return [self.ids_of(row) for row in rows]
        return [self.item_ids[index - 1] for index in rows.tolist() if index]

    def __call__(
        self,
        histories: list,
        padding: bool | str = False,
        truncation: bool = True,
        max_length: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        unknown: str = "error",
        **kwargs,
    ) -> BatchEncoding:
        """Tokenizes one history (a list of item ids, oldest first) or several (a list of lists).

        The last `max_history` items of a history are kept, or fewer if `max_length` has no room for them.

        Args:
            histories (`list[str]` or `list[list[str]]`): item ids, oldest first. Tuples, arrays and series count as
                lists.
            padding (`bool` or `str`, *optional*, defaults to `False`): as in transformers.
            truncation (`bool`, *optional*, defaults to `True`): whether to shorten histories that are too long;
                `False` raises an error for them.
            max_length (`int`, *optional*): largest number of tokens of a history; `padding="max_length"` pads to it,
                or to the last whole item that it has room for.
            padding_side (`str`, *optional*): `"right"` (the default) or `"left"`; models give the same results for
                both.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`.
            unknown (`str`, *optional*, defaults to `"error"`): `"skip"` leaves out ids that aren't in the catalogue;
                `"error"` raises.

        Returns:
            `BatchEncoding` with `input_ids` and `attention_mask`; tensors are `(batch, items * code_length)`.

        Raises:
            ValueError: no histories, or an unknown item.
            ValueError: a history without items.
            ValueError: a history that is too long, with `truncation=False`.
            ValueError: a `max_length` without room for an item.
            TypeError: an unknown argument.
        """
        histories = self._checked_histories(histories)
        unknown_arguments = sorted(kwargs.keys() - {"add_special_tokens", "verbose"})
        if unknown_arguments:
            raise TypeError(
                f"unknown arguments {unknown_arguments}; see ETEGRecTokenizer.__call__ for those that exist."
            )
        kept = self.max_history if max_length is None else min(self.max_history, max_length // self.code_length)
        if kept < 1:
            raise ValueError(f"`max_length` is {max_length}; one item needs {self.code_length} tokens.")
        single = not histories or not isinstance(histories[0], list)
        rows = []
        for number, history in enumerate([histories] if single else histories):
            indices = self.index_of(history, unknown)
            if not indices:
                raise ValueError(f"history {number} holds no item; give at least one item of the catalogue.")
            if len(indices) > kept and not truncation:
                raise ValueError(
                    f"history {number} has {len(indices)} items, but only {kept} can be read; pass `truncation=True` "
                    "to keep the last ones."
                )
            rows.append(self.item_tokens[indices[-kept:]].flatten().tolist())
        if single and return_tensors is None and not padding:
            return BatchEncoding({"input_ids": rows[0], "attention_mask": [1] * len(rows[0])})
        return self.pad(
            {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]},
            padding=padding,
            max_length=None if max_length is None else max_length - max_length % self.code_length,
            padding_side=padding_side,
            return_tensors=return_tensors,
        )

    @staticmethod
    def _checked_histories(histories) -> list:
        """Returns one history or several as lists, given lists, tuples, arrays or series."""
        if not is_list_like(histories):
            raise ValueError(f"{histories!r} is not a history; give a list of item ids, also for a single item.")
        histories = [as_list(entry) if is_list_like(entry) else entry for entry in as_list(histories)]
        several = [isinstance(entry, list) for entry in histories]
        if any(several) and not all(several):
            odd = histories[several.index(False)]
            raise ValueError(f"{odd!r} is not a history; give a list of item ids, also for a single item.")
        return histories

    def decode(self, token_ids, skip_special_tokens: bool = True, **kwargs):
        """Returns item ids of token ids: a list for `[tokens]`, a list of lists for `[batch, tokens]`.

        Padding is left out, and so is the first token of a generated sequence. Codes of no item give `None`.
        `skip_special_tokens` and `clean_up_tokenization_spaces`, which transformers passes, change nothing: padding is
        never an item, and item ids are returned as they are.

        Raises:
            ValueError: the tokens are not whole items.
            TypeError: an unknown argument.
        """
        self._check_decoding(kwargs)
        rows = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        rows = [rows] if isinstance(rows, int) else [row.tolist() if hasattr(row, "tolist") else row for row in rows]
        if rows and not isinstance(rows[0], int):
            return [self.decode(row) for row in rows]
        tokens = [token for token in rows if token != self.pad_token_id]
        if len(tokens) % self.code_length:
            raise ValueError(
                f"the number of tokens is {len(tokens)}, not a multiple of the {self.code_length} codes of an item; "
                "give whole items."
            )
        items = [tuple(tokens[start : start + self.code_length]) for start in range(0, len(tokens), self.code_length)]
        return [self._item_of_tokens.get(item) for item in items]

    @staticmethod
    def _check_decoding(arguments: dict) -> None:
        """Raises a `TypeError` for arguments of `decode` that don't exist."""
        unknown = sorted(arguments.keys() - {"clean_up_tokenization_spaces"})
        if unknown:
            raise TypeError(f"unknown arguments {unknown}; see ETEGRecTokenizer.decode for those that exist.")

    def batch_decode(self, sequences, skip_special_tokens: bool = True, **kwargs):
        """Returns the result of [`~ETEGRecTokenizer.decode`] for each sequence; arguments and errors as there."""
        self._check_decoding(kwargs)
        return [self.decode(sequence) for sequence in sequences]


ETEGRecTokenizer.register_for_auto_class("AutoTokenizer")
