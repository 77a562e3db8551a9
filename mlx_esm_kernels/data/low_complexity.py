"""Low complexity as SEG has it: windows in which few residues are used over and over.

The complexity of a window is the entropy of its residues, -sum_a n_a / W log2(n_a / W) in bits (K2
of Wootton and Federhen 1993, "Statistics of local complexity in amino acid sequences and sequence
databases", equation 3). SEG begins a segment at each window of 12 residues with at most 2.2 bits;
those windows are counted here. What it does then, to let a segment grow as far as 2.5 bits and to
trim it, draws its ends, and is not done.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .alphabet import STANDARD_RESIDUES

WINDOW = 12
TRIGGER_BITS = 2.2
_COUNTS = np.arange(WINDOW + 1)
_BITS = -(_COUNTS / WINDOW) * np.log2(np.maximum(_COUNTS, 1) / WINDOW)


def window_entropies(symbols: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
    """The entropy of each window of 12 residues, in bits; windows with other letters are left out.

    Args:
        symbols: (L,) places in `STANDARD_RESIDUES`, -1 for what is none of them.

    Returns:
        (number of windows,) float64, from 0 to log2(12).
    """
    if len(symbols) < WINDOW:
        return np.empty(0)
    kinds = np.arange(-1, len(STANDARD_RESIDUES), dtype=symbols.dtype)
    before = np.zeros((len(symbols) + 1, len(kinds)), dtype=np.int32)
    np.cumsum(symbols[:, None] == kinds, axis=0, out=before[1:])
    counts = before[WINDOW:] - before[:-WINDOW]
    standard = counts[counts[:, 0] == 0, 1:]
    bits: npt.NDArray[np.float64] = _BITS[standard].sum(axis=1)
    return bits
