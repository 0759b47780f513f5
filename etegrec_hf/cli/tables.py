"""Tables on a terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ..evaluation.memorisation import part_title, systems_of_part

SHOWN = {
    f"{name}@{k}": f"{name[0].upper()}@{k}" for name, ks in (("recall", (1, 5, 10, 50)), ("ndcg", (5, 10))) for k in ks
}
COMPARED = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")  # columns of a comparison
SPREAD = {"coverage@10": "cov@10", "popularity@10": "pop@10"}  # shown if they were measured
SPREAD_CAPTION = "; cov: share of the catalogue that is listed, pop: mean training count of listed items"


def print_metrics(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Prints one row of ranking metrics per system."""
    spread = {name: head for name, head in SPREAD.items() if any(name in metrics for metrics in rows.values())}
    columns = SHOWN | spread
    # without lines between columns, so that the table fits into 80 columns
    table = Table(
        Column("system", no_wrap=True),
        *(Column(head, overflow="fold") for head in columns.values()),
        title=Text(title),
        caption="R: Recall, N: NDCG" + (SPREAD_CAPTION if spread else ""),
        box=SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    for name, metrics in rows.items():
        table.add_row(Text(name), *(_figure(metrics[column]) if column in metrics else "-" for column in columns))
    Console().print(table)


def print_parts(parts: dict[str, dict]) -> None:
    """Prints one table of ranking metrics per part of the users, see [`metrics_by_part`]."""
    for name, part in parts.items():
        print_metrics(part_title(name, part), systems_of_part(part))


def print_systems(results: dict) -> None:
    """Prints the results of `etegrec compare`, and how they were measured."""
    protocol = dict(results["protocol"])
    data = protocol.pop("data")
    how = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in protocol.items())
    differences = results["differences"]
    measured = next(iter(results["systems"].values()))["mean"]
    shown = [name for name in COMPARED if name in measured] or [name for name in SHOWN if name in measured]
    # long names are folded and numbers are not, however narrow the terminal is
    figures = (Column(SHOWN[name], min_width=len("± 0.0000")) for name in shown)
    table = Table(Column("system", overflow="fold"), Column("runs", no_wrap=True), *figures, title=Text(how))
    for name, system in results["systems"].items():
        mean, std = system["mean"], system["std"]
        cells = (_with_deviation(mean[metric], std[metric]) if metric in mean else "-" for metric in shown)
        table.add_row(Text(name), str(system["runs"]), *cells)
    for name, metrics in results["baselines"].items():
        table.add_row(Text(name), "-", *(_figure(metrics[metric]) if metric in metrics else "-" for metric in shown))
    Console().print(table)
    for name, metrics in differences["systems"].items():
        for metric, found in metrics.items():
            interval = f"{found['difference']:+.4f} (95%: {found['low']:+.4f} to {found['high']:+.4f})"
            print(f"{name} less {differences['from']}, {metric}: {interval}")
    without = results["systems"].keys() - differences["systems"].keys() - {differences["from"]}
    if without:
        print(
            f"no differences of {', '.join(sorted(without))} from {differences['from']}: they need the ranks that "
            "`etegrec evaluate --output FILE.json --ranks FILE.parquet` keeps, for both systems"
        )
    print(f"data: {', '.join(f'{name} {value}' for name, value in data.items())}")


def print_figures(title: str, figures: dict) -> None:
    """Prints names and values."""
    table = Table("figure", "value", title=Text(title))
    for name, value in figures.items():
        table.add_row(Text(name.replace("_", " ")), Text(_shown(value)))
    Console().print(table)


def print_comparison(title: str, columns: dict[str, dict]) -> None:
    """Prints names and values, one column per system; `-` is printed if a system lacks a value.

    Rows are in the order of the system with most values.
    """
    table = Table("figure", *(Column(Text(system)) for system in columns), title=title)
    ordered = sorted(columns.values(), key=len, reverse=True)
    for name in dict.fromkeys(name for figures in ordered for name in figures):
        cells = (Text(_shown(figures[name]) if name in figures else "-") for figures in columns.values())
        table.add_row(Text(name.replace("_", " ")), *cells)
    Console().print(table)


def _figure(value: float) -> str:
    return f"{value:.4f}" if value < 10 else f"{value:.1f}"


def _with_deviation(mean: float, deviation: float | None) -> str:
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"


def _shown(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
