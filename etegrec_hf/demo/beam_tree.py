"""Draws a beam search as a tree in SVG, level by level."""

from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from ..data.wording import counted
from .recommender import KeptPrefix

BOX_WIDTH, BOX_HEIGHT = 124, 20  # pixels, like all sizes here
COLUMN, ROW, MARGIN = 188, 26, 12
TITLE_WIDTH = 380
TITLE_LENGTH = 48  # characters of a title; the pointer on it shows all


@dataclass
class _Node:
    """A prefix and its place in the drawing."""

    prefix: KeptPrefix
    level: int
    children: list["_Node"] = field(default_factory=list)
    y: float = 0.0


def beam_tree(beam: list[list[KeptPrefix]], labels: dict[str, str], listed: list[str]) -> str:
    """Draws the prefixes that a beam search kept, from the first code at the left to items at the right.

    A box shows the last code of a prefix and its probability, which also gives the box its tint. The thicker a line,
    the larger the child's share of its parent's probability. Prefixes that lead to no item of the final beam are pale.

    Args:
        beam (`list[list[KeptPrefix]]`): the prefixes that were kept, level by level.
        labels (`dict[str, str]`): item id to title of the last level's items; titles are escaped here.
        listed (`list[str]`): the recommended item ids, best first; their places are shown before their titles.

    Returns:
        `str`: an SVG element.
    """
    roots = _nodes(beam)
    rows = 0
    for root in roots:
        rows = _place(root, rows)
    height = rows * ROW + 2 * MARGIN
    width = (len(beam) - 1) * COLUMN + BOX_WIDTH + TITLE_WIDTH + 2 * MARGIN
    places = {item_id: place for place, item_id in enumerate(listed, start=1)}
    last = len(beam) - 1
    drawn = [line for root in roots for line in _draw(root, last, labels, places)]
    counts = ", ".join(str(len(level)) for level in beam)
    name = f"Beam search as a tree: {counts} prefixes kept at levels 1 to {len(beam)}."
    return (
        f'<svg class="beam-tree" role="img" aria-label="{name}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">{"".join(drawn)}</svg>'
    )


def probability_text(probability: float) -> str:
    """Returns a probability in percent, with as many digits as it needs.

    >>> [probability_text(value) for value in (0.25, 0.0123, 0.00004, 0.0)]
    ['25.0%', '1.2%', '4e-03%', '0.0%']
    """
    percent = 100 * probability
    return f"{percent:.1f}%" if percent >= 0.1 or percent == 0 else f"{percent:.0e}%"


def _nodes(beam: list[list[KeptPrefix]]) -> list[_Node]:
    """Returns the prefixes of the first level, with the others as their descendants."""
    levels = [[_Node(prefix, level) for prefix in prefixes] for level, prefixes in enumerate(beam)]
    for parents, nodes in pairwise(levels):
        for node in nodes:
            parents[node.prefix.parent].children.append(node)
    return levels[0]


def _place(node: _Node, row: int) -> int:
    """Places each leaf in a row of its own, and parents between their children; returns the next free row."""
    if not node.children:
        node.y = MARGIN + (row + 0.5) * ROW
        return row + 1
    for child in node.children:
        row = _place(child, row)
    node.y = (node.children[0].y + node.children[-1].y) / 2
    return row


def _leads_to_item(node: _Node, last: int) -> bool:
    return node.level == last or any(_leads_to_item(child, last) for child in node.children)


def _draw(node: _Node, last: int, labels: dict[str, str], places: dict[str, int]) -> list[str]:
    """Returns SVG elements of a prefix, of the lines to its children, and of all its descendants."""
    prefix = node.prefix
    left, top = MARGIN + node.level * COLUMN, node.y - BOX_HEIGHT / 2
    elements = []
    for child in node.children:
        share = child.prefix.probability / prefix.probability if prefix.probability else 0.0
        start, end = left + BOX_WIDTH, left + COLUMN
        middle = (start + end) / 2
        elements.append(
            f'<path class="{_class("line", child, last)}" stroke-width="{1 + 6 * min(share, 1.0):.1f}" '
            f'd="M{start} {node.y:.1f} C{middle} {node.y:.1f} {middle} {child.y:.1f} {end} {child.y:.1f}"/>'
        )
    items = counted(prefix.n_items, "item")
    text = f"{escape(prefix.token)} {probability_text(prefix.probability)}"
    elements.append(
        f'<g class="{_class("prefix", node, last)}"><title>{text}, {items} of the catalogue</title>'
        f'<rect x="{left}" y="{top:.1f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5" '
        f'fill-opacity="{0.06 + 0.5 * min(prefix.probability, 1.0) ** 0.5:.2f}"/>'
        f'<text x="{left + 7}" y="{node.y + 4:.1f}">{escape(prefix.token)}</text>'
        f'<text x="{left + BOX_WIDTH - 7}" y="{node.y + 4:.1f}" text-anchor="end">'
        f"{probability_text(prefix.probability)}</text></g>"
    )
    if prefix.item_id is not None:
        elements.append(_item(prefix.item_id, labels, places, left + BOX_WIDTH + 10, node.y + 4))
    return elements + [line for child in node.children for line in _draw(child, last, labels, places)]


def _item(item_id: str, labels: dict[str, str], places: dict[str, int], x: float, y: float) -> str:
    """Returns the title of an item at its leaf, with its place if it is recommended."""
    label = labels[item_id]
    short = label if len(label) <= TITLE_LENGTH else label[: TITLE_LENGTH - 1] + "…"
    place = f"{places[item_id]}. " if item_id in places else ""
    return (
        f'<text class="{"item listed" if place else "item"}" x="{x}" y="{y:.1f}"><title>{escape(label)}</title>'
        f"{place}{escape(short)}</text>"
    )


def _class(kind: str, node: _Node, last: int) -> str:
    return kind if _leads_to_item(node, last) else f"{kind} dropped"
