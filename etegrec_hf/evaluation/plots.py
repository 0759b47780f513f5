"""Pictures of how items are distributed over codes. They need matplotlib, which the extra `plots` installs."""

from __future__ import annotations

from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..data.folders import replace_file
from .code_diagnostics import prefix_size_counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150
# Lines and letters of a picture within a page: what is black takes the colour that the reader's scheme asks for
INK = (
    "<style>svg { color: #1f2937; fill: currentColor } "
    "@media (prefers-color-scheme: dark) { svg { color: #d5dbe1 } }</style>"
)


def check_matplotlib() -> None:
    """Raises a `ValueError` if matplotlib isn't installed."""
    try:
        import_module("matplotlib")
    except ImportError as error:
        raise ValueError("plots need matplotlib, which is not installed: pip install etegrec_hf[plots]") from error


def plot_code_usage(codes: torch.LongTensor, codebook_size: int, path: str | Path, title: str) -> None:
    """Writes the picture of [`code_usage_figure`] to a file.

    Args:
        codes, codebook_size, title: as in [`code_usage_figure`].
        path (`str` or `Path`): the file; its ending chooses the format (`.png`, `.svg`, `.pdf`).

    Raises:
        ValueError: matplotlib is not installed, or can't write this format.
    """
    _save(code_usage_figure(codes, codebook_size, title), Path(path))


def plot_prefix_sizes(codes: torch.LongTensor, path: str | Path, title: str) -> None:
    """Writes the picture of [`prefix_sizes_figure`] to a file.

    Args:
        codes, title: as in [`prefix_sizes_figure`].
        path (`str` or `Path`): the file; its ending chooses the format (`.png`, `.svg`, `.pdf`).

    Raises:
        ValueError: matplotlib is not installed, or can't write this format.
    """
    _save(prefix_sizes_figure(codes, title), Path(path))


def code_usage_figure(codes: torch.LongTensor, codebook_size: int, title: str) -> Figure:
    """Draws a heat map of the number of items on each code, one row per level.

    A code's number has no meaning, so each row is sorted by the number of items. The length of its coloured part shows
    how many codes are used, and how fast it darkens shows how unevenly. The colours are logarithmic; unused codes are
    grey.

    Args:
        codes (`torch.LongTensor` of shape `(n_items, levels)`): the items' codes, without suffix.
        codebook_size (`int`): K, codes per level.
        title (`str`): title, shown as it is: `$` doesn't start a formula.

    Raises:
        ValueError: matplotlib is not installed.
    """
    check_matplotlib()
    import matplotlib
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import MaxNLocator

    counts = np.stack([np.bincount(level, minlength=codebook_size) for level in codes.cpu().numpy().T])
    counts = -np.sort(-counts, axis=1)  # [levels, K]
    figure, (axes,) = _panels(title, 1, width=9, height=1.8 + 0.6 * len(counts))
    image = axes.imshow(
        np.ma.masked_equal(counts, 0),
        aspect="auto",
        cmap=matplotlib.colormaps["viridis"].with_extremes(bad="lightgrey"),
        norm=LogNorm(1, max(2, counts.max())),
        extent=(0.5, codebook_size + 0.5, len(counts) - 0.5, -0.5),  # the n-th code is at n
    )
    axes.set_xlabel("codes, most used first (grey: unused)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("level")
    axes.set_yticks(range(len(counts)))
    figure.colorbar(image, label="items")
    return figure


def prefix_sizes_figure(codes: torch.LongTensor, title: str) -> Figure:
    """Draws histograms of the number of items per prefix, one panel per depth.

    Both axes are logarithmic: bars count the prefixes with 1 item, 2 to 3 items, 4 to 7 items, and so on.

    Args:
        codes (`torch.LongTensor` of shape `(n_items, levels)`): the items' codes, without suffix.
        title (`str`): title, shown as it is: `$` doesn't start a formula.

    Raises:
        ValueError: matplotlib is not installed.
    """
    counts = prefix_size_counts(codes)
    depths = codes.shape[1]
    figure, panels = _panels(title, depths, width=1.5 + 3 * depths, height=3.6)
    for depth, (axes, heights) in enumerate(zip(panels, zip(*counts.values())), start=1):
        axes.bar(list(counts), heights)
        axes.tick_params(axis="x", rotation=45)
        axes.set_title(f"first {depth} codes" if depth > 1 else "first code")
        axes.set_xlabel("items on a prefix")
    panels[0].set_ylabel("prefixes")
    panels[0].set_yscale("log")
    panels[0].set_ylim(bottom=0.7)  # so that a single prefix has a bar
    return figure


def svg_of(figure: Figure) -> bytes:
    """Returns a figure as SVG that needs no fonts, without a background, for light and dark pages.

    One figure gives the same bytes each time.
    """
    from matplotlib import rc_context

    buffer = BytesIO()
    with rc_context({"svg.hashsalt": "etegrec_hf"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    svg = buffer.getvalue().decode().replace("#000000", "currentColor")
    return svg.replace(" <defs>", f" {INK}\n <defs>", 1).encode()


def _panels(title: str, n: int, width: float, height: float) -> tuple[Figure, list]:
    """Returns a figure, sized in inches, with a title and `n` panels in a row with one vertical scale.

    It is made without pyplot, which would keep it in memory.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, parse_math=False, wrap=True)
    return figure, list(figure.subplots(1, n, sharey=True, squeeze=False)[0])


def _save(figure: Figure, path: Path) -> None:
    file_format = path.suffix[1:] or "png"  # the temporary file has another ending
    replace_file(path, lambda beside: figure.savefig(beside, dpi=DOTS_PER_INCH, format=file_format))
