"""Proteins of which a part is to be drawn: residues and masks, and the residues that are kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..system.errors import DataError, UserError
from .alphabet import STANDARD_RESIDUES, Alphabet
from .fasta import read_fasta
from .residues import is_residue

_Flags = npt.NDArray[np.bool_]

# A text without spaces as a list of masks and single characters.
_SYMBOLS = re.compile(r"<mask>|.", re.IGNORECASE | re.DOTALL)
_MASKS = ("*", "_", "<mask>")
_SHOWN = 5  # odd characters that an error message lists
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def parse_template(text: str, alphabet: Alphabet) -> npt.NDArray[np.int32]:
    """Token ids of residues and masks.

    Args:
        text: letters in either case; `*`, `_` and `<mask>` are masks; spaces are ignored.
        alphabet: the model's.

    Returns:
        (residues,) int32, at least one of them the mask token.

    Raises:
        UserError: no residue at all, a character that is no residue, or no mask.
    """
    symbols: list[str] = _SYMBOLS.findall("".join(text.split()))
    if not symbols:
        raise UserError("the sequence is empty; give residues and masks, such as MK*T.")
    masked = np.array([symbol.lower() in _MASKS for symbol in symbols])
    odd = [
        f"{symbol!r} (position {position})"
        for position, (symbol, mask) in enumerate(zip(symbols, masked, strict=True), start=1)
        if not mask and not is_residue(symbol, alphabet)
    ]
    if odd:
        more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
        raise UserError(
            f"not a residue: {', '.join(odd[:_SHOWN])}{more}; "
            f"write residues as letters, and a mask as *, _ or <mask>."
        )
    if not masked.any():
        raise UserError("there is no mask to fill; write one as *, _ or <mask>.")
    # The letter in place of a mask does not matter; its token is replaced at once.
    letters = ["A" if mask else symbol for mask, symbol in zip(masked, symbols, strict=True)]
    return np.where(masked, alphabet.mask_idx, alphabet.encode("".join(letters))).astype(np.int32)


def read_starts(given: str, most: int) -> list[str]:
    """The sequences at which sampling starts: one that is written out, or those of a FASTA file.

    Args:
        given: the sequence, or the path of the file.
        most: how many are read at most.

    Raises:
        DataError: the file cannot be read.
        UserError: a sequence is empty, or has what is none of the 20 amino acids.
    """
    if Path(given).is_file():
        records = islice(read_fasta(given), most)
        named = [(f"{given}, record {label.split(' ')[0]!r}", text) for label, text in records]
    elif re.search(r"[./\\]", given):
        raise DataError(f"There is no file {given}, and it is no sequence either.")
    else:
        named = [("the sequence", given)]
    return [_amino_acids(text, where) for where, text in named]


def require_amino_acids(sequences: Sequence[str], what: str) -> list[str]:
    """Sequences in upper case without spaces.

    Raises:
        UserError: one is empty, or has what is none of the 20 amino acids.
    """
    return [_amino_acids(text, f"{what} {n}") for n, text in enumerate(sequences, start=1)]


def _amino_acids(text: str, where: str) -> str:
    sequence = "".join(text.split()).upper()
    if not sequence:
        raise UserError(f"{where} is empty; expected residues as letters.")
    for position, letter in enumerate(sequence, start=1):
        if letter not in STANDARD_RESIDUES:
            raise UserError(
                f"{where} has {letter!r} at position {position}; expected the 20 amino acids "
                f"alone, as sampling starts from it."
            )
    return sequence


def parse_kept(text: str, residues: int) -> _Flags:
    """Which residues are kept: `1-20,55` -> (residues,) bool.

    Args:
        text: positions from 1 and ranges of them, both ends counted.
        residues: of the protein.

    Raises:
        UserError: it is no such text, goes beyond the end, names a position twice, or keeps all.
    """
    kept = np.zeros(residues, dtype=bool)
    for part in text.replace(" ", "").split(","):
        found = _RANGE.fullmatch(part)
        if not found:
            raise UserError(
                f"{part!r} is no position or range; expected positions from 1, as in 1-20,55."
            )
        first, last = int(found[1]), int(found[2] or found[1])
        if not 1 <= first <= last:
            raise UserError(f"{part} must go up, and from 1 at least, as in 1-20.")
        if last > residues:
            raise UserError(f"{part} goes beyond the end of a protein of {residues:,} residues.")
        if kept[first - 1 : last].any():
            raise UserError(f"{part} overlaps what is kept already; name each position once.")
        kept[first - 1 : last] = True
    if kept.all():
        raise UserError("it keeps every residue, so none is left to draw.")
    return kept


def as_ranges(kept: npt.NDArray[Any]) -> str:
    """(residues,) bool -> `1-20,55`; nothing where none is kept."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], kept.astype(np.int8), [0]])))
    pairs = edges.reshape(-1, 2).tolist()
    return ",".join(f"{a + 1}" if b == a + 1 else f"{a + 1}-{b}" for a, b in pairs)
