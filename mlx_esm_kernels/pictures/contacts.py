"""A map of which residues of a protein touch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .figure import new_figure, save_png

# Points along a side: more than the picture has, and little to hold.
MOST_POINTS = 2000


class ContactPicture:
    """A contact map that is drawn once all of its rows have come.

    Where a protein has more than `MOST_POINTS` residues a point stands for a square of pairs, and
    has the largest of their probabilities.

    Args:
        residues: L, at least 1.
    """

    def __init__(self, residues: int) -> None:
        self._residues, self._come = residues, 0
        self._step = -(-residues // MOST_POINTS)
        side = -(-residues // self._step)
        self._points = np.zeros((side, side), np.float32)

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """Take the next rows: (n, L), probabilities."""
        columns = np.arange(0, self._residues, self._step)
        points = (self._come + np.arange(len(rows))) // self._step
        at, firsts = np.unique(points, return_index=True)
        largest = np.maximum.reduceat(np.maximum.reduceat(rows, columns, axis=1), firsts, axis=0)
        self._points[at] = np.maximum(self._points[at], largest)
        self._come += len(rows)

    def draw(self, path: Path, *, title: str) -> None:
        """Write `figure` to a .png file."""
        save_png(self.figure(title, "probability of a contact"), path)

    def figure(self, title: str, label: str) -> Any:
        """It, as a figure of matplotlib.

        Args:
            title: a line above.
            label: what the colours are.
        """
        figure = new_figure(5.5, 5.0)
        axes = figure.add_subplot()
        end = self._residues + 0.5
        covered = len(self._points) * self._step + 0.5  # the last point's square may go beyond
        picture = axes.imshow(
            self._points,
            cmap="Blues",
            vmin=0,
            vmax=1,
            extent=(0.5, covered, covered, 0.5),
            interpolation="nearest",
        )
        axes.set_xlim(0.5, end)
        axes.set_ylim(end, 0.5)
        axes.set_xlabel("residue")
        axes.set_ylabel("residue")
        axes.set_title(title, fontsize=9, parse_math=False)
        figure.colorbar(picture, ax=axes, label=label, fraction=0.046)
        return figure


def contact_picture(
    contacts: npt.ArrayLike, *, title: str = "", label: str = "probability of a contact"
) -> Any:
    """A contact map.

    Args:
        contacts: (L, L) from 0 to 1, of `predict_contacts` or `coupling_map`.
        title: a line above.
        label: what the colours are.

    Returns:
        A figure of matplotlib, which a notebook shows.
    """
    rows = np.asarray(contacts, dtype=np.float32)
    picture = ContactPicture(len(rows))
    picture.add(rows)
    return picture.figure(title, label)
