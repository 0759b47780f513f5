"""Pages of HTML that need nothing beside themselves. All text is escaped here, and nowhere else."""

import math
from base64 import b64encode
from html import escape

LONGEST = 200  # characters of a text beyond which it is cut

STYLE = """
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem; background: #fff; color: #1b1b1b;
       font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 50rem; }
.note { color: #555; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e4e4e4; }
th { background: #f4f4f4; font-weight: 600; }
td.number { text-align: right; white-space: nowrap; }
tr.marked td { background: #e3f4e3; font-weight: 600; }
img { display: block; max-width: 100%; height: auto; margin: .5rem 0; }
.beside { display: flex; flex-wrap: wrap; gap: 0 2rem; }
.beside > div { flex: 1 1 24rem; min-width: 0; }
summary { cursor: pointer; color: #224; }
"""
# No script, and nothing from anywhere, even if something slipped through
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, *parts: str) -> str:
    """A whole document of parts that are HTML already."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{text(title)}</h1>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """A value as escaped text: numbers with four digits, `-` for none and for what is no number, long texts cut.

    >>> text(0.123456), text(float("nan")), text("<b>")
    ('0.1235', '-', '&lt;b&gt;')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    shown = str(value)
    return escape(shown if len(shown) <= LONGEST else shown[:LONGEST] + "…")


def section(name: str, title: str, *parts: str) -> str:
    """A section with a heading, of parts that are HTML already; `name` is its id."""
    return f'<section id="{name}">\n<h2>{text(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def subsection(title: str, *parts: str) -> str:
    return f"<h3>{text(title)}</h3>\n" + "\n".join(parts)


def paragraph(words: str) -> str:
    return f"<p>{escape(words)}</p>"


def note(words: str) -> str:
    return f'<p class="note">{escape(words)}</p>'


def folded(title: str, *parts: str) -> str:
    """Parts that are shown when the title is clicked."""
    return f"<details>\n<summary>{text(title)}</summary>\n" + "\n".join(parts) + "\n</details>"


def beside(*parts: str) -> str:
    """Parts side by side, where there is room."""
    return '<div class="beside">' + "".join(f"<div>{part}</div>" for part in parts) + "</div>"


def table(header: list[str], rows: list[list], marked: tuple[int, ...] = ()) -> str:
    """A table of values; the rows whose numbers (from 0) are in `marked` stand out.

    One without a header is a list of names and values.
    """
    lines = ["<tr>" + "".join(f"<th>{text(name)}</th>" for name in header) + "</tr>"] if header else []
    for number, row in enumerate(rows):
        cells = "".join(_cell(value, aligned=bool(header)) for value in row)
        lines.append(f'<tr class="marked">{cells}</tr>' if number in marked else f"<tr>{cells}</tr>")
    return '<div class="scroll"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _cell(value: object, aligned: bool) -> str:
    kind = ' class="number"' if aligned and isinstance(value, (int, float)) else ""
    return f"<td{kind}>{text(value)}</td>"


def svg_picture(svg: bytes, description: str) -> str:
    """A picture within the page, in a document of its own, so that names in it meet no others."""
    return f'<img alt="{escape(description)}" src="data:image/svg+xml;base64,{b64encode(svg).decode()}">'
