"""How long new proteins are to be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..system.errors import DataError, UserError
from .fasta import read_fasta

_RANGE = re.compile(r"(\d+)-(\d+)")


@dataclass(frozen=True)
class Lengths:
    """Lengths to choose from, each as likely as the next.

    Attributes:
        choices: (N,) int64, in residues; one that is there twice is twice as likely.
    """

    choices: npt.NDArray[np.int64]

    def draw(self, seed: int, number: int) -> int:
        """The length of protein `number` of the proteins of a seed."""
        # The 1 keeps it apart from the stream (seed, number), which the residues are drawn from.
        stream = np.random.default_rng([seed, number, 1])
        return int(self.choices[stream.integers(len(self.choices))])


def parse_lengths(text: str, most: int | None) -> Lengths:
    """The lengths that a text stands for.

    Args:
        text: a number (`100`), a range with both its ends (`150-260`), or a FASTA file, whose
            proteins' lengths are drawn as often as they occur.
        most: the longest that may be; longer ones of a file are left out. None: any.

    Raises:
        UserError: it is none of them, or all lengths are too long.
        DataError: the file cannot be read.
    """
    if text.isdecimal():
        choices = np.array([int(text)])
    elif found := _RANGE.fullmatch(text.replace(" ", "")):
        low, high = int(found[1]), int(found[2])
        if high < low:
            raise UserError(f"{text} goes down; expected the shorter length first: {high}-{low}.")
        choices = np.arange(low, high + 1)
    elif Path(text).exists():
        lengths = np.array([len(sequence) for _, sequence in read_fasta(text)])
        choices = lengths[(lengths > 0) & (lengths <= (most or lengths.max()))]
        if not len(choices):
            raise DataError(f"{text} has no protein of 1 to {most or 'any number of'} residues.")
    else:
        raise UserError(
            f"{text!r} is no length; expected a number of residues, a range such as 150-260, or "
            f"a FASTA file that there is, whose lengths are to be drawn."
        )
    if choices.min() < 1:
        raise UserError(f"a protein has at least 1 residue; got {text}.")
    return Lengths(choices.astype(np.int64))
