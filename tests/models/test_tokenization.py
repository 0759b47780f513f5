import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from etegrec_hf import ETEGRecTokenizer


def test_token_ids_follow_the_flat_vocabulary(tokenizer, codes):
    encoded = tokenizer(["i3", "i1"])
    expected = [1 + level * 8 + code for item in (2, 0) for level, code in enumerate(codes[item].tolist())]
    assert encoded["input_ids"] == expected
    assert encoded["attention_mask"] == [1] * 6
    assert tokenizer.vocab_size == 25
    assert tokenizer.convert_ids_to_tokens([0, 1, 9, 24]) == ["<pad>", "<a_0>", "<b_0>", "<c_7>"]
    assert tokenizer.convert_tokens_to_ids("<b_3>") == 12


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_goes_to_the_side_asked_for(tokenizer, side):
    batch = tokenizer([["i1"], ["i2", "i3"]], padding=True, return_tensors="pt", padding_side=side)
    assert batch["input_ids"].shape == (2, 6)
    padded = slice(0, 3) if side == "left" else slice(3, 6)
    assert (batch["input_ids"][0, padded] == 0).all()
    assert (batch["attention_mask"][0, padded] == 0).all()
    assert batch["attention_mask"].sum() == 9


@given(st.data())
def test_decoding_undoes_encoding(data):
    ids = data.draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6, unique=True))
    tokenizer = ETEGRecTokenizer.from_item_codes(ids, torch.tensor([[row, row % 2] for row in range(len(ids))]), 6)
    histories = data.draw(st.lists(st.lists(st.sampled_from(ids), min_size=1, max_size=4), min_size=1, max_size=3))
    batch = tokenizer(histories, padding=True, return_tensors="pt")
    assert tokenizer.decode(batch["input_ids"]) == histories
    assert tokenizer.batch_decode(batch["input_ids"]) == histories
    assert tokenizer.decode(tokenizer(histories[0])["input_ids"]) == histories[0]


def test_long_histories_keep_their_last_items(tokenizer):
    history = [f"i{item}" for item in range(1, 21)]
    assert tokenizer.decode(tokenizer(history)["input_ids"]) == history[-10:]


def test_a_history_that_must_be_read_whole(tokenizer):
    history = [f"i{item}" for item in range(1, 12)]
    with pytest.raises(ValueError, match="history 0 has 11 items, but only 10 can be read; pass `truncation=True`"):
        tokenizer(history, truncation=False)
    assert tokenizer.decode(tokenizer(history, max_length=8)["input_ids"]) == history[-2:], "8 tokens hold 2 items"
    batch = tokenizer([history], padding="max_length", max_length=12, return_tensors="pt")
    assert batch["input_ids"].shape == (1, 12)
    batch = tokenizer([history], padding="max_length", max_length=14, return_tensors="pt")
    assert batch["input_ids"].shape == (1, 12), "whole items alone are padded to"
    with pytest.raises(ValueError, match="`max_length` is 2; one item needs 3 tokens"):
        tokenizer(history, max_length=2)


def test_ids_of_undoes_index_of(tokenizer):
    assert tokenizer.index_of(["i3", "i1"]) == [3, 1]
    assert tokenizer.ids_of([3, 1]) == ["i3", "i1"]
    assert tokenizer.ids_of(torch.tensor([[3, 0, 0], [1, 2, 0]])) == [["i3"], ["i1", "i2"]], "index 0 is padding"
    for index in (41, -1):
        with pytest.raises(
            ValueError, match=rf"item indices range from {index} to .*1\.\.40|to 41; the catalogue has"
        ):
            tokenizer.ids_of([index])


def test_lists_of_different_lengths_decode(tokenizer):
    rows = [tokenizer(history)["input_ids"] for history in (["i1"], ["i2", "i3"])]
    assert tokenizer.decode(rows) == [["i1"], ["i2", "i3"]]
    assert tokenizer.batch_decode([torch.tensor(row) for row in rows]) == [["i1"], ["i2", "i3"]]
    assert tokenizer.decode(list(torch.tensor(rows[0]))) == ["i1"]


@pytest.mark.parametrize("name", ["decode", "batch_decode"])
def test_decoding_takes_what_transformers_passes_and_nothing_unknown(tokenizer, name):
    rows, decode = [[0, 1, 9, 17]], getattr(tokenizer, name)
    for flag in (True, False):
        assert decode(rows, skip_special_tokens=flag, clean_up_tokenization_spaces=flag) == decode(rows)
    for asked in (rows, []):
        with pytest.raises(TypeError, match=r"unknown arguments \['nonsense'\]; see ETEGRecTokenizer.decode"):
            decode(asked, nonsense=1, clean_up_tokenization_spaces=True)


def test_codes_of_nobody_decode_to_none(tokenizer, codes):
    taken = {tuple(row) for row in codes.tolist()}
    free = next(row for row in torch.cartesian_prod(*[torch.arange(8)] * 3).tolist() if tuple(row) not in taken)
    assert tokenizer.decode([1 + level * 8 + code for level, code in enumerate(free)]) == [None]
    with pytest.raises(ValueError, match="the number of tokens is 4, not a multiple of the 3 codes"):
        tokenizer.decode([1, 9, 17, 1])


def test_unknown_items_are_an_error_unless_skipped(tokenizer):
    with pytest.raises(ValueError, match=r"item 'nope' is not in the catalogue of 40 items; .*`unknown` 'skip'"):
        tokenizer(["i1", "nope"])
    assert tokenizer(["i1", "nope"], unknown="skip") == tokenizer(["i1"])
    with pytest.raises(ValueError, match="history 1 holds no item"):
        tokenizer([["i1"], ["nope"]], unknown="skip")
    with pytest.raises(ValueError, match="`unknown` is 'ignore'; choose 'error' or 'skip'"):
        tokenizer(["i1"], unknown="ignore")


def test_arrays_series_and_tuples_are_lists(tokenizer):
    one = dict(tokenizer(["i1", "i2"]))
    for history in (np.array(["i1", "i2"]), pd.Series(["i1", "i2"], index=[7, 8]), ("i1", "i2")):
        assert dict(tokenizer(history)) == one
    several = dict(tokenizer([["i1", "i2"], ["i3", "i4"]]))
    for histories in (
        np.array([["i1", "i2"], ["i3", "i4"]]),
        pd.Series([["i1", "i2"], ("i3", "i4")]),
        (np.array(["i1", "i2"]), ["i3", "i4"]),
    ):
        assert dict(tokenizer(histories)) == several


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ([], "history 0 holds no item"),
        ("i1", "'i1' is not a history; give a list of item ids"),
        (None, "None is not a history"),
        ({"i1"}, r"\{'i1'\} is not a history"),
        (5, "5 is not a history"),
        ([["i1"], "i2"], "'i2' is not a history"),
        (["i1", ["i2"]], "'i1' is not a history"),
        ([1, 2], "item 1 is of type int, but item ids are strings; give strings"),
        (np.array([1, 2]), "item 1 is of type int"),
        ([["i1"], [2.0]], "item 2.0 is of type float, but item ids are strings"),
        ([None], "item None is of type NoneType"),
        (["zzz"], "item 'zzz' is not in the catalogue of 40 items; leave it out"),
        (["i400"], r"did you mean 'i40'\? Otherwise, leave it out, or give `unknown` 'skip'"),
    ],
)
def test_what_is_no_history_names_itself(tokenizer, histories, message):
    with pytest.raises(ValueError, match=message):
        tokenizer(histories)
    if "of type" in message:
        with pytest.raises(ValueError, match=message):
            tokenizer(histories, unknown="skip")


def test_whole_numbers_name_the_text_that_is_an_id(codes):
    tokenizer = ETEGRecTokenizer.from_item_codes([str(row) for row in range(40)], codes, 8)
    with pytest.raises(ValueError, match=r"^item 1 is of type int, but item ids are strings; give '1'"):
        tokenizer([1, 2])
    with pytest.raises(ValueError, match=r"^item 7 is of type int, but item ids are strings; give '7'"):
        tokenizer.index_of([7])


def test_unknown_arguments_are_an_error(tokenizer):
    with pytest.raises(TypeError, match=r"unknown arguments \['paddding'\]"):
        tokenizer(["i1"], paddding=True)


def test_the_saved_file_is_an_index_json_in_item_order(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "item_index.json").read_text())
    assert list(saved) == tokenizer.item_ids
    assert saved["i1"] == tokenizer.convert_ids_to_tokens(tokenizer.item_tokens[1].tolist())
    for cls in (ETEGRecTokenizer, AutoTokenizer):
        copy = cls.from_pretrained(tmp_path, trust_remote_code=True)
        assert copy.item_ids == tokenizer.item_ids
        assert copy.max_history == 10
        assert torch.equal(copy.item_tokens, tokenizer.item_tokens)
        assert dict(copy(["i5"])) == dict(tokenizer(["i5"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"x": ["<a_0>", "<b_0>"], "x": ["<a_1>", "<b_0>"]}', "item id 'x' occurs twice"),
        ('{"x": ["<a_0>", "<b_0>"], "y": ["<a_1>"]}', "item 'y' has 1 code and the first item 2"),
        ('{"x": ["<a_0>", "<c_0>"]}', "item 'x' has '<c_0>' at level 1; expected <b_0>"),
        ('{"x": ["<a_0>", "<b_8>"]}', r"to <b_7> \(`codebook_size` is 8\)"),
        ('{"x": ["<a_00>", "<b_1>"]}', "item 'x' has '<a_00>' at level 0"),
        ("{}", "`item_index` is empty"),
        ('{"x": ["<a_0>", "<b_1>"], "y": ["<a_0>", "<b_1>"]}', "items 'x' and 'y' share the codes .* must be unique"),
    ],
)
def test_broken_index_files_are_an_error(tmp_path, text, message):
    path = tmp_path / "item_index.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        ETEGRecTokenizer(str(path), codebook_size=8)


def test_ids_and_codes_must_belong_together(codes):
    with pytest.raises(ValueError, match="`item_ids` holds 2 ids and `codes` 40 rows"):
        ETEGRecTokenizer.from_item_codes(["a", "b"], codes, 8)
    with pytest.raises(ValueError, match="item id 'a' occurs twice in `item_ids`"):
        ETEGRecTokenizer.from_item_codes(["a", "b", "a"], codes[:3], 8)
    with pytest.raises(ValueError, match="give `item_index_file` or `item_index`"):
        ETEGRecTokenizer()


def test_model_and_tokenizer_that_disagree_are_an_error(model, tokenizer, codes):
    model.catalogue.check_tokenizer(tokenizer)
    swapped = codes[[1, 0, *range(2, 40)]]
    other = ETEGRecTokenizer.from_item_codes(tokenizer.item_ids, swapped, 8)
    with pytest.raises(
        ValueError, match=r"tokenizer and model disagree about item 'i1': its token ids .* load both from one"
    ):
        model.catalogue.check_tokenizer(other)
    with pytest.raises(
        ValueError, match=r"`item_tokens` has shape \(40, 3\) in the tokenizer and \(41, 3\) in the model"
    ):
        model.catalogue.check_tokenizer(ETEGRecTokenizer.from_item_codes(tokenizer.item_ids[:-1], codes[:-1], 8))


def test_titles_are_of_items_and_text(tokenizer, tmp_path):
    tokenizer.item_titles = {"i2": "Second"}
    tokenizer.save_pretrained(tmp_path)
    assert ETEGRecTokenizer.from_pretrained(tmp_path).item_titles == {"i2": "Second"}
    for titles, message in (({"gone": "Gone"}, "has a title for item 'gone'"), ({"i2": 5}, "has 5 for item 'i2'")):
        tokenizer.item_titles = titles
        with pytest.raises(ValueError, match=message):
            tokenizer.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=message):
            ETEGRecTokenizer(item_index=tokenizer._item_index(), codebook_size=8, item_titles=titles)
    tokenizer.item_titles = {}
    tokenizer.save_pretrained(tmp_path)
    assert ETEGRecTokenizer.from_pretrained(tmp_path).item_titles == {}, "no title of before is left"
