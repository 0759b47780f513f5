"""Tables for a terminal."""

from rich.console import Console
from rich.table import Table

SHOWN = ("recall@1", "recall@5", "recall@10", "recall@50", "ndcg@5", "ndcg@10")


def print_metrics(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Prints one row of ranking metrics a system."""
    table = Table("system", *SHOWN, title=title)
    for name, metrics in rows.items():
        table.add_row(name, *(f"{metrics[column]:.4f}" if column in metrics else "-" for column in SHOWN))
    Console().print(table)


def print_figures(title: str, figures: dict) -> None:
    """Prints names and values."""
    table = Table("figure", "value", title=title)
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
