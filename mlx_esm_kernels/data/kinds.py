"""Whether a file of sequences is one of proteins: others have the same letters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..system.errors import DataError
from .alphabet import Alphabet

# A record this short may have four kinds of residues by chance.
_SHORTEST = 20
_SHARE = 0.95  # of the letters of a record; the rest are ambiguity codes
_MOST_TOLD = 0.5  # share of the records from which on the file is refused
_GAPS = "-."
# What is told apart: its letters, and those of which it must have all.
_KINDS = {
    "nucleotides": ("ACGTUN", ("A", "C", "G", "TU")),
    "secondary structure": ("HEC", ("H", "E", "C")),
}
_ADVICE = {
    "nucleotides": "Translate them first, a genome with a gene finder",
    "secondary structure": "Give the amino acids",
    "gaps": "Give the proteins without gaps; in a3m, without insertions (lower case) too",
}


class OddRecordWarning(UserWarning):
    """Some records do not look like proteins; they were read as such."""


class KindCounts:
    """Counts the records of a file that do not look like proteins.

    Args:
        alphabet: of the ids that `add` gets.
    """

    def __init__(self, alphabet: Alphabet) -> None:
        self._ids = {
            kind: bytes(alphabet.encode(letters).tolist()) for kind, (letters, _) in _KINDS.items()
        }
        self._needed = {
            kind: [bytes(alphabet.encode(some).tolist()) for some in needed]
            for kind, (_, needed) in _KINDS.items()
        }
        self._gaps = bytes(alphabet.encode(_GAPS).tolist())
        self.num_records = 0
        self.odd: dict[str, tuple[int, str]] = {}

    def add(self, header: str, ids: npt.NDArray[np.uint8]) -> None:
        """Count one record."""
        self.num_records += 1
        stored = ids.tobytes()
        for gap in self._gaps:
            if gap in stored:
                self._note("gaps", header)
                break
        if len(stored) < _SHORTEST:
            return
        start = stored[:_SHORTEST]
        for kind, letters in self._ids.items():
            if len(start.translate(None, letters)) > _SHORTEST // 2:
                continue  # nearly every protein: no need to look at all of it
            others = len(stored.translate(None, letters))
            if others <= (1 - _SHARE) * len(stored) and all(
                any(stored.count(one) for one in some) for some in self._needed[kind]
            ):
                self._note(kind, header)

    def _note(self, kind: str, header: str) -> None:
        count, first = self.odd.get(kind, (0, header[:60]))
        self.odd[kind] = (count + 1, first)

    def to_dict(self) -> dict[str, Any]:
        """What `judge` needs, ready for json."""
        return {"num_records": self.num_records, "odd": self.odd}


def judge(name: str, counts: Mapping[str, Any], *, as_protein: bool) -> None:
    """Refuse a file that is not one of proteins; warn where only some of its records are odd.

    Args:
        name: what messages call the file.
        counts: of `KindCounts.to_dict`.
        as_protein: whether to read it as proteins all the same; then it is only a warning.

    Raises:
        DataError: half of the records or more are nucleotides or secondary structure, or any
            record has gaps, unless `as_protein`.
    """
    total = counts["num_records"]
    for kind, (count, first) in counts["odd"].items():
        share = f"{count:,} of {total:,} records" if total > 1 else "its record"
        have = "has" if count == 1 else "have"
        if kind == "gaps":
            told = f"looks like an alignment: {share} {have} gaps (- or .), such as {first!r}"
        else:
            told = f"looks like {kind}, not proteins: {share} {have} no other letters, such as "
            told += f"{first!r}"
        if as_protein or (kind != "gaps" and count < _MOST_TOLD * total):
            warnings.warn(f"{name} {told}; read as proteins.", OddRecordWarning, stacklevel=3)
        else:
            raise DataError(
                f"{name} {told}. {_ADVICE[kind]}; or insist with --as-protein (in Python "
                f"as_protein=True), and every letter counts as a residue."
            )
