import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etegrec_hf.models.code_trie import CodeTrie, ItemSets


@st.composite
def catalogues(draw):
    codebook_size, length = draw(st.integers(2, 5)), draw(st.integers(2, 4))
    code = st.tuples(*[st.integers(0, codebook_size - 1)] * length)
    rows = draw(st.lists(code, min_size=1, max_size=30, unique=True))
    return torch.tensor(rows), codebook_size


@given(catalogues())
def test_every_walk_agrees_with_a_dictionary(catalogue):
    codes, codebook_size = catalogue
    trie = CodeTrie.from_item_codes(codes, codebook_size)
    paths = {tuple(row): index for index, row in enumerate(codes.tolist(), start=1)}
    prefixes = {path[:length] for path in paths for length in range(codes.shape[1])}
    for prefix in prefixes:
        node = trie.walk(torch.tensor(prefix, dtype=torch.long))
        expected = {path[len(prefix)] for path in paths if path[: len(prefix)] == prefix}
        assert set(trie.children(node, len(prefix)).nonzero().flatten().tolist()) == expected
        assert trie.item_count(node) == sum(path[: len(prefix)] == prefix for path in paths)
        successors, child = trie.successors(node, len(prefix))
        assert dict(zip(successors[child >= 0].tolist(), child[child >= 0].tolist())) == {
            code: trie.walk(torch.tensor([*prefix, code])).item() for code in expected
        }
        assert (trie.parent(child[child >= 0]) == node).all()
    everything = torch.cartesian_prod(*[torch.arange(codebook_size)] * codes.shape[1])
    items = trie.item(trie.walk(everything)).tolist()
    assert items == [paths.get(tuple(row), 0) for row in everything.tolist()]


@given(catalogues(), st.data())
def test_restricting_keeps_exactly_the_chosen_items(catalogue, data):
    codes, codebook_size = catalogue
    chosen = data.draw(st.sets(st.integers(1, len(codes)), min_size=1))
    trie = CodeTrie.from_item_codes(codes, codebook_size).restrict(torch.tensor(sorted(chosen)))
    items = trie.item(trie.walk(codes)).tolist()
    assert items == [index if index in chosen else 0 for index in range(1, len(codes) + 1)]
    leaves = trie.leaf(torch.arange(len(codes) + 3))  # of padding, of all items and of two that never were
    assert leaves.tolist() == [-1, *trie.walk(codes).tolist(), -1, -1]


@given(catalogues(), st.data())
def test_a_node_is_dead_when_all_of_its_items_are_excluded(catalogue, data):
    codes, codebook_size = catalogue
    trie = CodeTrie.from_item_codes(codes, codebook_size)
    leaves = torch.cat([torch.tensor([-1]), trie.walk(codes)])  # by item index
    rows = data.draw(st.lists(st.lists(st.integers(0, len(codes)), min_size=5, max_size=5), min_size=1, max_size=3))
    excluded = ItemSets(trie, leaves[torch.tensor(rows)])
    assert excluded.n_others.tolist() == [len(codes) - len(set(row) - {0}) for row in rows]
    for level in range(codes.shape[1]):
        node = trie.walk(codes[:, : level + 1])  # of each item
        dead = excluded.contain(node.expand(len(rows), -1), level)
        for row, banned in enumerate(rows):
            for item in range(len(codes)):
                below = (node == node[item]).nonzero().flatten() + 1
                assert dead[row, item] == set(below.tolist()).issubset(banned)


def test_paths_longer_than_a_machine_word_are_sorted_too():
    codes = torch.randint(0, 2**20, (50, 4), generator=torch.Generator().manual_seed(0))
    codes[25:, :3] = codes[:25, :3]  # shared prefixes
    trie = CodeTrie.from_item_codes(codes, 2**20)
    assert torch.equal(trie.item(trie.walk(codes)), torch.arange(1, 51))
    rows = codes.tolist()
    assert trie.leaf_items.tolist() == [index + 1 for index in sorted(range(50), key=rows.__getitem__)]


def test_nowhere_leads_nowhere():
    trie = CodeTrie.from_item_codes(torch.tensor([[0, 1], [1, 0]]), 2)
    lost = torch.tensor([-1])
    assert not trie.children(lost, 1).any()
    assert trie.advance(lost, torch.tensor([1])).item() == -1
    assert trie.item(lost).item() == 0
    assert trie.advance(torch.tensor([0]), torch.tensor([2])).item() == -1, "a code beyond K is no other node's child"


def test_equal_codes_are_an_error_that_names_both_items():
    with pytest.raises(ValueError, match=r"items 1 and 3 share the codes \[0, 1\].*assign_item_codes"):
        CodeTrie.from_item_codes(torch.tensor([[0, 1], [1, 1], [0, 1]]), 2)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.empty(0, 2, dtype=torch.long), "`codes` is empty"),
        (torch.tensor([[0, 4]]), r"outside 0\.\.3; raise `codebook_size`"),
        (torch.tensor([[-1, 0]]), r"outside 0\.\.3"),
    ],
)
def test_codes_that_are_none_are_an_error(codes, message):
    with pytest.raises(ValueError, match=message):
        CodeTrie.from_item_codes(codes, 4)
