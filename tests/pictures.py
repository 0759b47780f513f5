"""Reports without the drawing of their pictures, which takes longer than the training of a tiny model."""

from contextlib import contextmanager

import pytest


@contextmanager
def undrawn():
    """Reports make their figures, and show an empty picture for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("etegrec_hf.hub.report.svg_of", lambda figure: b"<svg></svg>")
        yield
