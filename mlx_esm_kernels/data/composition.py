"""What can be counted in proteins one by one, and how far counts of two sets are apart.

The divergence of a set from a reference is KL(set || reference) = sum_i p_i ln(p_i / q_i) in nats,
with p_i = c_i / sum c, and q_i = (r_i + 1) / sum (r + 1): counts of the reference start at one, so
that nothing which it lacks is infinitely far. Pairs are neighbouring residues, all 400 of them; a
pair with a letter that is none of the 20 residues is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .alphabet import STANDARD_RESIDUES, Alphabet
from .low_complexity import TRIGGER_BITS, WINDOW, window_entropies
from .proteins import Places, Proteins
from .targets import symbols

NUM_RESIDUES = len(STANDARD_RESIDUES)
_METHIONINE = STANDARD_RESIDUES.index("M")
# Bits at which the bins of window entropies end.
ENTROPY_BINS = np.linspace(0.0, np.log2(WINDOW), 19)

_Counts = npt.NDArray[np.int32]


@dataclass(frozen=True)
class ProteinCounts:
    """Counts of each of N proteins.

    Attributes:
        residues: (N, 20) in the order of `STANDARD_RESIDUES`.
        pairs: (N, 400), of residue a before residue b at 20 a + b.
        lengths: (N,) all letters, also those that are none of the 20 residues.
        begins_with_m: (N,) 0 or 1.
        entropies: (N, 18) windows of 12 residues by their entropy, see `ENTROPY_BINS`.
        low: (N,) windows of low complexity, see `low_complexity`.
        hashes: (N,) uint64, the same for proteins that are the same.
    """

    residues: _Counts
    pairs: _Counts
    lengths: _Counts
    begins_with_m: _Counts
    entropies: _Counts
    low: _Counts
    hashes: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.lengths)

    def of(self, places: Places) -> ProteinCounts:
        """The counts of some of them."""
        return ProteinCounts(**{name: column[places] for name, column in vars(self).items()})


def count_proteins(
    proteins: Proteins,
    indices: Places,
    alphabet: Alphabet,
    on_step: Callable[[int], object] = lambda counted: None,
) -> ProteinCounts:
    """Count in some proteins.

    Args:
        proteins: where they are.
        indices: (N,) which of them.
        alphabet: of their ids.
        on_step: called with 1 after each.
    """
    count, symbol_of = len(indices), symbols(alphabet)
    found = ProteinCounts(
        residues=np.zeros((count, NUM_RESIDUES), np.int32),
        pairs=np.zeros((count, NUM_RESIDUES**2), np.int32),
        lengths=proteins.lengths[indices],
        begins_with_m=np.zeros(count, np.int32),
        entropies=np.zeros((count, len(ENTROPY_BINS) - 1), np.int32),
        low=np.zeros(count, np.int32),
        hashes=proteins.hashes[indices],
    )
    for row, index in enumerate(indices.tolist()):
        residues = symbol_of[proteins[index]].astype(np.int16)
        both = (residues[:-1] >= 0) & (residues[1:] >= 0)
        pairs = (residues[:-1] * NUM_RESIDUES + residues[1:])[both]
        bits = window_entropies(residues)
        found.residues[row] = np.bincount(residues[residues >= 0], minlength=NUM_RESIDUES)
        found.pairs[row] = np.bincount(pairs, minlength=NUM_RESIDUES**2)
        found.begins_with_m[row] = residues[0] == _METHIONINE
        found.entropies[row] = np.histogram(bits, ENTROPY_BINS)[0]
        found.low[row] = (bits <= TRIGGER_BITS).sum()
        on_step(1)
    return found


def divergence(
    counts: npt.NDArray[np.integer], reference: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    """KL(counts || reference) in nats, see the module.

    Args:
        counts: (..., K), of one or several sets.
        reference: (..., K).

    Returns:
        (...) float64, at least 0; NaN where nothing was counted.
    """
    total = counts.sum(axis=-1, keepdims=True)
    p = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    q = (reference + 1) / (reference + 1).sum(axis=-1, keepdims=True)
    terms = np.where(p == 0, 0.0, p * np.log(np.where(p == 0, 1.0, p) / q))
    # Rounding alone would take it below 0.
    nats: npt.NDArray[np.float64] = np.maximum(terms.sum(axis=-1), 0.0)
    return nats
