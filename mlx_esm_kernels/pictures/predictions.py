"""What was predicted against what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .figure import new_figure, save_png

Floats = npt.NDArray[np.float64]
_MOST_POINTS = 5_000  # that are points of their own; more are a cloud
_MOST_NUMBERS = 15  # classes whose counts are written into the squares


def draw_scatter(path: Path, measured: Floats, predicted: Floats, *, title: str) -> None:
    """Predictions against measurements, (E,) each, as a PNG; the line is where both agree.

    `title` is a line or two above.
    """
    figure = new_figure(5.5, 5.0)
    axes = figure.add_subplot()
    crowded = len(measured) > _MOST_POINTS
    axes.scatter(
        measured, predicted, s=2 if crowded else 9, alpha=0.1 if crowded else 0.5, linewidth=0
    )
    ends = [min(measured.min(), predicted.min()), max(measured.max(), predicted.max())]
    axes.plot(ends, ends, color="0.4", linewidth=1, linestyle="--")
    axes.set_xlabel("measured")
    axes.set_ylabel("predicted")
    axes.grid(alpha=0.25)
    axes.set_title(title, fontsize=9, parse_math=False)
    save_png(figure, path)


def draw_confusion(
    path: Path, counts: npt.NDArray[np.int64], classes: Sequence[str], *, title: str
) -> None:
    """A confusion matrix as a PNG.

    Args:
        path: the .png file.
        counts: (K, K), how many of class i were called class j.
        classes: their K names.
        title: a line or two above.
    """
    size = max(4.5, min(0.55 * len(classes) + 2.5, 20.0))
    figure = new_figure(size + 1.0, size)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [name if len(name) <= 20 else f"{name[:19]}…" for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("is")
    if len(classes) <= _MOST_NUMBERS:
        for (i, j), count in np.ndenumerate(counts):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, f"{count:,}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_title(title, fontsize=9, parse_math=False)
    figure.colorbar(picture, ax=axes, label="share of the row", fraction=0.046)
    save_png(figure, path)
