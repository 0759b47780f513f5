"""Curves of a training log. Drawing them needs matplotlib, which the extra `plots` installs."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .plots import check_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = list[tuple[float, float]]  # epoch and value

SIZE = (4.6, 2.5)  # inches of a chart
MOST_POINTS = 400  # largest number of points of a drawn line; for more, means of neighbours are drawn
NO_CURVES = {"epoch", "step", "tokenizer_phase", "total_flos", "train_loss", "num_tokens", "step_time"}
PHASES = {1.0: "tokenizer epochs", 0.0: "recommender epochs"}  # by `tokenizer_phase`
TIMES = ("_runtime", "_per_second")


def panels_of(log_history: list[dict]) -> dict[str, dict[str, Points]]:
    """Sorts the numbers of a log into panels of lines that belong together.

    Names that differ only in a level at the end (`usage_0`, `usage_1`) or a list length (`eval_ndcg@5`,
    `eval_ndcg@10`) share a panel. Numbers that both phases log have one panel per phase, since their scales differ.

    Args:
        log_history (`list[dict]`): entries of a Trainer's `state.log_history`.

    Returns:
        `dict` of panels by name; a panel is a `dict` of points (epoch and value) by the line's label. NaN and infinity
        are left out.

    >>> panels_of([{"usage_0": 0.5, "usage_1": 1.0, "epoch": 1.0}, {"usage_0": 0.75, "epoch": 2.0}])
    {'usage': {'level 0': [(1.0, 0.5), (2.0, 0.75)], 'level 1': [(1.0, 1.0)]}}
    """
    points: dict[tuple[str, str], Points] = defaultdict(list)
    for entry in log_history:
        phase = PHASES.get(entry.get("tokenizer_phase", -1.0), "")
        for name, value in entry.items():
            if is_shown(name) and isinstance(value, (int, float)) and math.isfinite(value):
                points[name, phase].append((entry["epoch"], value))
    names = [name for name, _ in points]
    panels: dict[str, dict[str, Points]] = defaultdict(dict)
    # sorted, since the log of a resumed run has another order
    for name, phase in sorted(points, key=lambda point: (parts_of(point[0]), point[1])):
        panel, kind, number = parts_of(name)
        label = {"_": f"level {number}", "@": f"@{number}", "": panel}[kind]
        panels[f"{panel}, {phase}" if names.count(name) > 1 else panel][label] = points[name, phase]
    return dict(panels)


class LoggedName(NamedTuple):
    """The parts of a logged name; names are sorted by them in this order.

    Args:
        panel (`str`): the name without the number at its end.
        separator (`str`): `"_"` before a level, `"@"` before a list length, otherwise empty.
        number (`int`): the number at the end; 0 if there is none.
    """

    panel: str
    separator: str
    number: int


def parts_of(name: str) -> LoggedName:
    """Splits a logged name into its parts.

    >>> parts_of("eval_ndcg@10")
    LoggedName(panel='eval_ndcg', separator='@', number=10)
    >>> tuple(parts_of("usage_2")), tuple(parts_of("loss"))
    (('usage', '_', 2), ('loss', '', 0))
    """
    found = re.fullmatch(r"(.*?)(?:([_@])(\d+))?", name)
    assert found
    return LoggedName(found[1], found[2] or "", int(found[3] or 0))


def is_shown(name: str) -> bool:
    """Returns whether a logged number is worth a curve; counters and times aren't."""
    return name not in NO_CURVES and not name.endswith(TIMES)


def curves_figure(
    name: str, lines: dict[str, Points], tokenizer_spans: list[tuple[float, float]], epochs: float
) -> Figure:
    """Draws one of the panels that [`panels_of`] gives as a small chart over epochs, with its legend beside it.

    Args:
        name (`str`): title of the panel.
        lines (`dict[str, Points]`): the panel's lines by their labels.
        tokenizer_spans (`list[tuple[float, float]]`): first and last epoch of each phase of the item tokenizer, which
            is shaded.
        epochs (`float`): end of the horizontal axis.

    Raises:
        ValueError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for start, end in tokenizer_spans:
        axes.axvspan(start, end, color="0.5", alpha=0.15, linewidth=0, zorder=0)  # on light and dark pages
    for label, line in lines.items():
        epoch, value = thinned(line).T
        axes.plot(epoch, value, linewidth=1.4, marker="o", markersize=2.5 if len(epoch) > 30 else 4, label=label)
    axes.set_title(name, fontsize=10, loc="left", parse_math=False)
    axes.set_xlim(0, 1.02 * epochs)  # room for a last marker
    axes.set_xlabel("epoch", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="0.5", alpha=0.3, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def thinned(line: Points) -> np.ndarray:
    """Returns epochs and values `[n, 2]`, at most `MOST_POINTS` of them; for longer lines, means of neighbours."""
    points = np.array(line)
    if len(points) <= MOST_POINTS:
        return points
    return np.stack([some.mean(axis=0) for some in np.array_split(points, MOST_POINTS)])
