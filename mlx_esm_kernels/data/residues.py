"""What counts as a residue where every letter matters."""

from __future__ import annotations

from ..system.errors import UserError
from .alphabet import Alphabet


def require_residues(text: str, alphabet: Alphabet) -> str:
    """A sequence in upper case without spaces; UserError where not all of it are residues."""
    sequence = "".join(text.split()).upper()
    if not sequence:
        raise UserError("the sequence is empty; expected residues as letters.")
    for position, letter in enumerate(sequence, start=1):
        if not is_residue(letter, alphabet):
            raise UserError(
                f"the sequence has {letter!r} at position {position}, which is no residue."
            )
    return sequence


def is_residue(letter: str, alphabet: Alphabet) -> bool:
    """A letter with a token; the gap signs `.` and `-` have one too, but are no residues."""
    ids = alphabet.encode(letter)
    return letter.isalpha() and ids.size == 1 and bool(ids[0] != alphabet.unk_idx)
