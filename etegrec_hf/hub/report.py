"""The report of a training run: one HTML file with curves, codes, baselines and sample recommendations."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..data.folders import replace_file
from ..evaluation.code_diagnostics import code_diagnostics, prefix_size_counts
from ..evaluation.curves import Points, curves_figure, is_shown, panels_of, parts_of
from ..evaluation.memorisation import part_title, systems_of_part
from ..evaluation.plots import check_matplotlib, code_usage_figure, prefix_sizes_figure, svg_of
from ..evaluation.sample_recommendations import SampleRecommendation
from .html_page import beside, folded, note, page, paragraph, section, subsection, svg_picture, table
from .training_record import TrainingRecord

FILE = "report.html"
MOST_ROWS = 60  # of a table of the log
RECENT = 10  # items of a history that are shown
OF_CODES = "usage|perplexity|gini|prefixes|collision_rate|largest_collision|changed_codes|revived_codes"
# Where a panel of curves is shown: the first whose pattern it begins with
CURVES = {"loss": r"loss(_|,|$)", "validation": "eval_", "rewards": "reward", "codes": OF_CODES, "other": ""}


@dataclass
class RunLog:
    """What a run logged.

    Args:
        stage (`str`): what was trained.
        log_history (`list[dict]`): of its Trainer's state, with that of runs it was resumed from.
        epochs (`float`): how far it came.
        tokenizer_spans (`list[tuple[float, float]]`): where the item tokenizer was trained in turns with the
            recommender, from epoch to epoch.
    """

    stage: str
    log_history: list[dict]
    epochs: float
    tokenizer_spans: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Report:
    """What a report tells.

    Args:
        title (`str`): its heading.
        record ([`TrainingRecord`]): of the model; the last stage is this run.
        logs (`list[RunLog]`): of the run, or of several that belong together.
        codes (`torch.LongTensor` of shape `(n_items, levels)`): the items' codes, without suffix.
        codebook_size (`int`): K.
        model (`dict`): sizes of the model.
        systems (`dict[str, dict[str, float]]`): validation metrics of this model and of baselines for the same users.
        users (`int`): how many those are.
        unmeasured (`str`): why a system isn't among them.
        samples (`list[SampleRecommendation]`): of validation users.
        item_ids (`list[str]`): in the order of item indices.
        item_titles (`dict[str, str]`): where known.
        test (`dict[str, dict[str, float]]`): test metrics by system.
        test_parts (`dict[str, dict]`): those of parts of the users, see [`metrics_by_part`].
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


def write_report(folder: str | Path, report: Report) -> Path:
    """Writes `report.html` into a folder, whole or not at all, and returns its path."""
    path = Path(folder, FILE)
    html = render(report)
    replace_file(path, lambda beside: beside.write_text(html, encoding="utf-8"))
    return path


def render(report: Report) -> str:
    """The report as HTML that loads nothing, with pictures where matplotlib is installed."""
    parts = [_run(report), _results(report)]
    parts += [_curves(log, number) for number, log in enumerate(report.logs, start=1)]
    parts += [_codes(report), _prefix_tree(report), _samples(report), _settings(report)]
    return page(report.title, *filter(None, parts))


def _run(report: Report) -> str:
    stage = report.record.stages[-1]
    shown = ("stage", "data", "rewards", "epochs", "steps", "seconds", "device", "processes")
    rows = [[name, stage[name]] for name in shown if name in stage]
    return section("run", "Run", table([], rows))


def _results(report: Report) -> str:
    """Metrics of the model beside baselines, where it ranks items."""
    parts = []
    if report.systems:
        how = f"{report.users} validation users, all items ranked, by the weights that were kept."
        parts.append(subsection("Validation", paragraph(how)))
        parts.append(_metrics(report.systems))
    if report.unmeasured:
        parts.append(note(report.unmeasured))
    if report.test:
        parts.append(subsection("Test", _metrics(report.test)))
    for name, part in report.test_parts.items():
        parts.append(subsection(f"Test, {part_title(name, part)}", _metrics(systems_of_part(part))))
    return section("results", "Metrics against baselines", *parts) if parts else ""


def _metrics(systems: dict[str, dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for metrics in systems.values() for name in metrics))
    rows = [[system, *(_fixed(metrics.get(name)) for name in names)] for system, metrics in systems.items()]
    heads = [name.replace("recall", "Recall").replace("ndcg", "NDCG") for name in names]
    return table(["system", *heads], rows, marked=(0,))


def _fixed(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}" if value < 10 else f"{value:.1f}"


def _curves(log: RunLog, number: int) -> str:
    """Losses, validation metrics and whatever else was logged, over epochs."""
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
            parts.append(folded("Everything else that was logged", _drawn(log, chosen, kind)))
        elif chosen:
            parts.append(_drawn(log, chosen, kind))
    parts.append(folded("The log as a table", _log_table(log.log_history)))
    return section(f"curves-{number}", title, *parts)


def _drawn(log: RunLog, panels: dict[str, dict[str, Points]], kind: str) -> str:
    description = f"Curves of {', '.join(panels)} over {log.epochs:g} epochs"
    return _picture(lambda: curves_figure(panels, log.tokenizer_spans, log.epochs), description)


def _picture(draw: Callable, description: str) -> str:
    try:
        check_matplotlib()
    except ValueError as error:
        return note(f"{description}: {error}")
    return svg_picture(svg_of(draw()), description)


def _log_table(log_history: list[dict]) -> str:
    """A row a step; evenly chosen rows where there are many."""
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
        f"{len(report.codes)} items, {report.codebook_size} codes a level. Codes in use: share of them that some item "
        "has; perplexity: how many are used evenly; Gini: 0 if all have equally many items, near 1 if one "
        "has them all; distinct prefixes: of all codes down to that level."
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
        "How many prefixes have how many items. A prefix is an item's first codes, as many as the depth; a suffix "
        f"tells the items of a whole prefix apart. {100 * figures['collision_rate']:.1f}% of items share their whole "
        f"prefix with another, at most {figures['largest_collision']:.0f} one prefix."
    )
    header = ["depth", "prefixes", *(f"{name} item{'s' * (name != '1')}" for name in counts)]
    picture = _picture(lambda: prefix_sizes_figure(report.codes, "Prefixes by their items"), "Prefixes by their items")
    return section("prefix-tree", "Prefix tree", paragraph(intro), table(header, rows), picture)


def _samples(report: Report) -> str:
    if not report.samples:
        return ""
    intro = (
        "Validation users, spread evenly from short histories to long ones, each with the newest items of its history "
        "and the item that came next, which is marked where it is listed."
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
    """Arguments, sizes, data and versions."""
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
