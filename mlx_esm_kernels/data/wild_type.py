"""The one protein that others are variants of."""

from __future__ import annotations

from itertools import islice

import numpy as np

from ..system.errors import DataError
from .alphabet import ESM1B
from .fasta import read_fasta
from .proteins import Proteins
from .residues import require_residues
from .sources import Source

_MOST_CHANGED = 0.1  # share of the residues of variants that differ from the commonest ones


def look_like_variants(proteins: Proteins) -> bool:
    """Whether all are as long, and differ in few places from what most of them have there."""
    lengths = proteins.lengths
    if len(lengths) < 2 or (lengths != lengths[0]).any():
        return False
    ids = np.stack(list(proteins))
    commonest = np.array([np.bincount(column).argmax() for column in ids.T])
    return bool((ids != commonest).mean() < _MOST_CHANGED)


def read_wild_type(fasta: Source) -> str:
    """The sequence of a FASTA file, upper case.

    Raises:
        DataError: it cannot be read, or has several sequences.
        UserError: a letter is no residue.
    """
    records = list(islice(read_fasta(fasta), 2))
    if len(records) > 1:
        raise DataError(f"{fasta} has several sequences; expected one, the wild type.")
    return require_residues(records[0][1], ESM1B)
