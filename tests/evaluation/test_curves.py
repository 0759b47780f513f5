import math

import numpy as np
import pytest

from etegrec_hf.evaluation.curves import MOST_POINTS, curves_figure, panels_of, thinned

LOGS = [
    {"loss": 0.5, "usage_0": 0.25, "usage_1": 1, "tokenizer_phase": 1.0, "epoch": 1.0, "step": 3},
    {"loss": 9.0, "reward": math.nan, "tokenizer_phase": 0.0, "epoch": 2.0, "step": 6},
    {"eval_ndcg@5": 0.1, "eval_ndcg@10": 0.2, "eval_runtime": 3.0, "epoch": 2.0, "step": 6},
    {"loss": 0.4, "tokenizer_phase": 1.0, "epoch": 3.0, "step": 9},
]
PANELS = {
    "loss, tokenizer epochs": {"loss": [(1.0, 0.5), (3.0, 0.4)]},
    "usage": {"level 0": [(1.0, 0.25)], "level 1": [(1.0, 1)]},
    "loss, recommender epochs": {"loss": [(2.0, 9.0)]},
    "eval_ndcg": {"@5": [(2.0, 0.1)], "@10": [(2.0, 0.2)]},
}


def test_a_log_is_sorted_into_panels():
    """Levels and list lengths share a panel, the phases' losses don't; times and texts are left out."""
    assert panels_of(LOGS) == PANELS
    again = panels_of([dict(reversed(entry.items())) for entry in LOGS])
    assert list(again) == list(panels_of(LOGS)), "in whatever order a log is"
    assert list(again["eval_ndcg"]) == ["@5", "@10"]
    assert panels_of([{"loss": 1.0, "tokenizer_phase": 0.0, "epoch": 1.0}]) == {"loss": {"loss": [(1.0, 1.0)]}}
    assert panels_of([]) == {}


def test_curves_are_what_was_logged_with_tokenizer_epochs_shaded():
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    for name, lines in PANELS.items():
        figure = curves_figure(name, lines, [(0.0, 1.0), (2.0, 3.0)], 3.0)
        (axes,) = figure.axes
        assert axes.get_title("left") == name
        assert {line.get_label(): list(zip(*line.get_data())) for line in axes.lines} == lines
        assert [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches] == [(0, 1), (2, 3)]
        assert 3 < axes.get_xlim()[1] < 3.1
        legend = axes.get_legend()
        assert (legend is not None) == (len(lines) > 1)
        if legend is not None:  # beside the curves, not over them
            figure.draw_without_rendering()
            assert legend.get_window_extent().x0 >= axes.get_window_extent().x1


def test_long_lines_are_drawn_as_means():
    few = [(float(number), 1.0) for number in range(MOST_POINTS)]
    assert np.array_equal(thinned(few), np.array(few))
    points = thinned([(float(number), float(number % 2)) for number in range(100 * MOST_POINTS)])
    assert len(points) == MOST_POINTS
    assert points[0].tolist() == [49.5, 0.5]
    assert points[-1].tolist() == [100 * MOST_POINTS - 50.5, 0.5]
