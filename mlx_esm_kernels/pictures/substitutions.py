"""A heat map of what a model thinks of every substitution in a protein."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.alphabet import STANDARD_RESIDUES
from .figure import new_figure, save_png

_POSITIONS_IN_A_LINE = 100


def draw_substitutions(
    path: Path, sequence: str, scores: npt.NDArray[np.float64], *, offset: int, title: str
) -> None:
    """Write `substitution_picture` to a .png file."""
    save_png(substitution_picture(sequence, scores, offset=offset, title=title), path)


def substitution_picture(
    sequence: str, scores: npt.NDArray[np.float64], *, offset: int = 1, title: str = ""
) -> Any:
    """A heat map of every substitution, in lines of 100 positions.

    Args:
        sequence: the wild type, L residues.
        scores: (20, L), of `substitution_grid`; NaN for the wild type's own residue.
        offset: number of the first residue.
        title: a line above.

    Returns:
        A figure of matplotlib, which a notebook shows.
    """
    from matplotlib import colormaps

    lines = -(-len(sequence) // _POSITIONS_IN_A_LINE)
    width = min(len(sequence), _POSITIONS_IN_A_LINE)
    figure = new_figure(max(4.0, 0.16 * width + 1.6), 3.4 * lines + 0.5)
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
    figure.suptitle(title, fontsize=9, parse_math=False)
    figure.colorbar(picture, ax=list(grid), label="score", pad=0.01, fraction=0.03)
    return figure
