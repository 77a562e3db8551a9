"""What is given as a sequence, and what counts as a residue where every letter matters."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..system.errors import UserError
from .alphabet import Alphabet

_FILES = (".fasta", ".fa", ".faa", ".fas", ".gz", ".txt", ".csv")


def listed(items: Iterable[Any], what: str) -> Iterable[Any]:
    """`items`, unless it is one text, or nothing that holds several.

    Args:
        items: what was given.
        what: what a message calls it.

    Raises:
        UserError: it is a single text, a dict, a path, or cannot be gone through.
    """
    if isinstance(items, (str, bytes)):
        raise UserError(f"{what} must be a list; got one text: write [{_brief(items)}].")
    if isinstance(items, os.PathLike):
        raise UserError(f"{what} must be a list of texts; got the path {_brief(os.fspath(items))}.")
    if isinstance(items, Mapping):
        raise UserError(f"{what} must be a list; got a dict: give its .values().")
    try:
        iter(items)
    except TypeError:
        raise UserError(f"{what} must be a list; got a {type(items).__name__}.") from None
    return items


def as_text(given: Any, where: str) -> str:
    """A sequence as text: a str, or what Biopython makes of one.

    Args:
        given: one element of what was given.
        where: what a message calls it.

    Raises:
        UserError: it is missing, bytes, a pair of a label and a sequence, or something else.
    """
    if isinstance(given, str):
        if given.lower().endswith(_FILES):
            raise UserError(
                f"{where}: expected a sequence; got what looks like a file, {_brief(given)}. Read "
                f"it first, or use the command."
            )
        return given
    if hasattr(given, "seq"):  # a SeqRecord
        given = given.seq
    if type(given).__module__.startswith("Bio."):
        return str(given)
    if given is None or (isinstance(given, float) and given != given):
        raise UserError(f"{where}: expected text; got {given!r}: a missing value.")
    if isinstance(given, (bytes, bytearray)):
        raise UserError(f"{where}: expected text; got bytes: decode them, .decode().")
    if isinstance(given, (tuple, list)):
        raise UserError(
            f"{where}: expected text; got a {type(given).__name__} of {len(given)}. Of pairs "
            f"(label, sequence) give the sequences alone: [s for _, s in pairs]."
        )
    raise UserError(f"{where}: expected text; got a {type(given).__name__}.")


def without_stop(sequence: str) -> str:
    """A sequence less the stop (*) at its end, which is no residue; others stay."""
    return sequence.rstrip().rstrip("*").rstrip() if "*" in sequence[-9:] else sequence


def require_residues(text: str, alphabet: Alphabet) -> str:
    """A sequence in upper case without spaces; UserError where not all of it are residues."""
    sequence = "".join(as_text(text, "the sequence").split()).upper()
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


def _brief(text: Any) -> str:
    shown = repr(text)
    return shown if len(shown) <= 30 else f"{shown[:30]}..."
