"""Makes HTML pages of a single file each. All text is escaped here, and nowhere else."""

import math
from base64 import b64encode
from html import escape

LONGEST = 200  # characters; longer texts are cut

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1f2937; --pale: #5b6573; --line: #e2e6ea; --head: #f3f5f7;
        --marked: #e0f2f1; --won: #dff3e2; --lost: #fbe4e1; --even: #eceff3;
        --won-edge: #2e7d32; --lost-edge: #c62828; --even-edge: #7b8794; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14181c; --ink: #d5dbe1; --pale: #98a2ad; --line: #2b333b; --head: #1d242b;
          --marked: #123a3a; --won: #17351c; --lost: #43201d; --even: #262d35;
          --won-edge: #66bb6a; --lost-edge: #ef5350; --even-edge: #8b97a5; }
}
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem; background: var(--page); color: var(--ink);
       font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 50rem; }
.note { color: var(--pale); }
.verdict { max-width: none; margin: .8rem 0; padding: .7rem 1rem; font-size: 1.05rem; }
.verdict { background: var(--even); border-left: 5px solid var(--even-edge); }
.verdict.won { background: var(--won); border-color: var(--won-edge); }
.verdict.lost { background: var(--lost); border-color: var(--lost-edge); }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { background: var(--head); font-weight: 600; }
td.number { text-align: right; white-space: nowrap; }
td.best { font-weight: 600; }
tr.marked td { background: var(--marked); }
tr.marked.won td { background: var(--won); }
tr.marked.lost td { background: var(--lost); }
tr.marked.even td { background: var(--even); }
img { display: block; max-width: 100%; height: auto; margin: .5rem 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: .5rem 1rem; }
.charts img { width: 100%; }
.beside { display: flex; flex-wrap: wrap; gap: 0 2rem; }
.beside > div { flex: 1 1 24rem; min-width: 0; }
summary { cursor: pointer; }
@media (max-width: 40rem) { body { padding: 1rem; } th, td { padding: .2rem .4rem; } }
"""
# forbids scripts and all requests, even if some text weren't escaped
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, *parts: str) -> str:
    """Returns a whole document, given parts that are HTML already."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{text(title)}</h1>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Returns a value as escaped text: four digits of numbers, `-` for None and NaN; long texts are cut.

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
    """Returns a section with a heading, given its id `name` and parts that are HTML already."""
    return f'<section id="{name}">\n<h2>{text(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def subsection(title: str, *parts: str) -> str:
    return f"<h3>{text(title)}</h3>\n" + "\n".join(parts)


def paragraph(words: str) -> str:
    return f"<p>{escape(words)}</p>"


def verdict_line(words: str, outcome: str) -> str:
    """Returns the first sentence of a page; `outcome` is `"won"`, `"lost"`, or `"even"`."""
    return f'<p class="verdict {outcome}">{escape(words)}</p>'


def note(words: str) -> str:
    return f'<p class="note">{escape(words)}</p>'


def folded(title: str, *parts: str) -> str:
    """Returns parts that are hidden until the title is clicked."""
    return f"<details>\n<summary>{text(title)}</summary>\n" + "\n".join(parts) + "\n</details>"


def beside(*parts: str) -> str:
    """Returns parts side by side, or one below the other on narrow screens."""
    return '<div class="beside">' + "".join(f"<div>{part}</div>" for part in parts) + "</div>"


def charts(*pictures: str) -> str:
    """Returns small pictures in as many columns as there is room for."""
    return '<div class="charts">' + "\n".join(pictures) + "</div>"


def table(
    header: list[str],
    rows: list[list],
    marked: tuple[int, ...] = (),
    outcome: str = "",
    best: frozenset[tuple[int, int]] = frozenset(),
) -> str:
    """Returns a table of values; without a header, it is a list of names and values.

    Args:
        header (`list[str]`): names of columns.
        rows (`list[list]`): values of each row.
        marked (`tuple[int]`, *optional*): numbers of highlighted rows, from 0.
        outcome (`str`, *optional*): colour of these rows: `"won"`, `"lost"`, or `"even"`.
        best (`frozenset[tuple[int, int]]`, *optional*): rows and columns of cells in bold.
    """
    lines = ["<tr>" + "".join(f"<th>{text(name)}</th>" for name in header) + "</tr>"] if header else []
    for number, row in enumerate(rows):
        cells = "".join(
            _cell(value, bool(header), is_best=(number, column) in best) for column, value in enumerate(row)
        )
        kind = f' class="{f"marked {outcome}".strip()}"' if number in marked else ""
        lines.append(f"<tr{kind}>{cells}</tr>")
    return '<div class="scroll"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _cell(value: object, aligned: bool, is_best: bool) -> str:
    kinds = ["number"] if aligned and isinstance(value, (int, float)) else []
    kinds += ["best"] if is_best else []
    return f'<td class="{" ".join(kinds)}">{text(value)}</td>' if kinds else f"<td>{text(value)}</td>"


def svg_picture(svg: bytes, description: str) -> str:
    """Returns a picture as part of the page; as a document of its own, its names don't clash with others."""
    return f'<img alt="{escape(description)}" src="data:image/svg+xml;base64,{b64encode(svg).decode()}">'
