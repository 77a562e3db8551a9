"""Proteins as long as those of real genomes, for where no FASTA is given."""

from __future__ import annotations

import numpy as np

from mlx_esm_kernels.data.alphabet import STANDARD_RESIDUES
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.data.synthetic import BACKGROUND

SOURCE = "lengths as of Swiss-Prot's proteins of archaea"
COUNT = 2872
# Of the 2,872 proteins in Prokka's database kingdom/Archaea/sprot, which are Swiss-Prot's (UniProt,
# CC BY 4.0): the shortest, the length that 4 % do not exceed, 8 %, ..., the longest.
QUANTILES = (29, 67, 91, 110, 128, 143, 162, 183, 198, 216, 232, 247, 262)
QUANTILES += (282, 302, 322, 341, 360, 389, 412, 437, 472, 534, 619, 765, 2894)


def real_lengths(count: int = COUNT) -> np.ndarray:
    """(count,) int64, that many quantiles of the distribution, in an order that is random and the
    same each time."""
    places = (np.arange(count) + 0.5) / count * (len(QUANTILES) - 1)
    lengths = np.interp(places, np.arange(len(QUANTILES)), QUANTILES).round().astype(np.int64)
    return np.random.default_rng(0).permutation(lengths)


def real_proteins(count: int = COUNT) -> Proteins:
    """Residues drawn by their frequencies in Swiss-Prot, of such lengths."""
    rng = np.random.default_rng(1)
    letters = np.array(list(STANDARD_RESIDUES))
    return Proteins.from_sequences(
        "".join(rng.choice(letters, length, p=BACKGROUND)) for length in real_lengths(count)
    )
