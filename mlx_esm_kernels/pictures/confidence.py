"""Proteins with each residue in the colour of a model's confidence in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .figure import new_figure

_Floats = npt.NDArray[np.floating[Any]]

_IN_A_LINE = 60  # as in a line of FASTA
_DARK = 0.6  # letters are white from here on


def confidence_picture(
    sequences: Sequence[str],
    confidence: Sequence[_Floats],
    *,
    names: Sequence[str] | None = None,
    title: str = "",
) -> Any:
    """Proteins in lines of 60 residues, each in the colour of a number from 0 to 1.

    Args:
        sequences: N proteins, one letter per residue.
        confidence: of each, (residues,) from 0 to 1, of `residue_confidence`.
        names: what they are called; None: by their number.
        title: a line above.

    Returns:
        A figure of matplotlib, which a notebook shows.

    Raises:
        ValueError: there are no proteins, or their confidence or names are not as many.
    """
    names = [str(n + 1) for n in range(len(sequences))] if names is None else names
    sizes = [len(sequence) for sequence in sequences]
    if not sizes or [len(some) for some in confidence] != sizes or len(names) != len(sizes):
        raise ValueError(
            "[confidence_picture] expected at least one sequence, as many names, and a number for "
            f"each residue; got {len(sizes)} sequences of {sizes} residues, {len(names)} names and "
            f"{[len(some) for some in confidence]} numbers."
        )
    lines = [
        _Line(
            name if start == 0 else "",
            sequence[start : start + _IN_A_LINE],
            np.asarray(values)[start : start + _IN_A_LINE],
        )
        for name, sequence, values in zip(names, sequences, confidence, strict=True)
        for start in range(0, len(sequence), _IN_A_LINE)
    ]
    return _drawn(lines, title)


class _Line(NamedTuple):
    """A line of the picture: a protein's name before its first residues, and a value for each."""

    name: str
    residues: str
    values: _Floats


def _drawn(lines: Sequence[_Line], title: str) -> Any:
    width = max(len(line.residues) for line in lines)
    values = np.full((len(lines), width), np.nan)
    for row, line in enumerate(lines):
        values[row, : len(line.values)] = line.values
    figure = new_figure(max(4.0, 0.16 * width + 1.6), 0.32 * len(lines) + 1.2)
    axes = figure.add_subplot()
    picture = axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    style = {"ha": "center", "va": "center", "fontsize": 8, "family": "monospace"}
    for row, line in enumerate(lines):
        for column, (letter, value) in enumerate(zip(line.residues, line.values, strict=True)):
            colour = "white" if value > _DARK else "black"
            axes.text(column, row, letter, color=colour, parse_math=False, **style)
    axes.spines[:].set_visible(False)
    axes.set_yticks(range(len(lines)), [line.name for line in lines], fontsize=8)
    axes.set_yticks(np.arange(len(lines) - 1) + 0.5, minor=True)
    axes.grid(which="minor", axis="y", color="white", linewidth=4)
    axes.tick_params(which="both", length=0)
    ticks = [0, *range(9, width, 10)]
    axes.set_xticks(ticks, [str(tick + 1) for tick in ticks], fontsize=7)
    axes.set_title(title, fontsize=9, parse_math=False)
    figure.colorbar(
        picture, ax=axes, label="confidence", location="bottom", fraction=0.1, aspect=40
    )
    return figure
