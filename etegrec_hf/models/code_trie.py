"""The index of all prefixes of all items' codes."""

from itertools import pairwise

import torch


class CodeTrie:
    """Which codes may follow a prefix, and which item a full path is, as tensor look-ups.

    Nodes are numbered level by level, within a level in the order of their paths: node 0 is the root, the last
    `n_items` nodes are the items. So the children of a node are neighbours, and (parent, code) grows with the node.
    Node -1 is "not in the trie": it has no children, no item and only itself to advance to.

    Build it with [`CodeTrie.from_item_codes`]; it is saved nowhere and rebuilt from a model's `item_tokens`.
    """

    def __init__(
        self,
        keys: torch.Tensor,
        child_start: torch.Tensor,
        leaf_items: torch.Tensor,
        leaf_counts: torch.Tensor,
        max_children: list[int],
        code_length: int,
        codebook_size: int,
    ):
        self.keys = keys  # [nodes - 1] parent * K + code of nodes 1.., ascending
        self.child_start = child_start  # [nodes + 1] first child of each node
        self.leaf_items = leaf_items  # [n_items] item index of the last nodes
        self.leaf_counts = leaf_counts  # [nodes] items below each node
        self.max_children = max_children  # one number a level
        self.code_length = code_length
        self.codebook_size = codebook_size

    @classmethod
    def from_item_codes(cls, codes: torch.Tensor, codebook_size: int, items: torch.Tensor | None = None):
        """Builds the trie by sorting.

        Args:
            codes (`torch.LongTensor` of shape `(n_items, code_length)`): raw codes `0..codebook_size-1`.
            codebook_size (`int`): K.
            items (`torch.LongTensor` of shape `(n_items,)`, *optional*): item index of each row; 1, 2, ... by default.

        Raises:
            ValueError: no items, a code out of range, or two items with the same codes.
        """
        n_items, code_length = codes.shape
        if n_items == 0:
            raise ValueError("`codes` is empty; a code trie needs at least one item.")
        if codes.min() < 0 or codes.max() >= codebook_size:
            raise ValueError(
                f"`codes` range from {codes.min().item()} to {codes.max().item()}, outside 0..{codebook_size - 1}; "
                "raise `codebook_size` or assign the codes again."
            )
        device = codes.device
        if items is None:
            items = torch.arange(1, n_items + 1, device=device)
        parents = torch.zeros(n_items, dtype=torch.long, device=device)  # node of each item's prefix so far
        keys, leaf_counts, level_starts, nodes = [], [torch.tensor([n_items], device=device)], [0], 1
        for level in range(code_length):
            level_keys, inverse, counts = torch.unique(
                parents * codebook_size + codes[:, level], return_inverse=True, return_counts=True
            )
            keys.append(level_keys)
            leaf_counts.append(counts)
            parents = nodes + inverse
            level_starts.append(nodes)
            nodes += len(level_keys)
        if len(keys[-1]) != n_items:
            order = parents.argsort(stable=True)
            twin = (parents[order][1:] == parents[order][:-1]).nonzero()[0, 0]
            first, second = items[order[twin]].item(), items[order[twin + 1]].item()
            raise ValueError(
                f"items {first} and {second} share the codes {codes[order[twin]].tolist()}; codes must be unique: "
                "make them so with `assign_item_codes`."
            )
        all_keys = torch.cat(keys)
        child_counts = torch.bincount(all_keys // codebook_size, minlength=nodes)  # [nodes]
        child_start = torch.ones(nodes + 1, dtype=torch.long, device=device)
        child_start[1:] += child_counts.cumsum(0)
        max_children = [int(child_counts[start:end].max()) for start, end in pairwise(level_starts)]
        leaf_items = torch.empty_like(items)
        leaf_items[parents - level_starts[-1]] = items
        return cls(all_keys, child_start, leaf_items, torch.cat(leaf_counts), max_children, code_length, codebook_size)

    @property
    def device(self) -> torch.device:
        return self.keys.device

    @property
    def n_items(self) -> int:
        return len(self.leaf_items)

    def to(self, device) -> "CodeTrie":
        """The same trie on another device."""
        return CodeTrie(
            self.keys.to(device),
            self.child_start.to(device),
            self.leaf_items.to(device),
            self.leaf_counts.to(device),
            self.max_children,
            self.code_length,
            self.codebook_size,
        )

    def children(self, node: torch.Tensor, level: int) -> torch.Tensor:
        """Which codes may follow.

        Args:
            node (`torch.LongTensor` of any shape): nodes of one level, or -1.
            level (`int`): how many codes lead to these nodes.

        Returns:
            `torch.BoolTensor` of shape `(*node.shape, codebook_size)`.
        """
        known = node.clamp(min=0)
        start, end = self.child_start[known], self.child_start[known + 1]
        end = torch.where(node < 0, start, end)
        child = start.unsqueeze(-1) + torch.arange(self.max_children[level], device=node.device)  # [*, max_children]
        exists = child < end.unsqueeze(-1)
        code = self.keys[(child - 1).clamp(max=len(self.keys) - 1)] % self.codebook_size
        mask = torch.zeros(*node.shape, self.codebook_size + 1, dtype=torch.bool, device=node.device)
        mask.scatter_(-1, code.masked_fill(~exists, self.codebook_size), True)  # what does not exist: the spare column
        return mask[..., :-1]

    def advance(self, node: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """The child of each node under each code (tensors of one shape), or -1 where there is none."""
        key = node * self.codebook_size + code
        position = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        in_range = (code >= 0) & (code < self.codebook_size) & (node >= 0)
        return torch.where(in_range & (self.keys[position] == key), position + 1, -1)

    def walk(self, codes: torch.Tensor) -> torch.Tensor:
        """The node that codes `[*, up to code_length]` lead to from the root, or -1."""
        node = torch.zeros(codes.shape[:-1], dtype=torch.long, device=codes.device)
        for level in range(codes.shape[-1]):
            node = self.advance(node, codes[..., level])
        return node

    def item(self, node: torch.Tensor) -> torch.Tensor:
        """Item index of each leaf, 0 for -1 and for inner nodes."""
        leaf = node - (len(self.child_start) - 1 - self.n_items)
        return torch.where(leaf >= 0, self.leaf_items[leaf.clamp(min=0)], 0)

    def restrict(self, items: torch.Tensor) -> "CodeTrie":
        """A trie of the given item indices alone (those of `items` that this trie holds)."""
        leaves = torch.isin(self.leaf_items, items).nonzero().squeeze(1) + len(self.child_start) - 1 - self.n_items
        kept = self.item(leaves)
        codes = []
        for _ in range(self.code_length):
            key = self.keys[leaves - 1]
            codes.append(key % self.codebook_size)
            leaves = key // self.codebook_size
        return CodeTrie.from_item_codes(torch.stack(codes[::-1], dim=1), self.codebook_size, kept)
