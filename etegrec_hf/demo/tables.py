"""Items as HTML, with everything escaped that comes from data."""

from html import escape

from .recommender import DemoRecommender


def item_table(
    recommender: DemoRecommender,
    item_ids: list[str],
    caption: str,
    columns: dict[str, list[str]] | None = None,
    marked: str | None = None,
) -> str:
    """A table of items: rank, title (where titles are known), further columns, id and codes.

    Args:
        recommender ([`DemoRecommender`]): knows titles and codes.
        item_ids (`list[str]`): a row each.
        caption (`str`): the table's name.
        columns (`dict[str, list[str]]`, *optional*): further columns, a text for each item.
        marked (`str`, *optional*): an item whose row stands out.
    """
    columns = columns or {}
    titled = bool(recommender.titles)
    names = ["", *(["title"] if titled else []), *columns, "item id", "codes"]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows = []
    for row, item_id in enumerate(item_ids):
        cells = [str(row + 1), *([recommender.titles.get(item_id, "")] if titled else [])]
        cells += [*(texts[row] for texts in columns.values()), item_id, " ".join(recommender.codes(item_id))]
        kinds = ["rank", *(["title"] if titled else []), *("number" for _ in columns), "id", "codes"]
        tds = "".join(f'<td class="{kind}">{escape(cell)}</td>' for kind, cell in zip(kinds, cells))
        rows.append(f"<tr{' class=marked' if item_id == marked else ''}>{tds}</tr>")
    return (
        f'<table class="items"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def history_list(recommender: DemoRecommender, item_ids: list[str]) -> str:
    """A history's titles, oldest first."""
    if not item_ids:
        return '<p class="hint">The history is empty.</p>'
    entries = "".join(f"<li>{escape(recommender.label(item_id))}</li>" for item_id in item_ids)
    return f'<ol class="history" tabindex="0">{entries}</ol>'  # which long histories are scrolled in


def message(text: str, is_error: bool = False) -> str:
    """A sentence that screen readers read out when it appears."""
    kind, role = ("message error", "alert") if is_error else ("message", "status")
    return f'<p class="{kind}" role="{role}">{escape(text)}</p>'
