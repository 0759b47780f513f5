"""Tables for a terminal."""

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

SHOWN = {
    f"{name}@{k}": f"{name[0].upper()}@{k}" for name, ks in (("recall", (1, 5, 10, 50)), ("ndcg", (5, 10))) for k in ks
}


def print_metrics(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Prints one row of ranking metrics a system."""
    table = Table(Column("system", no_wrap=True), *SHOWN.values(), title=Text(title), caption="R: Recall, N: NDCG")
    for name, metrics in rows.items():
        table.add_row(Text(name), *(f"{metrics[column]:.4f}" if column in metrics else "-" for column in SHOWN))
    Console().print(table)


def print_figures(title: str, figures: dict) -> None:
    """Prints names and values."""
    table = Table("figure", "value", title=Text(title))
    for name, value in figures.items():
        table.add_row(Text(name.replace("_", " ")), Text(_shown(value)))
    Console().print(table)


def print_comparison(title: str, columns: dict[str, dict]) -> None:
    """Prints names and values side by side, one column a system; `-` stands where a system lacks a figure.

    Rows are in the order of the system with most figures.
    """
    table = Table("figure", *(Column(Text(system)) for system in columns), title=title)
    ordered = sorted(columns.values(), key=len, reverse=True)
    for name in dict.fromkeys(name for figures in ordered for name in figures):
        cells = (Text(_shown(figures[name]) if name in figures else "-") for figures in columns.values())
        table.add_row(Text(name.replace("_", " ")), *cells)
    Console().print(table)


def _shown(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
