"""How often residues occur: what can be known of a masked residue without any model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .alphabet import Alphabet
from .proteins import Proteins

MAX_COUNTED_PROTEINS = 50_000
_SEED = 20_240_229


def residue_frequencies(proteins: Proteins, indices: np.ndarray, alphabet: Alphabet) -> np.ndarray:
    """(V,) float64: how often each of the 20 amino acids occurs among them; 0 for other tokens.

    Counts start at one, so that no frequency of an amino acid is 0. Of very many proteins, a
    random 50,000 are counted: enough for four digits.
    """
    counts = np.zeros(len(alphabet), dtype=np.int64)
    for index in sampled(indices).tolist():
        counts += np.bincount(proteins[index], minlength=len(alphabet))
    frequencies = np.zeros(len(alphabet))
    frequencies[alphabet.amino_acid_ids] = counts[alphabet.amino_acid_ids] + 1
    frequencies /= frequencies.sum()
    return frequencies


def sampled(indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The indices of proteins to count: all, or of very many a random 50,000."""
    if len(indices) <= MAX_COUNTED_PROTEINS:
        return indices
    rng = np.random.default_rng(_SEED)
    return np.sort(rng.choice(indices, MAX_COUNTED_PROTEINS, replace=False))
