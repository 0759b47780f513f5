"""The report of a training run: one HTML file with curves, codes, baselines and sample recommendations."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..data.folders import replace_text
from ..evaluation.code_diagnostics import code_diagnostics, prefix_size_counts
from ..evaluation.curves import Points, curves_figure, is_shown, panels_of, parts_of
from ..evaluation.memorisation import part_title, systems_of_part
from ..evaluation.metrics import OURS, shown_name
from ..evaluation.plots import check_matplotlib, code_usage_figure, prefix_sizes_figure, svg_of
from ..evaluation.sample_recommendations import SampleRecommendation
from .html_page import (
    beside,
    charts,
    folded,
    note,
    page,
    paragraph,
    section,
    subsection,
    svg_picture,
    table,
    verdict_line,
)
from .training_record import TrainingRecord

FILE = "report.html"
MOST_ROWS = 60  # rows in the table of the log
RECENT = 10  # items of a history that are shown
OF_CODES = "usage|perplexity|gini|prefixes|collision_rate|largest_collision|changed_codes|revived_codes"
# groups of panels of curves; a panel is in the first group whose pattern its name begins with
CURVES = {"loss": r"loss(_|,|$)", "validation": "eval_", "rewards": "reward", "codes": OF_CODES, "other": ""}


@dataclass
class RunLog:
    """The log of a run.

    Args:
        stage (`str`): the stage that was trained.
        log_history (`list[dict]`): log of the Trainer's state, with those of the runs it was resumed from.
        epochs (`float`): number of epochs that were trained.
        tokenizer_spans (`list[tuple[float, float]]`): first and last epoch of each time that the item tokenizer was
            trained in turns with the recommender.
    """

    stage: str
    log_history: list[dict]
    epochs: float
    tokenizer_spans: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Report:
    """The content of a report.

    Args:
        title (`str`): heading of the report.
        record ([`TrainingRecord`]): training record of the model; its last stage is this run.
        logs (`list[RunLog]`): log of the run, or logs of several runs that belong together.
        codes (`torch.LongTensor` of shape `(n_items, levels)`): codes of the items, without suffix.
        codebook_size (`int`): number of codes per level.
        model (`dict`): sizes of the model.
        systems (`dict[str, dict[str, float]]`): validation metrics of this model and of baselines for the same users.
        users (`int`): number of these users.
        unmeasured (`str`): reason why `systems` lacks this model or baselines.
        samples (`list[SampleRecommendation]`): recommendations for some validation users.
        item_ids (`list[str]`): item ids, in the order of item indices.
        item_titles (`dict[str, str]`): titles by item id, if known.
        test (`dict[str, dict[str, float]]`): test metrics by system.
        test_parts (`dict[str, dict]`): test metrics for parts of the users, see [`metrics_by_part`].
        test_differences (`dict[str, dict[str, dict[str, float]]]`): differences of this model from each baseline on
            the test split, see [`paired_bootstrap`].
    """

    title: str
    record: TrainingRecord
    logs: list[RunLog]
    codes: torch.LongTensor
    codebook_size: int
    model: dict[str, object] = field(default_factory=dict)
    systems: dict[str, dict[str, float]] = field(default_factory=dict)
    users: int = 0
    unmeasured: str = ""
    samples: list[SampleRecommendation] = field(default_factory=list)
    item_ids: list[str] = field(default_factory=list)
    item_titles: dict[str, str] = field(default_factory=dict)
    test: dict[str, dict[str, float]] = field(default_factory=dict)
    test_parts: dict[str, dict] = field(default_factory=dict)
    test_differences: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)


def write_report(folder: str | Path, report: Report) -> Path:
    """Writes `report.html` into a folder, whole or not at all, and returns its path."""
    path = Path(folder, FILE)
    html = render(report)
    replace_text(path, html)
    return path


def render(report: Report) -> str:
    """Returns the report as HTML that loads nothing, with pictures if matplotlib is installed."""
    parts = [_verdict(report), _run(report), _results(report)]
    parts += [_curves(log, number) for number, log in enumerate(report.logs, start=1)]
    parts += [_codes(report), _prefix_tree(report), _samples(report), _settings(report)]
    return page(report.title, *filter(None, parts))


def _verdict(report: Report) -> str:
    """Returns the verdict on this model against the best other system, by the test split if it was measured."""
    if report.test_differences:
        metric, rival, found = _test_rival(report)
        outcome = outcome_of(found["low"], found["high"])
        interval = f"the 95% interval of the difference is {found['low']:+.4f} to {found['high']:+.4f}"
        how = f"on the test split; {interval}" + (", which holds 0" if outcome == "even" else "")
        return verdict_line(_sentence(outcome, metric, report.test, rival, how), outcome)
    others = [name for name in report.systems if name != OURS]
    decisive = _deciding(report.systems)
    if not others or decisive is None:
        return verdict_line(f"No verdict. {report.unmeasured}", "even") if report.unmeasured else ""
    rival = max(others, key=lambda name: report.systems[name][decisive])
    how = f"for {report.users} validation users; no interval was measured, so chance may have a part in it"
    outcome = _by_figures(report.systems)
    return verdict_line(_sentence(outcome, decisive, report.systems, rival, how), outcome)


def _test_rival(report: Report) -> tuple[str, str, dict[str, float]]:
    """Returns the metric that decides, the best baseline by this metric, and this model's difference from it."""
    metric = next(name for differences in report.test_differences.values() for name in differences)
    rival = max(report.test_differences, key=lambda name: report.test[name][metric])
    return metric, rival, report.test_differences[rival][metric]


def outcome_of(low: float, high: float) -> str:
    """Returns the outcome by the interval of a difference.

    >>> outcome_of(0.01, 0.02), outcome_of(-0.02, -0.01), outcome_of(-0.01, 0.02)
    ('won', 'lost', 'even')
    """
    return "won" if low > 0 else "lost" if high < 0 else "even"


def _sentence(outcome: str, metric: str, systems: dict[str, dict[str, float]], rival: str, how: str) -> str:
    begin = {"won": "Won against", "lost": "Lost to", "even": "Level with"}[outcome]
    mine, other = systems[OURS][metric], systems[rival][metric]
    word = "above" if mine > other else "below" if mine < other else "as much as"
    share = f"{abs(mine / other - 1):.0%} {word} its" if other and mine != other else f"{word} its"
    return f"{begin} {rival}: {shown_name(metric)} is {_fixed(mine)}, {share} {_fixed(other)}, {how}."


def _deciding(systems: dict[str, dict[str, float]]) -> str | None:
    """Returns the name of NDCG at the largest cutoff up to 10 that all systems have, or None."""
    shared = [f"ndcg@{k}" for k in (10, 5, 1) if systems and all(f"ndcg@{k}" in of for of in systems.values())]
    return shared[0] if shared else None


def _run(report: Report) -> str:
    stage = report.record.stages[-1]
    shown = ("stage", "data", "rewards", "epochs", "steps", "seconds", "device", "processes")
    rows = [[name, stage[name]] for name in shown if name in stage]
    return section("run", "Run", table([], rows))


def _results(report: Report) -> str:
    """Returns the section of the model's metrics against baselines; empty for stages that rank no items."""
    parts = []
    if report.systems:
        how = f"{report.users} validation users, all items ranked, by the weights that were kept."
        parts.append(subsection("Validation", paragraph(how)))
        parts.append(_metrics(report.systems, _by_figures(report.systems)))
    if report.unmeasured:
        parts.append(note(report.unmeasured))
    if report.test:
        parts.append(subsection("Test", _metrics(report.test, _by_intervals(report))))
    for name, part in report.test_parts.items():
        systems = systems_of_part(part)
        parts.append(subsection(f"Test, {part_title(name, part)}", _metrics(systems, _by_figures(systems))))
    return section("results", "Metrics against baselines", *parts) if parts else ""


def _by_figures(systems: dict[str, dict[str, float]]) -> str:
    """Returns the outcome by metrics alone, if no intervals are known."""
    metric = _deciding(systems)
    others = [metrics[metric] for name, metrics in systems.items() if name != OURS and metric is not None]
    if metric is None or not others:
        return "even"
    difference = systems[OURS][metric] - max(others)
    return outcome_of(difference, difference)


def _by_intervals(report: Report) -> str:
    """Returns the outcome on the test split against the best baseline."""
    if not report.test_differences:
        return "even"
    *_, found = _test_rival(report)
    return outcome_of(found["low"], found["high"])


def _metrics(systems: dict[str, dict[str, float]], outcome: str) -> str:
    """Returns a table of systems, this model first, in the colour of the outcome; best figures are bold."""
    names = list(dict.fromkeys(name for metrics in systems.values() for name in metrics))
    rows = [[system, *(_fixed(metrics.get(name)) for name in names)] for system, metrics in systems.items()]
    best = set()
    for column, name in enumerate(names, start=1):
        figures = [metrics.get(name, -1.0) for metrics in systems.values()]
        best |= {(row, column) for row, figure in enumerate(figures) if figure == max(figures) > 0}
    return table(["system", *map(shown_name, names)], rows, marked=(0,), outcome=outcome, best=frozenset(best))


def _fixed(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}" if value < 10 else f"{value:.1f}"


def _curves(log: RunLog, number: int) -> str:
    """Returns the section of curves over epochs: losses, validation metrics and all else that was logged."""
    title = f"Curves: {log.stage}"
    panels = panels_of(log.log_history)
    if not panels:
        return section(f"curves-{number}", title, note("The run logged nothing (logging_strategy)."))
    parts = []
    if log.tokenizer_spans:
        spans = ", ".join(f"{start:g} to {end:g}" for start, end in log.tokenizer_spans)
        parts.append(note(f"Shaded epochs train the item tokenizer, the others the recommender. Shaded: {spans}."))
    left = dict(panels)
    for kind, pattern in CURVES.items():
        chosen = {name: left.pop(name) for name in list(left) if re.match(pattern, name)}
        if chosen and kind == "other":
            parts.append(folded("Everything else that was logged", _drawn(log, chosen)))
        elif chosen:
            parts.append(_drawn(log, chosen))
    parts.append(folded("The log as a table", _log_table(log.log_history)))
    return section(f"curves-{number}", title, *parts)


def _drawn(log: RunLog, panels: dict[str, dict[str, Points]]) -> str:
    try:
        check_matplotlib()
    except ValueError as error:
        return note(f"Curves of {', '.join(panels)}: {error}")
    pictures = [
        svg_picture(
            svg_of(curves_figure(name, lines, log.tokenizer_spans, log.epochs)),
            f"{name} over {log.epochs:g} epoch{'s' * (log.epochs != 1)}",
        )
        for name, lines in panels.items()
    ]
    return charts(*pictures)


def _picture(draw: Callable, description: str) -> str:
    try:
        check_matplotlib()
    except ValueError as error:
        return note(f"{description}: {error}")
    return svg_picture(svg_of(draw()), description)


def _log_table(log_history: list[dict]) -> str:
    """Returns a table with one row per logged step; of many steps, every n-th is shown."""
    steps: dict[int, dict] = {}
    for entry in log_history:
        steps.setdefault(entry["step"], {}).update(entry)
    rows = list(steps.values())
    names = ["epoch", "step", *sorted({name for row in rows for name in row if is_shown(name)}, key=parts_of)]
    every = -(-len(rows) // MOST_ROWS)
    shown = [row for number, row in enumerate(rows, start=1) if (len(rows) - number) % every == 0]  # the last too
    notes = [note(f"Every {every}th of {len(rows)} logged steps.")] if every > 1 else []
    return "\n".join([*notes, table(names, [[row.get(name) for name in names] for row in shown])])


def _codes(report: Report) -> str:
    figures = code_diagnostics(report.codes, report.codebook_size)
    names = {"usage": "codes in use", "perplexity": "perplexity", "gini": "Gini", "prefixes": "distinct prefixes"}
    rows = [
        [level, *(figures[f"{name}_{level}"] for name in names)] for level in range(report.codes.shape[1])
    ]  # fmt: skip
    intro = (
        f"{len(report.codes)} items, {report.codebook_size} codes per level. Codes in use: share of codes that some "
        "item has. Perplexity: number of codes that are used evenly. Gini: 0 if all codes have equally many items, "
        "near 1 if one code has all. Distinct prefixes: prefixes of all codes down to this level."
    )
    picture = _picture(
        lambda: code_usage_figure(report.codes, report.codebook_size, "Items on each code"),
        "Items on each code, by level",
    )
    return section("codes", "Codebook usage", paragraph(intro), table(["level", *names.values()], rows), picture)


def _prefix_tree(report: Report) -> str:
    counts = prefix_size_counts(report.codes)
    depths = range(report.codes.shape[1])
    rows = [
        [depth + 1, sum(of[depth] for of in counts.values()), *(of[depth] for of in counts.values())]
        for depth in depths
    ]
    figures = code_diagnostics(report.codes, report.codebook_size)
    intro = (
        "Number of prefixes by number of items below them. A prefix is the first codes of an item, as many as the "
        "depth. A suffix distinguishes items that share their whole prefix. "
        f"{100 * figures['collision_rate']:.1f}% of items share their whole prefix with another item. The largest "
        f"number of items on one prefix is {figures['largest_collision']:.0f}."
    )
    header = ["depth", "prefixes", *(f"{name} item{'s' * (name != '1')}" for name in counts)]
    picture = _picture(lambda: prefix_sizes_figure(report.codes, "Prefixes by their items"), "Prefixes by their items")
    return section("prefix-tree", "Prefix tree", paragraph(intro), table(header, rows), picture)


def _samples(report: Report) -> str:
    if not report.samples:
        return ""
    intro = (
        "Validation users, spread evenly from short histories to long ones. Each has the newest items of its history "
        "and the item that came next, which is highlighted if it was recommended."
    )
    return section(
        "samples",
        "Sample recommendations",
        paragraph(intro),
        *(_sample(report, user) for user in report.samples),
    )


def _sample(report: Report, sample: SampleRecommendation) -> str:
    def named(item: int) -> list[str]:
        item_id = report.item_ids[item - 1]
        title = report.item_titles.get(item_id)
        return [item_id, title] if report.item_titles else [item_id]  # type: ignore[list-item]

    columns = ["item", "title"] if report.item_titles else ["item"]
    recent = sample.history[-RECENT:]
    first = len(sample.history) - len(recent) + 1
    hits = tuple(row for row, item in enumerate(sample.listed) if item == sample.target)
    found = f"at place {hits[0] + 1}" if hits else f"not among the first {len(sample.listed)}"
    history = [[number, *named(item)] for number, item in enumerate(recent, start=first)]
    history.append(["next", *named(sample.target)])
    listed = [
        [f"{row} hit" if row - 1 in hits else row, *named(item)] for row, item in enumerate(sample.listed, start=1)
    ]
    return subsection(
        f"User {sample.user_id}: {found}",
        beside(
            table(["history", *columns], history, marked=(len(history) - 1,)),
            table(["place", *columns], listed, marked=hits),
        ),
    )


def _settings(report: Report) -> str:
    """Returns the section of arguments, sizes, data and versions."""
    stage = report.record.stages[-1]
    earlier = [[entry["stage"], entry.get("data"), entry.get("epochs"), entry.get("seconds")]
               for entry in report.record.stages[:-1]]  # fmt: skip
    tables = {
        "Arguments that differ from their defaults": stage["arguments"],
        "Model": report.model,
        "Data": report.record.data,
        "Versions": stage["versions"],
    }
    parts = [
        subsection(title, table([], [list(row) for row in rows.items()])) for title, rows in tables.items() if rows
    ]
    if earlier:
        parts.append(subsection("Earlier stages", table(["stage", "data", "epochs", "seconds"], earlier)))
    return section("settings", "Arguments and versions", *parts)
