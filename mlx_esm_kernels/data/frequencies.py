"""How often residues occur: what can be known of a masked residue without any model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..system.console import progress
from .alphabet import STANDARD_RESIDUES, Alphabet
from .proteins import Proteins

MAX_COUNTED_PROTEINS = 50_000
_SEED = 20_240_229

# Of all proteins of UniProtKB/Swiss-Prot, in per cent: its release statistics, section 6.1, "Amino
# acid composition". Between releases of ten years the second decimal moves.
_SWISS_PROT = {
    "A": 8.25, "C": 1.38, "D": 5.46, "E": 6.72, "F": 3.86, "G": 7.07, "H": 2.27, "I": 5.91,
    "K": 5.80, "L": 9.65, "M": 2.41, "N": 4.06, "P": 4.74, "Q": 3.93, "R": 5.53, "S": 6.64,
    "T": 5.35, "V": 6.86, "W": 1.10, "Y": 2.92,
}  # fmt: skip


def natural_frequencies() -> npt.NDArray[np.float64]:
    """(20,) how often each residue occurs in known proteins, in the order of STANDARD_RESIDUES."""
    percents = np.array([_SWISS_PROT[residue] for residue in STANDARD_RESIDUES])
    frequencies: npt.NDArray[np.float64] = percents / percents.sum()
    return frequencies


def residue_frequencies(proteins: Proteins, indices: np.ndarray, alphabet: Alphabet) -> np.ndarray:
    """(V,) float64: how often each of the 20 amino acids occurs among them; 0 for other tokens.

    Counts start at one, so that no frequency of an amino acid is 0. Of very many proteins, a
    random 50,000 are counted: enough for four digits.
    """
    counts = np.zeros(len(alphabet), dtype=np.int64)
    chosen = sampled(indices).tolist()
    for index in progress(chosen, desc="🔍 counting residues", unit="protein"):
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
