"""A FASTA file as large as is wanted, with lengths, letters and headers as UniRef50 has them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np

LINE = 60
_BLOCK = 8192  # proteins that are made at a time
# Lengths are lognormal: median 220, mean 284, one in fifty above the 1,022 residues of a model.
_MEDIAN, _SPREAD, _SHORTEST, _LONGEST = 220, 0.75, 11, 36_000
# Per mille, of UniProt's statistics.
_LETTERS = {
    "A": 83, "C": 14, "D": 55, "E": 67, "F": 39, "G": 71, "H": 23, "I": 59, "K": 58, "L": 97,
    "M": 24, "N": 41, "P": 47, "Q": 39, "R": 55, "S": 66, "T": 53, "V": 69, "W": 11, "Y": 29,
}  # fmt: skip
_WHAT = ("Uncharacterized protein", "ABC transporter permease", "Histidine kinase", "Transposase")
_WHOM = (("Escherichia coli", 562), ("Bacteria", 2), ("Streptomyces sp.", 1931), ("Fungi", 4751))


def write_fasta(path: Path, sequences: int, *, seed: int = 0) -> int:
    """Write so many proteins, all different; packed by gzip where the name ends in .gz.

    Returns:
        The residues in it.
    """
    residues = 0
    with _opened(path) as file:
        for records, count in _blocks(sequences, seed):
            file.write(records)
            residues += count
    return residues


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "wb", compresslevel=1))
    return path.open("wb")


def _blocks(sequences: int, seed: int) -> Iterator[tuple[bytes, int]]:
    rng = np.random.default_rng(seed)
    shares = np.array(list(_LETTERS.values()), float)
    ends = np.round(256 * np.cumsum(shares) / shares.sum()).astype(int)
    letters = np.frombuffer("".join(_LETTERS).encode(), np.uint8)
    table = np.repeat(letters, np.diff(ends, prepend=0))  # (256,)
    for first in range(0, sequences, _BLOCK):
        count = min(_BLOCK, sequences - first)
        drawn = _MEDIAN * np.exp(_SPREAD * rng.standard_normal(count))
        lengths = drawn.clip(_SHORTEST, _LONGEST).astype(int)
        residues = table[rng.integers(0, 256, int(lengths.sum()), dtype=np.uint8)].tobytes()
        at, parts = 0, []
        for number, length in enumerate(lengths.tolist(), start=first):
            lines = range(at, at + length, LINE)
            at += length
            parts.append(_header(number))
            parts += [residues[start : min(start + LINE, at)] for start in lines]
        yield b"\n".join(parts) + b"\n", at


def _header(number: int) -> bytes:
    what, (whom, taxon) = _WHAT[number % 4], _WHOM[number // 4 % 4]
    name = f"A0A{number:07X}"
    return f">UniRef50_{name} {what} n=1 Tax={whom} TaxID={taxon} RepID={name}_9BACT".encode()
