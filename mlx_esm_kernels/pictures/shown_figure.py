"""A figure of matplotlib that a notebook shows, whatever its backend is.

It is imported where a figure is drawn, as matplotlib takes a second to import.
"""

from __future__ import annotations

import io
import warnings

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A Figure; as the last line of a cell it shows itself."""

    def _repr_png_(self) -> bytes:
        written = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # see save_png
            self.savefig(written, format="png", dpi=100)
        return written.getvalue()
