"""What a model is trained on: FASTA files, downloads or the synthetic sample, in two parts."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..system.errors import DataError
from . import download
from .alphabet import Alphabet
from .masking import OptimalLoss
from .proteins import Places, Proteins, load_proteins, split_held_out
from .synthetic import make_sample

SAMPLE = "sample"
SWISSPROT = "swissprot"
UNIREF50 = "uniref50"
NAMES = (SAMPLE, SWISSPROT, UNIREF50)  # of data that are no files


@dataclass(frozen=True)
class Corpus:
    """Proteins to learn from and held-out ones to be tested on.

    Attributes:
        label: a short name, fit for a folder.
        proteins: all of them.
        train, valid: indices of either part; a duplicate is never in both.
        optimal_loss: gives the entropy floor of synthetic families; None for real proteins.
    """

    label: str
    proteins: Proteins
    train: Places
    valid: Places
    optimal_loss: OptimalLoss | None = None

    def summary(self) -> str:
        """One line: what there is, and how it is divided."""
        kind = "synthetic proteins" if self.optimal_loss is not None else "proteins"
        residues = int(self.proteins.lengths.sum())
        return (
            f"{len(self.proteins):,} {kind}, {residues:,} residues: {len(self.train):,} to train "
            f"on, {len(self.valid):,} held out"
        )


def open_corpus(
    data: Sequence[str],
    partitions: Sequence[int],
    alphabet: Alphabet,
    *,
    as_protein: bool = False,
) -> Corpus:
    """Load, or download, or make what is asked for.

    Args:
        data: paths of FASTA files, "-", "swissprot", "uniref50", or "sample" alone; nothing and no
            partitions: the sample. (A file of such a name is reached as ./sample.)
        partitions: of UniParc, in addition.
        alphabet: which residue is which token.
        as_protein: see `load_proteins`.

    Raises:
        DataError: the sample is mixed with real proteins, a file or download cannot be used, or
            there are fewer than two distinct proteins.
    """
    if SAMPLE in data and (set(data) != {SAMPLE} or partitions):
        raise DataError(
            "The synthetic sample has an entropy floor that real proteins have not, so it is "
            "trained on alone: leave out either --data sample or the rest."
        )
    if not partitions and set(data) <= {SAMPLE}:
        families = make_sample(alphabet=alphabet)
        train, valid = split_held_out(families.proteins)
        return Corpus(SAMPLE, families.proteins, train, valid, families.optimal_loss)
    sources: list[str | Path] = []
    for name in data:
        if name == SWISSPROT:
            sources.append(download.swissprot())
        elif name == UNIREF50:
            sources.append(download.uniref50())
        else:
            close = difflib.get_close_matches(name.lower(), NAMES, 1, 0.8)
            if close and not Path(name).exists():
                raise DataError(f"There is no FASTA file {name}. Did you mean {close[0]}?")
            sources.append(name)
    if partitions:
        sources += download.uniparc(partitions)
    proteins = load_proteins(sources, alphabet, as_protein=as_protein)
    train, valid = split_held_out(proteins)
    return Corpus(_label(data), proteins, train, valid)


def _label(data: Sequence[str]) -> str:
    """The first source without folder and endings, in letters that any file system takes."""
    if not data:
        return "uniparc"
    stem = Path(data[0]).name.split(".")[0]
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in stem).strip("-") or "proteins"
