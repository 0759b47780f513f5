import sys
from collections import Counter

import pytest
import torch

pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")

from matplotlib.figure import Figure
from matplotlib.image import imread

from etegrec_hf.evaluation.plots import (
    code_usage_figure,
    plot_code_usage,
    plot_prefix_sizes,
    prefix_sizes_figure,
)

WRITERS = [
    lambda codes, path, title="title": plot_code_usage(codes, 8, path, title),
    lambda codes, path, title="title": plot_prefix_sizes(codes, path, title),
]


def draw_codes(seed: int, n: int = 60) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(8, (n, 3), generator=generator) // torch.tensor([1, 2, 4])


def test_the_heat_map_has_the_counts_most_used_first():
    axes, colour_bar = code_usage_figure(torch.tensor([[5, 0], [5, 1], [2, 1], [5, 1]]), 6, "title").axes
    (image,) = axes.images
    assert image.get_array().filled(0).tolist() == [[3, 1, 0, 0, 0, 0], [3, 1, 0, 0, 0, 0]]
    assert image.get_array().mask.sum() == 8, "unused codes have a colour of their own"
    assert image.norm(3) > image.norm(1)
    assert (axes.get_ylabel(), colour_bar.get_ylabel()) == ("level", "items")


def test_one_item_a_code_is_one_colour():
    axes, _ = code_usage_figure(torch.arange(4).unsqueeze(1), 4, "title").axes
    assert set(axes.images[0].norm(axes.images[0].get_array()).tolist()[0]) == {0.0}


def test_bars_count_prefixes_by_their_items():
    codes = draw_codes(0)
    panels = prefix_sizes_figure(codes, "title").axes
    assert len(panels) == 3
    for depth, axes in enumerate(panels, start=1):
        sizes = Counter(tuple(row[:depth]) for row in codes.tolist()).values()
        bins = Counter(size.bit_length() for size in sizes)  # 1, 2 to 3, 4 to 7, ...
        heights = [bar.get_height() for bar in axes.patches]
        assert heights == [bins[length] for length in range(1, len(heights) + 1)]
        assert sum(heights) == len(sizes)
        low, high = axes.get_ylim()
        assert low < 1
        assert max(heights) < high, "no bar is cut off"
        assert axes.get_xlabel() == "items on a prefix"
    names = [label.get_text() for label in panels[0].get_xticklabels()]
    assert names[:4] == ["1", "2-3", "4-7", "8-15"]
    assert panels[0].get_ylabel() == "prefixes"


def test_the_last_bar_holds_the_largest_prefix():
    (axes,) = prefix_sizes_figure(torch.tensor([0] * 8 + [1]).unsqueeze(1), "title").axes
    assert [bar.get_height() for bar in axes.patches] == [1, 0, 0, 1]


@pytest.mark.parametrize("write", WRITERS)
def test_files_are_pictures_of_the_data(write, tmp_path):
    paths = [tmp_path / name for name in ("a.png", "again.png", "b.png")]
    for path, seed in zip(paths, (0, 0, 1)):
        write(draw_codes(seed), path)
    first, again, other = (imread(path) for path in paths)
    assert all(300 < side < 3000 for side in first.shape[:2])
    assert (first == again).all()
    assert first.shape != other.shape or (first != other).any()
    assert sorted(tmp_path.iterdir()) == sorted(paths)


@pytest.mark.parametrize("write", WRITERS)
def test_a_title_is_no_formula(write, tmp_path):
    write(draw_codes(0), tmp_path / "a.png", "runs/$\\frac{1$")
    assert imread(tmp_path / "a.png").size


@pytest.mark.parametrize("write", WRITERS)
def test_the_ending_says_the_format(write, tmp_path):
    write(draw_codes(0), tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text()
    with pytest.raises(ValueError, match="Format 'xyz' is not supported"):
        write(draw_codes(0), tmp_path / "a.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.svg"]


@pytest.mark.parametrize("write", WRITERS)
def test_a_failure_leaves_what_was_there(write, tmp_path, monkeypatch):
    def full_disk(self, path, **options):
        path.write_bytes(b"half a picture")
        raise OSError("no space left")

    (tmp_path / "old.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", full_disk)
    for name in ("new.png", "old.png"):
        with pytest.raises(OSError, match="no space left"):
            write(draw_codes(0), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"old"


@pytest.mark.parametrize("write", WRITERS)
def test_without_matplotlib_the_error_names_the_extra(write, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"not installed: pip install etegrec_hf\[plots\]$"):
        write(draw_codes(0), tmp_path / "a.png")
    assert not any(tmp_path.iterdir())


def test_no_state_of_pyplot_is_touched(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    for write in WRITERS:
        write(draw_codes(0), tmp_path / "a.png")
    assert "matplotlib.pyplot" not in sys.modules
