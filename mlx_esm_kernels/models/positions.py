"""The sinusoidal positions of ESM-1."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt


@functools.lru_cache(maxsize=8)
def sinusoidal_positions(rows: int, width: int, padding_idx: int) -> npt.NDArray[np.float32]:
    """The table of positions: row p is [sin(p f), cos(p f)], f_i = exp(-i ln(10^4) / (C/2 - 1)).

    Sines and cosines side by side rather than in turns, as in fairseq and fair-esm
    (esm/modules.py); row padding_idx is 0.

    Args:
        rows: P, rows of the table.
        width: C, even and at least 4.
        padding_idx: the row of padding.

    Returns:
        (P, C) float32, read-only.
    """
    half = width // 2
    frequencies = np.exp(np.arange(half) * (-np.log(10_000) / (half - 1)))
    angles = np.arange(rows)[:, None] * frequencies
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
    table[padding_idx] = 0
    table.flags.writeable = False
    return table
