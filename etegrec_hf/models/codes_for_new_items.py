"""Codes for items that join a catalogue."""

from collections.abc import Callable

import torch

from .code_trie import CodeTrie


def free_codes(trie: CodeTrie, prefixes: torch.Tensor, closeness: Callable[[int], torch.Tensor]) -> torch.Tensor:
    """Returns codes that no item has yet, one row per prefix.

    A new suffix follows the last suffix of its prefix, as if the item had been there from the start. The first item of
    a prefix gets suffix 0.

    Args:
        trie ([`CodeTrie`]): the codes of all items so far.
        prefixes (`torch.LongTensor` of shape `(n, code_length - 1)`): the RQ-VAE's codes of the new items.
        closeness (`Callable`): function from a row of `prefixes` to the closeness `[K]` of that item to each code of
            the RQ-VAE's last level. If a prefix has no suffix left, its last code is replaced by the closest code with
            a free suffix.

    Returns:
        `torch.LongTensor` of shape `(n, code_length)`.

    Raises:
        ValueError: all codes below an item's parent are taken.
    """
    size = trie.layout.codebook_size
    taken: dict[tuple[int, ...], set[int]] = {}  # suffixes of each prefix that was looked at

    def suffixes(prefix: tuple[int, ...]) -> set[int]:
        if prefix not in taken:
            node = trie.walk(torch.tensor(prefix, device=trie.device))
            taken[prefix] = set(trie.children(node, len(prefix)).nonzero().flatten().tolist())
        return taken[prefix]

    rows = []
    for row, prefix in enumerate(map(tuple, prefixes.tolist())):
        if len(suffixes(prefix)) == size:
            nearest = closeness(row).argsort(descending=True).tolist()
            free = (code for code in nearest if len(suffixes((*prefix[:-1], code))) < size)
            code = next(free, None)
            if code is None:
                raise ValueError(
                    f"there are no free codes for new item {row}: all {size}^2 below {list(prefix[:-1])} are taken; "
                    "train the item tokenizer again, with a larger `codebook_size`."
                )
            prefix = (*prefix[:-1], code)
        own = suffixes(prefix)
        suffix = next((number for number in range(size) if number not in own and (number - 1) % size in own), 0)
        own.add(suffix)
        rows.append([*prefix, suffix])
    return torch.tensor(rows, dtype=torch.long, device=trie.device).view(len(rows), trie.layout.code_length)
