"""Pictures of what a model says about a protein: its substitutions, its contacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .alphabet import STANDARD_RESIDUES
from .whole_file import whole_file

_POSITIONS_IN_A_LINE = 100


def draw_substitutions(
    path: Path, sequence: str, scores: npt.NDArray[np.float64], *, offset: int, title: str
) -> None:
    """A heat map of every substitution as a PNG, in lines of 100 positions.

    Args:
        path: the .png file.
        sequence: the wild type, L residues.
        scores: (20, L), rows as in `STANDARD_RESIDUES`; NaN for the wild type's own residue.
        offset: number of the first residue.
        title: a line above.
    """
    from matplotlib import colormaps

    lines = -(-len(sequence) // _POSITIONS_IN_A_LINE)
    width = min(len(sequence), _POSITIONS_IN_A_LINE)
    figure = _figure(max(4.0, 0.16 * width + 1.6), 3.4 * lines + 0.5)
    grid = figure.subplots(lines, 1, squeeze=False)[:, 0]
    # Red is harmful, blue is favourable; both ends as far from 0, less what is extreme.
    reach = float(np.nanpercentile(np.abs(scores), 99)) or 1.0
    colours = colormaps["RdBu"].with_extremes(bad="0.6")  # grey: the wild type's own residue
    for line, axes in enumerate(grid):
        first = line * _POSITIONS_IN_A_LINE
        part = scores[:, first : first + _POSITIONS_IN_A_LINE]
        picture = axes.imshow(part, cmap=colours, vmin=-reach, vmax=reach, aspect="auto")
        axes.spines[:].set_visible(False)
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_yticks(range(len(STANDARD_RESIDUES)), list(STANDARD_RESIDUES), fontsize=6)
        ticks = [
            i for i in range(part.shape[1]) if (first + i + offset) % 10 == 0 or first + i == 0
        ]
        axes.set_xticks(ticks, [str(first + i + offset) for i in ticks], fontsize=7)
        for i in range(part.shape[1]):
            axes.text(i, -0.8, sequence[first + i], ha="center", va="bottom", fontsize=6)
    figure.suptitle(title, fontsize=9)
    figure.colorbar(picture, ax=list(grid), label="score", pad=0.01, fraction=0.03)
    _save(figure, path)


def draw_contacts(path: Path, contacts: npt.NDArray[np.float32], *, title: str) -> None:
    """A contact map as a PNG.

    Args:
        path: the .png file.
        contacts: (L, L), probabilities.
        title: a line above.
    """
    figure = _figure(5.5, 5.0)
    axes = figure.add_subplot()
    end = len(contacts) + 0.5
    picture = axes.imshow(
        contacts, cmap="Blues", vmin=0, vmax=1, extent=(0.5, end, end, 0.5), interpolation="nearest"
    )
    axes.set_xlabel("residue")
    axes.set_ylabel("residue")
    axes.set_title(title, fontsize=9)
    figure.colorbar(picture, ax=axes, label="probability of a contact", fraction=0.046)
    _save(figure, path)


def _figure(width: float, height: float) -> Any:
    # Here, not above: matplotlib takes a second to import. Agg draws without a screen, and a
    # Figure of our own leaves the figures and the backend of a notebook alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    # A PNG of matplotlib has fewer than 65,536 pixels a side.
    dpi = min(150.0, 65_000 / max(figure.get_size_inches()))
    with whole_file(path) as half_done:
        figure.savefig(half_done, dpi=dpi, format="png")
