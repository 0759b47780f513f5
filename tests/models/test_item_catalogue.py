import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import RECIPE, make_model, random_codes, random_histories

from etegrec_hf import ETEGRecForConditionalGeneration, ETEGRecTokenizer, RQVAEConfig, RQVAEModel, build_recommender
from etegrec_hf.data.synthetic import SyntheticProcess
from etegrec_hf.models.code_trie import CodeTrie
from etegrec_hf.models.codes_for_new_items import free_codes
from etegrec_hf.training.item_tokenizer.codebooks import initialize_codebooks


def test_held_out_items_join_and_are_recommended(tmp_path):
    """100 items of the embedded data that the model was made without."""
    embeddings = torch.from_numpy(SyntheticProcess(n_users=10, n_items=500, seed=1).embeddings())
    torch.manual_seed(0)
    rqvae = RQVAEModel(RQVAEConfig(input_size=64, hidden_sizes=[32], latent_size=8, num_levels=2, codebook_size=16))
    initialize_codebooks(rqvae, embeddings[:400])
    sizes = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
    model = build_recommender(rqvae, embeddings[:400], **sizes).eval()
    ids = [f"i{item}" for item in range(500)]
    tokenizer = ETEGRecTokenizer.from_item_codes(ids[:400], model.catalogue.item_codes, 16)
    before = model.catalogue.item_codes.clone()
    batch = tokenizer([["i3", "i77"]], return_tensors="pt")
    old = torch.arange(1, 401)
    expected = model.recommend(**batch, top_k=400, num_beams=400)

    new = model.add_items(ids[400:], embeddings[400:], tokenizer)
    assert new.tolist() == list(range(401, 501))
    assert torch.equal(model.catalogue.item_codes[:400], before), "every existing code is as it was"
    assert torch.equal(model.catalogue.item_codes[400:, :2], rqvae.encode(embeddings[400:]))
    assert torch.equal(model.catalogue.semantic_embedding[401:], embeddings[400:])
    for mine, theirs in zip(model.recommend(**batch, top_k=400, num_beams=500, allowed=old), expected):
        torch.testing.assert_close(mine, theirs)
    items, scores = model.recommend(**batch, top_k=500, num_beams=500)
    assert sorted(items[0].tolist()) == list(range(1, 501)), "each can be recommended"
    assert scores.isfinite().all()
    assert model.recommend(**batch, top_k=100, num_beams=100, allowed=new)[0].sort().values.tolist() == [new.tolist()]

    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    saved = ETEGRecForConditionalGeneration.from_pretrained(tmp_path).eval()
    copy_tokenizer = ETEGRecTokenizer.from_pretrained(tmp_path)
    saved.catalogue.check_tokenizer(copy_tokenizer)
    assert copy_tokenizer.item_ids == ids
    assert torch.equal(saved.recommend(**batch, top_k=500, num_beams=500)[0], items)
    assert copy_tokenizer.decode(tokenizer(["i450"])["input_ids"]) == ["i450"], "a new item can be in a history"


def test_removed_items_are_read_but_not_recommended(model, tokenizer, tmp_path):
    history = model.catalogue.inputs_from_items(random_histories(model, [3, 2]))
    favourite = model.recommend(**history, top_k=1)[0]
    encoded = tokenizer(tokenizer.ids_of(favourite[0]), return_tensors="pt")
    model.remove_items(favourite.flatten())
    model.save_pretrained(tmp_path)
    for left in (model, ETEGRecForConditionalGeneration.from_pretrained(tmp_path).eval()):
        left.catalogue.check_tokenizer(tokenizer)
        items, _ = left.recommend(**history, top_k=40, num_beams=40)
        assert not set(items.flatten().tolist()) & set(favourite.flatten().tolist())
        assert (items > 0).sum(1).tolist() == [40 - len(set(favourite.flatten().tolist()))] * 2
        assert left.recommend(encoded["input_ids"].view(1, -1), top_k=1)[0].item() > 0
        with pytest.raises(ValueError, match="asks for 40 items, but for some user only"):
            left.generate(**history, num_beams=40, num_return_sequences=40)
    with pytest.raises(ValueError, match="`items` holds all 40 items of the catalogue; leave at least one"):
        model.remove_items(torch.arange(1, 41))
    with pytest.raises(ValueError, match="`items` holds item indices from 41 to 41"):
        model.remove_items(torch.tensor([41]))


def test_a_removed_items_codes_stay_taken(model, tokenizer):
    model.remove_items(torch.arange(1, 20))
    model.add_items(["new"], model.catalogue.semantic_embedding[1:2], tokenizer)
    assert len(model.catalogue.item_codes.unique(dim=0)) == 41


@pytest.mark.parametrize(
    ("ids", "change", "message"),
    [
        (["i3", "x"], {}, "item 'i3' is in the catalogue already"),
        (["x", "x"], {}, "item id 'x' occurs twice"),
        ([3, 4], {}, "item id 3 isn't a string"),
        ("xy", {}, "`ids` is 'xy'; give a list of item ids"),
        (["x"], {}, r"`embeddings` has shape \(2, 12\); expected \(1, 12\)"),
        (["x", "y"], {"nan": 1}, "`embeddings` holds NaN or infinity, first at item index 42"),
        (["x", "y"], {"swap": 1}, "tokenizer and model disagree about item 'i1'"),
    ],
)
def test_items_that_cannot_join_change_nothing(model, tokenizer, codes, ids, change, message):
    embeddings = torch.randn(2, 12)
    if "nan" in change:
        embeddings[1, 3] = torch.nan
    if "swap" in change:
        tokenizer = ETEGRecTokenizer.from_item_codes(tokenizer.item_ids, codes[[1, 0, *range(2, 40)]], 8)
    with pytest.raises(ValueError, match=message):
        model.add_items(ids, embeddings, tokenizer)
    assert model.config.n_items == len(tokenizer.item_ids) == 40
    assert torch.equal(model.catalogue.item_codes, codes)
    assert len(tokenizer.item_tokens) == 41


def test_embeddings_beyond_the_models_dtype_are_an_error(model, tokenizer):
    model.half()
    before, embeddings = model.catalogue.semantic_embedding.clone(), torch.randn(40, 12)
    embeddings[4, 3] = 1e5  # infinity in float16
    message = r"`embeddings` holds numbers beyond torch\.float16, the model's dtype, first at item index {}; scale the"
    with pytest.raises(ValueError, match=message.format(5)):
        model.catalogue.set_semantic_embedding(embeddings)
    with pytest.raises(ValueError, match=message.format(42)):
        model.add_items(["x", "y"], embeddings[3:5], tokenizer)
    assert torch.equal(model.catalogue.semantic_embedding, before)
    assert model.config.n_items == len(tokenizer.item_ids) == 40


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.uint8, torch.int32])
def test_item_indices_may_have_any_whole_dtype(model, dtype):
    inputs = model.catalogue.inputs_from_items(torch.tensor([[1, 2], [3, 0]]))
    given = {"exclude": torch.tensor([[5, 0], [6, 9]]), "allowed": torch.arange(1, 31)}
    expected = model.recommend(**inputs, **given)
    found = model.recommend(**inputs, **{name: items.to(dtype) for name, items in given.items()})
    assert all(map(torch.equal, found, expected))
    model.remove_items(torch.tensor([7, 30], dtype=dtype))
    assert model.catalogue.is_removed.nonzero().squeeze(1).tolist() == [7, 30]


def test_items_can_join_in_inference_mode(model, tokenizer):
    with torch.inference_mode():
        model.add_items(["new"], torch.randn(1, 12), tokenizer)
        assert 41 in model.recommend(model.catalogue.item_tokens[[1]], top_k=41, num_beams=41)[0]
        model.remove_items(torch.tensor([41]))
        assert 41 not in model.recommend(model.catalogue.item_tokens[[1]], top_k=41, num_beams=41)[0]
    model.remove_items(torch.tensor([40]))
    model.set_item_codes(model.catalogue.item_codes.roll(1, dims=0))
    assert not {40, 41} & set(model.recommend(model.catalogue.item_tokens[[1]], top_k=41, num_beams=41)[0][0].tolist())


def test_no_items_join_without_a_trace(model, tokenizer, codes):
    assert model.add_items([], torch.empty(0, 12), tokenizer).tolist() == []
    assert torch.equal(model.catalogue.item_codes, codes)
    model.recommend(model.catalogue.item_tokens[[1]])


def test_the_trie_follows_its_tables(model):
    first = model.recommend(model.catalogue.item_tokens[[1]], top_k=40, num_beams=40)
    assert model.catalogue.trie is model.catalogue.trie, "built once"
    model.set_item_codes(model.catalogue.item_codes.roll(1, dims=0))
    second = model.recommend(model.catalogue.item_tokens[[2]], top_k=40, num_beams=40)
    assert torch.equal(second[0], first[0] % 40 + 1), "every item has its neighbour's codes"
    other = make_model(random_codes(40, 3, 8, seed=4), 8)
    model.load_state_dict(other.state_dict())
    assert torch.equal(
        model.catalogue.trie.item(model.catalogue.trie.walk(other.catalogue.item_codes)), torch.arange(1, 41)
    )


def test_the_trie_follows_tables_that_were_replaced(model):
    def fits(one) -> bool:
        return torch.equal(
            one.catalogue.trie.item(one.catalogue.trie.walk(one.catalogue.item_codes)), torch.arange(1, 41)
        )

    assert fits(model)
    model.load_state_dict(make_model(random_codes(40, 3, 8, seed=4), 8).state_dict(), assign=True)
    assert fits(model)
    model.catalogue.item_tokens = make_model(random_codes(40, 3, 8, seed=5), 8).catalogue.item_tokens
    assert fits(model)
    copied = copy.deepcopy(model)
    copied.set_item_codes(copied.catalogue.item_codes.roll(1, dims=0))
    assert fits(copied)
    assert fits(model), "a copy's tables are its own"
    assert copied.to(torch.float64).catalogue.trie is copied.catalogue.trie, "built again once"
    flags = torch.zeros(41, dtype=torch.bool)
    flags[5] = True
    copied.catalogue._buffers["is_removed"] = flags  # as loaders set them
    assert copied.catalogue.trie.n_items == 39
    copied.catalogue.is_removed = torch.zeros(41, dtype=torch.bool)
    assert copied.catalogue.trie.n_items == 40
    copied.catalogue.is_removed[9] = True
    assert copied.catalogue.trie.n_items == 40, "a change in place isn't noticed"
    copied.catalogue.tables_changed()
    assert copied.catalogue.trie.n_items == 39
    copied.catalogue.is_removed[9] = False
    copied.catalogue.tables_changed()
    state = {name: tensor.clone() for name, tensor in copied.state_dict().items()}
    state["catalogue.is_removed"][7] = True
    copied.load_state_dict(state)
    assert copied.catalogue.trie.n_items == 39


@given(st.data())
def test_free_codes_are_free(data):
    size = data.draw(st.integers(2, 4))
    code = st.integers(0, size - 1)
    taken = data.draw(st.lists(st.tuples(code, code, code), min_size=1, max_size=20, unique=True))
    prefixes = data.draw(st.lists(st.tuples(code, code), min_size=1, max_size=12))
    trie = CodeTrie.from_item_codes(torch.tensor(taken), size)
    closeness = torch.randn(len(prefixes), size)
    room = {parent: size**2 - sum(path[0] == parent for path in taken) for parent in range(size)}
    if any(sum(prefix[0] == parent for prefix in prefixes) > room[parent] for parent in room):
        with pytest.raises(
            ValueError, match=r"there are no free codes for new item .*: all \d\^2 below .* are taken; train the item"
        ):
            free_codes(trie, torch.tensor(prefixes), closeness.__getitem__)
        return
    codes = [tuple(row) for row in free_codes(trie, torch.tensor(prefixes), closeness.__getitem__).tolist()]
    assert len(set(codes) | set(taken)) == len(codes) + len(taken)
    assert [path[0] for path in codes] == [prefix[0] for prefix in prefixes]
    full = {prefix for prefix in prefixes if sum(path[:2] == prefix for path in [*taken, *codes]) == size}
    for prefix, path in zip(prefixes, codes):
        assert path[:2] == prefix or prefix in full, "only a full prefix is left"


def test_suffixes_go_on_where_they_ended():
    trie = CodeTrie.from_item_codes(torch.tensor([[5, 6], [5, 7], [2, 3]]), 8)
    codes = free_codes(trie, torch.tensor([[5], [5], [1], [1], [2]]), lambda row: pytest.fail("there is room"))
    assert codes.tolist() == [[5, 0], [5, 1], [1, 0], [1, 1], [2, 4]]


def test_counts_of_items_are_saved_and_new_items_have_none(model, tokenizer, tmp_path):
    counts = torch.arange(40) * 3
    model.catalogue.set_item_counts(counts)
    model.add_items(["new"], torch.randn(1, model.config.rqvae_config.input_size), tokenizer)
    model.save_pretrained(tmp_path)
    saved = ETEGRecForConditionalGeneration.from_pretrained(tmp_path)
    assert saved.catalogue.item_counts.tolist() == [0, *counts.tolist(), 0]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (torch.ones(39, dtype=torch.long), r"`counts` has shape \(39,\); expected \(40,\), one per item"),
        (torch.ones(40), r"`counts` holds torch.float32 from 1.0 to 1.0; give whole numbers from 0 to 2147483647"),
        (torch.arange(40) - 1, "`counts` holds torch.int64 from -1 to 38; give whole numbers"),
        (torch.arange(40) + 2**31, "from 2147483648 to 2147483687; give whole numbers"),
    ],
)
def test_counts_that_are_none_are_errors(model, counts, message):
    with pytest.raises(ValueError, match=message):
        model.catalogue.set_item_counts(counts)
    assert not model.catalogue.item_counts.any()


@pytest.mark.parametrize("gradients", [True, False])  # without them, item vectors are kept for a search
def test_a_model_with_a_trie_is_exported(gradients):
    model = make_model(random_codes(40, 3, 8), 8, **RECIPE)

    def of(*items: int) -> dict[str, torch.Tensor]:
        inputs = model.catalogue.inputs_from_items(torch.tensor([items[:2], items[2:4]]))
        return inputs | {"labels": model.catalogue.item_tokens[list(items[4:])]}

    first, second = of(1, 2, 3, 0, 4, 5), of(9, 0, 30, 31, 17, 40)
    with pytest.raises(ValueError, match="trie can't be built during an export; call the model once before"):
        torch.export.export(model, (), first, strict=False)
    with torch.set_grad_enabled(gradients):
        expected = [model(**batch).logits for batch in (first, second)]
        exported = torch.export.export(model, (), first, strict=False).module()
        for batch, logits in zip((first, second), expected):
            torch.testing.assert_close(exported(**batch).logits, logits)
            torch.testing.assert_close(model(**batch).logits, logits)
    model.remove_items(torch.tensor([7]))
    with pytest.raises(ValueError, match="trie can't be built during an export"):
        torch.export.export(model, (), first, strict=False)
