"""Mutants as people write them, against the sequence that they change: `A1P`, `A1P:D2N`, HGVS.

The protein half of HGVS (https://hgvs-nomenclature.org) as MaveDB has it, and what scans of
ProteinGym and others use: one or three letters, several changes with one of : ; , / + | & or a
space between them, the wild type under its names, insertions, deletions, and stops.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..system.errors import UserError
from .alphabet import Alphabet
from .residues import as_text, is_residue, listed

_THREE_LETTERS = {
    "ALA": "A", "CYS": "C", "ASP": "D", "GLU": "E", "PHE": "F", "GLY": "G", "HIS": "H",
    "ILE": "I", "LYS": "K", "LEU": "L", "MET": "M", "ASN": "N", "PRO": "P", "GLN": "Q",
    "ARG": "R", "SER": "S", "THR": "T", "VAL": "V", "TRP": "W", "TYR": "Y", "ASX": "B",
    "GLX": "Z", "XAA": "X", "SEC": "U", "PYL": "O", "TER": "*",
}  # fmt: skip
_WILD_TYPES = frozenset(
    (
        *("WT", "_WT", "WILD TYPE", "WILD-TYPE", "WILD_TYPE", "WILDTYPE"),
        *("=", "P.=", "P.(=)", "P.WT", "_SY", "SYNONYMOUS", "SYN"),
    )
)
_MISSING = frozenset(("NA", "N/A", "#N/A", "NAN", "NULL", "NONE"))
_BETWEEN = re.compile(r"\s*[:;,/+|&]\s*|\s+")
_NUCLEOTIDES = re.compile(r"[CGNMR]\.\S")
_RESIDUE = r"([A-Z]{3}|[A-Z])"
_PLACE = _RESIDUE + r"(-?\d{1,9})"
_SUBSTITUTION = re.compile(_PLACE + r"(?!DEL|DUP)([A-Z]{3}|[A-Z]|=|\*)", re.ASCII)
_STOP = re.compile(
    _PLACE + r"(?:[A-Z]{3}|[A-Z])?FS.*|" + _PLACE + r"(?:TER|\*|STOP|\?)|\?", re.ASCII
)
_RANGE = _PLACE + r"(?:_" + _PLACE + r")?"
_DELETION = re.compile(_RANGE + r"(?:DEL|-|DELINS([A-Z]+))", re.ASCII)
_DUPLICATION = re.compile(_RANGE + r"DUP", re.ASCII)
_INSERTION = re.compile(_PLACE + "_" + _PLACE + r"INS([A-Z]+)", re.ASCII)
_SHORTEST_SEQUENCE = 6  # letters of a cell that is taken for a whole protein


@dataclass(frozen=True)
class Substitution:
    """One residue for another; `position` counts from 0, the letters are upper case."""

    position: int
    wild_type: str
    mutant: str


@dataclass(frozen=True)
class Mutant:
    """What became of a protein; iterating gives the substitutions.

    Attributes:
        substitutions: residue for residue; none: the wild type.
        sequence: the whole protein where residues were inserted or deleted, else None.
        is_cut: it ends early (a stop), goes on otherwise (a frame shift), or nobody knows what
            became of it (?), so it has no score.
    """

    substitutions: tuple[Substitution, ...] = ()
    sequence: str | None = None
    is_cut: bool = False

    def __iter__(self) -> Iterator[Substitution]:
        return iter(self.substitutions)

    def __len__(self) -> int:
        return len(self.substitutions)


@dataclass(frozen=True)
class _Edit:
    """Residues [first, end) become `residues`.

    Attributes:
        known: (position, letter) of the residues that must be found there.
        copied: the residues [from, to) of the sequence are put there too.
    """

    first: int
    end: int
    residues: str
    known: tuple[tuple[int, str], ...]
    copied: tuple[int, int] = (0, 0)


def parse_mutants(
    mutants: Iterable[str], sequence: str, alphabet: Alphabet, offset: int
) -> list[Mutant]:
    """Each mutant, checked against the sequence.

    Args:
        mutants: such as `A1P`, `A1P:D2N`, `p.Ala1Pro`, `WT`, `A1del`, or a whole mutated protein.
        sequence: the wild type, upper case.
        alphabet: what is a residue.
        offset: the number by which the mutants call the first residue.

    Raises:
        UserError: names the first row (from 1) that is no such text, has a residue that is none,
            is out of range, changes a position twice, or starts from another residue than the
            sequence has; and an offset that would fit all rows, if there is one.
    """
    texts = [
        as_text(text, f"row {row}")
        for row, text in enumerate(listed(mutants, "[score_variants] mutants"), start=1)
    ]
    edits = [
        _edits(text, f"row {row}, {text!r}", sequence, alphabet, offset)
        for row, text in enumerate(texts, start=1)
    ]
    for row, some in enumerate(edits, start=1):
        for edit in some or ():
            if problem := _misfit(edit, sequence, offset):
                hint = _hint(edits, sequence, offset)
                raise UserError(f"row {row}, {texts[row - 1]!r}: {problem}{hint}")
    return [_mutant(some, sequence) for some in edits]


def mutated(sequence: str, mutant: Mutant) -> str:
    """The sequence of a mutant."""
    if mutant.sequence is not None:
        return mutant.sequence
    letters = list(sequence)
    for one in mutant:
        letters[one.position] = one.mutant
    return "".join(letters)


def _edits(
    text: str, where: str, sequence: str, alphabet: Alphabet, offset: int
) -> list[_Edit] | None:
    """The changes that a text says; none of the wild type, None of a protein that is cut."""
    plain = text.strip().upper()
    if plain in _WILD_TYPES:
        return []
    if plain in _MISSING:
        raise UserError(f"{where}: the mutant is missing; leave the row out.")
    if _NUCLEOTIDES.match(plain):
        raise UserError(
            f"{where}: this is HGVS of nucleotides; give what becomes of the protein, such as "
            f"p.Ala1Pro or A1P."
        )
    if plain.isalpha() and len(plain) >= max(_SHORTEST_SEQUENCE, len(sequence) // 2):
        return _from_sequence(plain, where, sequence, alphabet)
    plain = plain.removeprefix("P.")
    for opening, closing in ("()", "[]", "()"):
        if plain.startswith(opening) and plain.endswith(closing):
            plain = plain[1:-1]
    parts = _BETWEEN.split(plain)
    if "_" in plain and "INS" not in plain and "DEL" not in plain and "DUP" not in plain:
        parts = plain.split("_")
    found = [_edit(part.removeprefix("P."), where, alphabet, offset) for part in parts]
    if any(edit is None for edit in found):
        return None
    edits = [edit for edit in found if edit is not None]
    spans = sorted((edit.first, edit.end) for edit in edits)
    if any(end > first for (_, end), (first, _) in pairwise(spans)):
        raise UserError(f"{where}: a position is changed twice.")
    return edits


def _from_sequence(given: str, where: str, sequence: str, alphabet: Alphabet) -> list[_Edit]:
    """The change that makes the sequence a whole protein that is given."""
    for letter in set(given):
        if not is_residue(letter, alphabet):
            raise UserError(f"{where}: {letter!r} is no residue.")
    if len(given) == len(sequence):
        pairs = enumerate(zip(sequence, given, strict=True))
        return [_Edit(i, i + 1, new, ((i, old),)) for i, (old, new) in pairs if old != new]
    return [_Edit(0, len(sequence), given, ())]


def _edit(text: str, where: str, alphabet: Alphabet, offset: int) -> _Edit | None:
    """One change; None where it ends the protein or shifts its frame."""
    if _STOP.fullmatch(text):
        return None
    letter = _Letters(where, alphabet)
    if found := _SUBSTITUTION.fullmatch(text):
        old, number, new = found.groups()
        place = int(number) - offset
        old = letter(old)
        return _Edit(place, place + 1, old if new == "=" else letter(new), ((place, old),))
    if found := _INSERTION.fullmatch(text):
        first, number, second, next_number, new = found.groups()
        place = int(number) - offset
        if int(next_number) != int(number) + 1:
            raise UserError(
                f"{where}: an insertion is between neighbours, such as A1_D2insG; got {number} "
                f"and {next_number}."
            )
        known = ((place, letter(first)), (place + 1, letter(second)))
        return _Edit(place + 1, place + 1, letter.several(new), known)
    if found := _DELETION.fullmatch(text) or _DUPLICATION.fullmatch(text):
        old, number, last, last_number, *new = found.groups()
        first_place = int(number) - offset
        last_place = int(last_number or number) - offset
        known = ((first_place, letter(old)), (last_place, letter(last or old)))
        if last_place < first_place:
            raise UserError(f"{where}: the range {number} to {last_number} ends before it begins.")
        if not new:  # a duplication
            copied = (first_place, last_place + 1)
            return _Edit(last_place + 1, last_place + 1, "", known, copied)
        return _Edit(first_place, last_place + 1, letter.several(new[0] or ""), known)
    raise UserError(
        f"{where}: {text!r} is no mutant; expected the residue, its number and the new "
        f"residue, such as A1P, with : between several."
    )


class _Letters:
    """Residues from one or three letters."""

    def __init__(self, where: str, alphabet: Alphabet) -> None:
        self._where, self._alphabet = where, alphabet

    def __call__(self, text: str) -> str:
        letter = _THREE_LETTERS.get(text, text)
        if not is_residue(letter, self._alphabet):
            raise UserError(f"{self._where}: {text!r} is no residue.")
        return letter

    def several(self, text: str) -> str:
        """`GLNTRP` or `QW` -> QW: three letters each where all are such."""
        triples = [text[i : i + 3] for i in range(0, len(text), 3)]
        if all(triple in _THREE_LETTERS for triple in triples):
            return "".join(map(self, triples))
        return "".join(map(self, text))


def _misfit(edit: _Edit, sequence: str, offset: int) -> str | None:
    """What is wrong with a change of a sequence, or None."""
    for position, letter in edit.known:
        number = position + offset
        if not 0 <= position < len(sequence):
            return (
                f"position {number} is out of range; with offset {offset} the sequence has "
                f"positions {offset} to {offset + len(sequence) - 1}."
            )
        found = sequence[position]
        if found != letter:
            return f"expected {letter} at position {number}; the sequence has {found} there."
    return None


def _hint(edits: Sequence[list[_Edit] | None], sequence: str, offset: int) -> str:
    """An offset with which every row would fit, in words; "" where there is none."""
    wanted = {known for some in edits for edit in some or () for known in edit.known}
    lowest = min(position for position, _ in wanted)
    highest = max(position for position, _ in wanted)
    # A shift moves every position; those that keep all of them in the sequence are tried.
    for shift in range(-lowest, len(sequence) - highest):
        if all(sequence[position + shift] == letter for position, letter in wanted):
            return f" With offset {offset - shift} every row would fit."
    return ""


def _mutant(edits: list[_Edit] | None, sequence: str) -> Mutant:
    if edits is None:
        return Mutant(is_cut=True)
    if all(edit.end - edit.first == 1 == len(edit.residues) for edit in edits):
        return Mutant(tuple(Substitution(e.first, sequence[e.first], e.residues) for e in edits))
    text = sequence
    for edit in sorted(edits, key=lambda edit: -edit.first):
        residues = edit.residues + sequence[slice(*edit.copied)]
        text = text[: edit.first] + residues + text[edit.end :]
    return Mutant(sequence=text)
