"""Item ids as people type them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etegrec_hf.data.item_ids import read_item_ids, write_item_ids

ARTISTS = {
    "Tyler, the Creator",
    "Earth, Wind & Fire",
    " Beyoncé ",
    "Björk",
    "[unknown]",
    '["x"]',
    '"Weird Al"',
    "Wind",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Björk, Wind", ["Björk", "Wind"]),
        (" Björk ,,Wind,", ["Björk", "Wind"]),
        ("Earth, Wind & Fire", ["Earth, Wind & Fire"]),
        (" Earth, Wind & Fire ", ["Earth, Wind & Fire"]),
        (" Beyoncé ", [" Beyoncé "]),
        ("Tyler, the Creator\nBjörk,Wind\r\n\n Beyoncé ", ["Tyler, the Creator", "Björk", "Wind", " Beyoncé "]),
        ('["Tyler, the Creator", " Beyoncé ", "Björk"]', ["Tyler, the Creator", " Beyoncé ", "Björk"]),
        ('["Björk", "nobody"]', ["Björk", "nobody"]),
        ("[unknown], Björk", ["[unknown]", "Björk"]),
        ('["x"]', ['["x"]']),
        ('"Weird Al",Björk', ['"Weird Al"', "Björk"]),
        ("Tyler, the Creator, Björk", ["Tyler", "the Creator", "Björk"]),
        ("", []),
        (" ,\n", []),
    ],
)
def test_what_is_typed_is_read(text, expected):
    assert read_item_ids(text, ARTISTS) == expected


def test_json_that_is_not_text():
    for text in ("[1, 2]", '["a", 1]\n', '["a", [1]]'):
        with pytest.raises(ValueError, match=r"holds \[?1\]?, but ids are text; write them in double quotes"):
            read_item_ids(text, {"a", "1"})


@pytest.mark.parametrize("text", ['["a", "b"', "['a', 'b']", "[a,b]", 'a\n["a" "b"]'])
def test_a_broken_json_list_is_not_read_as_ids(text):
    shown = re.escape(text.split("\n")[-1])
    with pytest.raises(
        ValueError, match=rf"^{shown} begins like a JSON list, but isn't one; write .*like \[\"a\", \"b\"\]"
    ):
        read_item_ids(text, {"a", "b"})


@given(st.lists(st.text(alphabet=' ,\n\r[]"ab1\u2028', min_size=1), max_size=5))
def test_what_is_written_is_read_again(item_ids):
    assert read_item_ids(write_item_ids(item_ids), set(item_ids)) == item_ids
