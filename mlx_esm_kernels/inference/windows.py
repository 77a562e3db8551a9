"""Proteins that are longer than a model takes, seen through windows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Window:
    """A stretch of residues that the model sees, and the part of it that it answers for.

    Attributes:
        start, end: residues [start, end) are seen.
        keep_start, keep_end: residues [keep_start, keep_end), within those, are taken from here.
    """

    start: int
    end: int
    keep_start: int
    keep_end: int


def tile(length: int, window: int | None) -> list[Window]:
    """The fewest windows over a protein that overlap by a quarter or more, evenly spaced.

    Each residue is kept once: from the window in which it is farther from the nearest end, so
    where two overlap the first is kept up to the middle of the overlap.

    Args:
        length: residues of the protein, at least 1.
        window: the most residues that the model is to see at once, at least 1; None: any number.

    Returns:
        One window where the protein fits, else several; ascending.
    """
    if window is None or length <= window:
        return [Window(0, length, 0, length)]
    step = window - window // 4
    count = -(-(length - window) // step) + 1
    starts = [(length - window) * i // (count - 1) for i in range(count)]
    middles = [(a + window + b) // 2 for a, b in pairwise(starts)]
    return [
        Window(start, start + window, keep_start, keep_end)
        for start, keep_start, keep_end in zip(
            starts, [0, *middles], [*middles, length], strict=True
        )
    ]


def centred_starts(
    positions: npt.NDArray[np.int64], length: int, window: int
) -> npt.NDArray[np.int64]:
    """Where a window begins that has each position in its middle, or as near to it as can be.

    Args:
        positions: (P,) residues, in [0, length).
        length: residues of the protein.
        window: the most residues that the model takes.

    Returns:
        (P,) int64, in [0, max(0, length - window)].
    """
    return np.clip(positions - window // 2, 0, max(0, length - window))
