"""Makes HTML of items; all text from data is escaped."""

from html import escape

from .recommender import DemoRecommender


def item_table(
    recommender: DemoRecommender,
    item_ids: list[str],
    caption: str,
    columns: dict[str, list[str]] | None = None,
    marked: str | None = None,
    can_exclude: bool = False,
) -> str:
    """Returns a table of items: rank, title (if titles are known), further columns, buttons, id and codes.

    Args:
        recommender ([`DemoRecommender`]): the recommender, for titles and codes.
        item_ids (`list[str]`): the items, one per row.
        caption (`str`): name of the table.
        columns (`dict[str, list[str]]`, *optional*): further columns, with one text per item.
        marked (`str`, *optional*): id of an item whose row is highlighted.
        can_exclude (`bool`, *optional*, defaults to `False`): whether each row has a button to exclude its item,
            besides the button for similar items.
    """
    columns = columns or {}
    titled = bool(recommender.titles)
    names = ["", *(["title"] if titled else []), *columns, "", "item id", "codes"]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows = []
    for row, item_id in enumerate(item_ids):
        cells = [str(row + 1), *([recommender.titles.get(item_id, "")] if titled else [])]
        cells += [texts[row] for texts in columns.values()]
        kinds = ["rank", *(["title"] if titled else []), *("number" for _ in columns)]
        label = recommender.label(item_id)
        buttons = _button("select", item_id, f"Similar to {label}", "Similar")
        buttons += _button("delete", item_id, f"Exclude {label}", "Exclude") if can_exclude else ""
        tds = "".join(f'<td class="{kind}">{escape(cell)}</td>' for kind, cell in zip(kinds, cells))
        tds += f'<td class="acts">{buttons}</td><td class="id">{escape(item_id)}</td>'
        tds += f'<td class="codes">{escape(" ".join(recommender.codes(item_id)))}</td>'
        rows.append(f"<tr{' class=marked' if item_id == marked else ''}>{tds}</tr>")
    return (
        f'<table class="items"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _button(event: str, item_id: str, name: str, text: str) -> str:
    """Returns a small button that triggers an event of its box for an item; screen readers say `name`."""
    return (
        f'<button type="button" class="act" data-event="{event}" data-item="{escape(item_id)}" '
        f'aria-label="{escape(name)}">{escape(text)}</button>'
    )


def history_list(recommender: DemoRecommender, item_ids: list[str]) -> str:
    """Returns the titles of a history, oldest first, each with a button for similar items."""
    if not item_ids:
        return '<p class="hint">The history is empty.</p>'
    labels = [(item_id, recommender.label(item_id)) for item_id in item_ids]
    entries = "".join(
        f"<li><span>{escape(label)}</span>{_button('select', item_id, f'Similar to {label}', 'similar')}</li>"
        for item_id, label in labels
    )
    return f'<ol class="history" tabindex="0">{entries}</ol>'  # with tabindex, keys scroll long histories


def message(text: str, is_error: bool = False) -> str:
    """Returns a sentence that screen readers read out when it appears."""
    kind, role = ("message error", "alert") if is_error else ("message", "status")
    return f'<p class="{kind}" role="{role}">{escape(text)}</p>'
