"""What all pictures share: a figure without a screen, and a PNG that appears whole."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ..system.whole_file import whole_file


def new_figure(width: float, height: float) -> Any:
    # Here, not above: matplotlib takes a second to import. Agg draws without a screen, and a
    # Figure of our own leaves the figures and the backend of a notebook alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from .shown_figure import ShownFigure

    figure = ShownFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Any, path: Path) -> None:
    # A PNG of matplotlib has fewer than 65,536 pixels a side.
    dpi = min(150.0, 65_000 / max(figure.get_size_inches()))
    with whole_file(path) as half_done, warnings.catch_warnings():
        # A header in letters that the font has not is no reason for a line a letter.
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(half_done, dpi=dpi, format="png")
