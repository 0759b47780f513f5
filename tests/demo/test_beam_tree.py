"""The drawing of a beam."""

import re
from xml.etree import ElementTree

import pytest

from etegrec_hf.demo.beam_tree import BOX_WIDTH, COLUMN, MARGIN, ROW, beam_tree
from etegrec_hf.demo.recommender import KeptPrefix

NASTY = "<script>alert(\"1\")</script> & 'co'"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def drawing() -> ElementTree.Element:
    """Two first codes: three items are below the first, and the second leads to no item."""
    beam = [
        [KeptPrefix("<a_1>", 0, 0.6, 9, None), KeptPrefix("<a_2>", 0, 0.2, 4, None)],
        [
            KeptPrefix("<b_0>", 0, 0.3, 1, "x"),
            KeptPrefix("<b_3>", 0, 0.15, 1, "y"),
            KeptPrefix("<b_4>", 0, 0.00003, 1, "z"),
        ],
    ]
    labels = {"x": NASTY, "y": "w" * 100, "z": "Last"}
    return ElementTree.fromstring(beam_tree(beam, labels, ["x", "y"]))  # only well-formed XML is parsed


def texts(element) -> list[str]:
    return ["".join(child.itertext()) for child in element.iter(f"{SVG}text")]


def test_titles_are_escaped_and_long_ones_cut(drawing):
    assert not list(drawing.iter(f"{SVG}script"))
    titles = [text for text in drawing.iter(f"{SVG}text") if "item" in text.get("class", "")]
    shown = [(text.find(f"{SVG}title").text, text.find(f"{SVG}title").tail) for text in titles]
    assert shown == [(NASTY, f"1. {NASTY}"), ("w" * 100, f"2. {'w' * 47}…"), ("Last", "Last")]


def test_every_prefix_shows_its_code_and_probability(drawing):
    prefixes = {tuple(texts(group)): group for group in drawing.iter(f"{SVG}g")}
    assert list(prefixes) == [
        ("<a_1>", "60.0%"),
        ("<b_0>", "30.0%"),
        ("<b_3>", "15.0%"),
        ("<b_4>", "3e-03%"),
        ("<a_2>", "20.0%"),
    ]
    assert [group.get("class") for group in prefixes.values()] == ["prefix"] * 4 + ["prefix dropped"]
    assert prefixes["<a_1>", "60.0%"].find(f"{SVG}title").text == "<a_1> 60.0%, 9 items of the catalogue"


def test_lines_lead_from_a_prefix_to_its_children(drawing):
    lines = list(drawing.iter(f"{SVG}path"))
    assert [float(line.get("stroke-width")) for line in lines] == [4.0, 2.5, 1.0]  # 1 + 6 * share of the parent
    boxes = [(float(box.get("x")), float(box.get("y")) + 10) for box in drawing.iter(f"{SVG}rect")]
    assert boxes[0] == (MARGIN, MARGIN + 1.5 * ROW)  # in the middle of its three items
    for line, (x, y) in zip(lines, boxes[1:4]):
        numbers = [float(number) for number in re.findall(r"[\d.]+", line.get("d"))]
        assert numbers[:2] == [MARGIN + BOX_WIDTH, boxes[0][1]]
        assert numbers[-2:] == [x, y]
        assert x == MARGIN + COLUMN
    assert len({y for _, y in boxes[1:]}) == 4  # ends of the tree have rows of their own


def test_a_beam_without_prefixes_is_an_empty_drawing():
    drawing = ElementTree.fromstring(beam_tree([[], []], {}, []))
    assert not list(drawing)
