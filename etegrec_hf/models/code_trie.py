"""The index of all prefixes of all items' codes, and sets of items as nodes of it."""

from functools import cached_property

import torch
import torch.nn.functional as F

from .token_layout import TokenLayout


class CodeTrie:
    """An index of all prefixes of all items' codes: which codes may follow, and which item a whole path is.

    All look-ups are tensor operations. Nodes are numbered level by level, and within a level in the order of their
    paths: node 0 is the root, and the last `n_items` nodes are the items. So the children of a node have consecutive
    numbers. Node -1 means "not in the trie": it has no children and no item, and advancing from it gives -1.

    Build it with [`CodeTrie.from_item_codes`]. It isn't saved: a model rebuilds it from its `item_tokens`. Ten million
    items take about 250 MB.
    """

    def __init__(
        self,
        keys: torch.Tensor,
        child_start: torch.Tensor,
        leaf_items: torch.Tensor,
        inner_counts: torch.Tensor,
        max_children: list[int],
        layout: TokenLayout,
    ):
        self.keys = keys  # [nodes - 1] int64: parent * K + code of nodes 1.., ascending
        self.child_start = child_start  # [inner nodes + 1] int32: first child of each inner node
        self.leaf_items = leaf_items  # [n_items] int32: item index of the last nodes
        self.inner_counts = inner_counts  # [inner nodes] int32: items below each inner node
        self.max_children = max_children  # per level: most children of one node
        self.layout = layout

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
        order = _path_order(codes, codebook_size)
        first = torch.zeros(1, dtype=torch.long, device=device)  # the root's first row in path order
        is_first = torch.zeros(n_items, dtype=torch.bool, device=device)  # rows that begin a new prefix
        is_first[0] = True
        nodes, keys, child_start, counts, max_children = 1, [], [], [], []
        for level in range(code_length):
            level_codes = codes[order, level]
            is_first[1:] |= level_codes[1:] != level_codes[:-1]
            parents, first = first, is_first.nonzero().squeeze(1)  # first rows of this level's nodes and of the next's
            parent = nodes - len(parents) + torch.searchsorted(parents, first, right=True) - 1
            keys.append(parent * codebook_size + level_codes[first])
            start = torch.searchsorted(first, parents)  # number of each parent's first child
            max_children.append(_lengths(start, len(first)).max().item())
            child_start.append(nodes + start)
            counts.append(_lengths(parents, n_items))
            nodes += len(first)
        if len(first) != n_items:
            row = (~is_first).nonzero()[0, 0]
            twin, item = items[order[row - 1]].item(), items[order[row]].item()
            raise ValueError(
                f"items {min(twin, item)} and {max(twin, item)} share the codes {codes[order[row]].tolist()}; codes "
                "must be unique: make them unique with `assign_item_codes`."
            )
        child_start.append(torch.tensor([nodes], device=device))
        return cls(
            torch.cat(keys),
            torch.cat(child_start).int(),
            items[order].int(),
            torch.cat(counts).int(),
            max_children,
            TokenLayout(code_length, codebook_size),
        )

    @property
    def device(self) -> torch.device:
        return self.keys.device

    @property
    def n_items(self) -> int:
        return len(self.leaf_items)

    def successors(self, node: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the children of each node.

        Args:
            node (`torch.LongTensor` of any shape): nodes of one level, or -1.
            level (`int`): number of codes that lead to these nodes.

        Returns:
            codes and child nodes, both of shape `(*node.shape, m)`, m being the largest number of children of a node
            of this level. Nodes with fewer children are padded with code 0 and node -1.
        """
        known = node.clamp(min=0)
        start, end = self.child_start[known].long(), self.child_start[known + 1]
        end = torch.where(node < 0, start, end)
        child = start.unsqueeze(-1) + torch.arange(self.max_children[level], device=node.device)
        exists = child < end.unsqueeze(-1)
        code = self.last_code(child.clamp(max=len(self.keys)))
        return torch.where(exists, code, 0), torch.where(exists, child, -1)

    def children(self, node: torch.Tensor, level: int) -> torch.Tensor:
        """Returns a mask `(*node.shape, codebook_size)` of the codes that may follow; arguments as in `successors`."""
        return self.as_mask(*self.successors(node, level))

    def as_mask(self, codes: torch.Tensor, child: torch.Tensor) -> torch.Tensor:
        """Returns a mask `(*, codebook_size)` over all codes, given the results of `successors`."""
        mask = torch.zeros(*codes.shape[:-1], self.layout.codebook_size + 1, dtype=torch.bool, device=codes.device)
        mask.scatter_(
            -1, codes.masked_fill(child < 0, self.layout.codebook_size), True
        )  # unused places: the spare column
        return mask[..., :-1]

    def advance(self, node: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Returns the child that each node has under each code, -1 for none; both tensors have the same shape."""
        key = node * self.layout.codebook_size + code
        position = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        in_range = (code >= 0) & (code < self.layout.codebook_size) & (node >= 0)
        return torch.where(in_range & (self.keys[position] == key), position + 1, -1)

    def walk(self, codes: torch.Tensor) -> torch.Tensor:
        """Returns the node that codes `[*, up to code_length]` lead to from the root, or -1."""
        node = torch.zeros(codes.shape[:-1], dtype=torch.long, device=codes.device)
        for level in range(codes.shape[-1]):
            node = self.advance(node, codes[..., level])
        return node

    def parent(self, node: torch.Tensor) -> torch.Tensor:
        """Returns the parent of each node, none of which is the root or -1."""
        return self.keys[node - 1] // self.layout.codebook_size

    def last_code(self, node: torch.Tensor) -> torch.Tensor:
        """Returns the code that leads to each node, none of which is the root or -1."""
        return self.keys[node - 1] % self.layout.codebook_size

    def item_count(self, node: torch.Tensor) -> torch.Tensor:
        """Returns the number of items below each node, none of which is -1; 1 for a leaf."""
        inner = len(self.inner_counts)
        return torch.where(node < inner, self.inner_counts[node.clamp(max=inner - 1)], 1)

    def item(self, node: torch.Tensor) -> torch.Tensor:
        """Returns the item index of each leaf, and 0 for -1 and for inner nodes."""
        leaf = node - len(self.inner_counts)
        return torch.where(leaf >= 0, self.leaf_items[leaf.clamp(min=0)].long(), 0)

    def leaf(self, items: torch.Tensor) -> torch.Tensor:
        """Returns the leaf of each item index, -1 for items that the trie doesn't hold; undoes [`~CodeTrie.item`]."""
        node = self._leaves[items.clamp(max=len(self._leaves) - 1)].long()
        return torch.where(items < len(self._leaves), node, -1)

    @cached_property
    def _leaves(self) -> torch.Tensor:  # [largest item index + 1] int32, made when it is first asked for
        leaves = torch.full((self.leaf_items.max().item() + 1,), -1, dtype=torch.int32, device=self.device)
        first = len(self.inner_counts)
        nodes = torch.arange(first, first + self.n_items, dtype=torch.int32, device=self.device)
        return leaves.index_copy_(0, self.leaf_items.long(), nodes)

    def leaves_below(self, node: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the items below each node, and the child of the node that leads to each item.

        Args:
            node (`torch.LongTensor` of any shape): nodes of `level`, or -1.
            level (`int`): number of codes that lead to these nodes.

        Returns:
            leaves, counted from 0 among all leaves, and for each the number of the child, counted from 0 among the
            node's children. Both have the shape `(*node.shape, m)`, m being the largest number of items below a node
            of this level. Nodes with fewer items are padded with -1.
        """
        starts, ancestors, widest = self._spans[level]
        place = (node - self._level_starts[level]).clamp(min=0)
        leaf = starts[place].unsqueeze(-1) + torch.arange(widest, device=node.device)
        exists = (leaf < starts[place + 1].unsqueeze(-1)) & (node >= 0).unsqueeze(-1)
        leaf = leaf.masked_fill(~exists, -1)
        child = ancestors[leaf] - self.child_start[node.clamp(min=0)].unsqueeze(-1)
        return leaf, child.masked_fill(~exists, -1)

    @cached_property
    def _level_starts(self) -> list[int]:  # the first node of each level, the leaves' too
        starts = [0]
        for _ in range(self.layout.code_length):
            starts.append(int(self.child_start[starts[-1]]))
        return starts

    @cached_property
    def _spans(self) -> list[tuple[torch.Tensor, torch.Tensor, int]]:
        """Returns per level: each node's first leaf, each leaf's ancestor one level below, and the most leaves."""
        levels: list[tuple[torch.Tensor, torch.Tensor, int]] = []
        node = torch.arange(self.n_items, device=self.device) + len(self.inner_counts)
        for level in reversed(range(self.layout.code_length)):
            counts = self.inner_counts[self._level_starts[level] : self._level_starts[level + 1]].long()
            starts = F.pad(counts.cumsum(0), (1, 0))
            levels.insert(0, (starts, node, int(counts.max())))
            node = self.parent(node)
        return levels

    def restrict(self, items: torch.Tensor) -> "CodeTrie":
        """Returns a trie of those items that both `items` and this trie hold."""
        leaves = torch.isin(self.leaf_items, items).nonzero().squeeze(1)
        node, codes = leaves + len(self.inner_counts), []
        for _ in range(self.layout.code_length):
            codes.append(self.last_code(node))
            node = self.parent(node)
        return CodeTrie.from_item_codes(
            torch.stack(codes[::-1], dim=1), self.layout.codebook_size, self.leaf_items[leaves].long()
        )


class AllCodes:
    """A trie of all paths, in which any code may follow any other; its nodes are the codes themselves.

    It has those methods of a [`CodeTrie`] that decoding calls.

    Args:
        layout ([`TokenLayout`]): layout of the vocabulary.
        device (`torch.device`): device of the nodes.
    """

    def __init__(self, layout: TokenLayout, device: torch.device):
        self.layout, self.device = layout, device

    def successors(self, node: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns all K codes, and again as child nodes, as [`CodeTrie.successors`] does."""
        codes = torch.arange(self.layout.codebook_size, device=node.device).expand(*node.shape, -1)
        return codes, codes

    def walk(self, codes: torch.Tensor) -> torch.Tensor:
        """Returns node 0 for codes `[*, up to code_length]`: the node makes no difference here."""
        return torch.zeros(codes.shape[:-1], dtype=torch.long, device=codes.device)

    def last_code(self, node: torch.Tensor) -> torch.Tensor:
        """Returns the code that leads to each node."""
        return node

    def item(self, node: torch.Tensor) -> torch.Tensor:
        """Returns 0 for each node, as no path is known to be an item."""
        return torch.zeros_like(node)


class ItemSets:
    """A set of items per user, as the nodes of a trie that lead to nothing but these items.

    Args:
        trie ([`CodeTrie`]): the catalogue.
        leaves (`torch.LongTensor` of shape `(users, n)`): the nodes of each user's items, in any order and possibly
            repeated; -1 for no item.
    """

    def __init__(self, trie: CodeTrie, leaves: torch.Tensor):
        none = len(trie.keys) + 1  # sorts after all nodes
        node = leaves.masked_fill(leaves < 0, none).sort(dim=1).values
        node[:, 1:] = node[:, 1:].masked_fill(node[:, 1:] == node[:, :-1], none)
        node = node.sort(dim=1).values
        self.n_users = len(leaves)
        self.n_others = trie.n_items - (node < none).sum(1)  # [users] items of the trie that aren't in the set
        self.nodes: list[torch.Tensor] = []  # per level: nodes that lead to set items only [users, n], then `none`
        for _ in range(trie.layout.code_length):
            # ancestors of sorted leaves are sorted: the length of a run of equal ones counts its items in the set
            run = torch.searchsorted(node, node, right=True) - torch.searchsorted(node, node)
            exists = node < none
            ancestor = node.masked_fill(~exists, 1)
            is_full = exists & (run == trie.item_count(ancestor))
            self.nodes.insert(0, node.masked_fill(~is_full, none).sort(dim=1).values)
            node = trie.parent(ancestor).masked_fill(~exists, none)

    def contain(self, child: torch.Tensor, level: int) -> torch.Tensor:
        """Returns which child nodes `[users, *]` of nodes of `level` lead to items of the user's set only."""
        if not self.nodes[level].shape[1]:
            return torch.zeros_like(child, dtype=torch.bool)
        flat = child.flatten(1).contiguous()
        place = torch.searchsorted(self.nodes[level], flat).clamp(max=self.nodes[level].shape[1] - 1)
        return (self.nodes[level].gather(1, place) == flat).view(child.shape)

    def without(self, child: torch.Tensor, level: int) -> torch.Tensor:
        """Returns child nodes `[users, *]` of nodes of `level`, with -1 for those that `contain` finds."""
        return child.masked_fill(self.contain(child, level), -1)


def _path_order(codes: torch.Tensor, codebook_size: int) -> torch.Tensor:
    """Returns the lexicographic order of the rows of `codes` `[n, L]`, as row numbers.

    Rows are sorted by as many levels at a time as fit into 63 bits.
    """
    together = max(1, 63 // max(1, (codebook_size - 1).bit_length()))
    order = torch.arange(len(codes), device=codes.device)
    for start in reversed(range(0, codes.shape[1], together)):
        word = torch.zeros_like(order)
        for level in range(start, min(start + together, codes.shape[1])):
            word = word * codebook_size + codes[order, level]
        order = order[word.argsort(stable=True)]
    return order


def _lengths(starts: torch.Tensor, end: int) -> torch.Tensor:
    """Returns the distance of each start from the next one, and of the last from `end`."""
    return torch.diff(starts, append=starts.new_tensor([end]))
