"""The one protein that others are variants of."""

from __future__ import annotations

from itertools import islice

from ..system.errors import DataError
from .alphabet import ESM1B
from .fasta import read_fasta
from .residues import require_residues
from .sources import Source


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
