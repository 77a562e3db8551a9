"""Mutants as text, `A1P` or `A1P:D2N`, against the sequence that they change."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..system.errors import UserError
from .alphabet import Alphabet
from .residues import is_residue

_SUBSTITUTION = re.compile(r"([A-Z])(-?\d{1,15})([A-Z])", re.ASCII)


@dataclass(frozen=True)
class Substitution:
    """One residue for another; `position` counts from 0, the letters are upper case."""

    position: int
    wild_type: str
    mutant: str


def parse_mutants(
    mutants: Sequence[str], sequence: str, alphabet: Alphabet, offset: int
) -> list[list[Substitution]]:
    """The substitutions of each mutant, checked against the sequence.

    Args:
        mutants: such as `A1P`, or `A1P:D2N` for several substitutions.
        sequence: the wild type, upper case.
        alphabet: what is a residue.
        offset: the number by which the mutants call the first residue.

    Raises:
        UserError: names the first row (from 1) that is no such text, has a residue that is none,
            is out of range, changes a position twice, or starts from another residue than the
            sequence has; and an offset that would fit all rows, if there is one.
    """
    parsed: list[list[Substitution]] = []
    for row, text in enumerate(mutants, start=1):
        where = f"row {row}, {text!r}"
        some = [_parse(one, where, alphabet, offset) for one in text.strip().upper().split(":")]
        if len({one.position for one in some}) < len(some):
            raise UserError(f"{where}: a position is changed twice.")
        parsed.append(some)
    for row, some in enumerate(parsed, start=1):
        for one in some:
            if problem := _misfit(one, sequence, offset):
                hint = _hint(parsed, sequence, offset)
                raise UserError(f"row {row}, {mutants[row - 1]!r}: {problem}{hint}")
    return parsed


def mutated(sequence: str, substitutions: Sequence[Substitution]) -> str:
    """The sequence with the substitutions made."""
    letters = list(sequence)
    for one in substitutions:
        letters[one.position] = one.mutant
    return "".join(letters)


def _parse(text: str, where: str, alphabet: Alphabet, offset: int) -> Substitution:
    match = _SUBSTITUTION.fullmatch(text.strip())
    if match is None:
        raise UserError(
            f"{where}: {text!r} is no mutant; expected the residue, its number and the new "
            f"residue, such as A1P, with : between several."
        )
    wild_type, number, mutant = match.groups()
    for letter in (wild_type, mutant):
        if not is_residue(letter, alphabet):
            raise UserError(f"{where}: {letter!r} is no residue.")
    return Substitution(int(number) - offset, wild_type, mutant)


def _misfit(one: Substitution, sequence: str, offset: int) -> str | None:
    """What is wrong with a substitution of a sequence, or None."""
    number = one.position + offset
    if not 0 <= one.position < len(sequence):
        return (
            f"position {number} is out of range; with offset {offset} the sequence has positions "
            f"{offset} to {offset + len(sequence) - 1}."
        )
    found = sequence[one.position]
    if found != one.wild_type:
        return f"expected {one.wild_type} at position {number}; the sequence has {found} there."
    return None


def _hint(parsed: list[list[Substitution]], sequence: str, offset: int) -> str:
    """An offset with which every row would fit, in words; "" where there is none."""
    wanted = {(one.position, one.wild_type) for some in parsed for one in some}
    lowest = min(position for position, _ in wanted)
    highest = max(position for position, _ in wanted)
    # A shift moves every position; those that keep all of them in the sequence are tried.
    for shift in range(-lowest, len(sequence) - highest):
        if all(sequence[position + shift] == letter for position, letter in wanted):
            return f" With offset {offset - shift} every row would fit."
    return ""
