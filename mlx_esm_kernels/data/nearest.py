"""The nearest relative of a protein among others, by alignment.

Candidates are the proteins that have the most words of four residues in common with it, beyond what
their lengths let expect; of those, the one with the best local alignment (Smith-Waterman, BLOSUM62,
a gap of n residues costs 11 + n) is the nearest. Its identity is the share of aligned columns, gaps
among them, in which both residues are the same; its coverage the share of the protein's residues
that are in those columns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .alphabet import STANDARD_RESIDUES, Alphabet
from .composition import NUM_RESIDUES
from .proteins import Places, Proteins
from .targets import symbols

WORD = 4
CANDIDATES = 50
# Of longer proteins so many residues are aligned, the first: a table of all pairs of them is kept.
MOST_RESIDUES = 8192
_BLOCK = 10_000  # proteins that are ranked at a time
_QUERIES = 256  # proteins whose words are looked up at a time, 160 kB each


@dataclass(frozen=True)
class Relative:
    """The nearest relative of a protein.

    Attributes:
        place: which protein it is.
        identity: share of the aligned columns, 0 to 1.
        coverage: share of the protein's residues that are aligned, 0 to 1.
    """

    place: int
    identity: float
    coverage: float


def letters(ids: npt.NDArray[np.integer[Any]], alphabet: Alphabet) -> str:
    """A protein as text, in which all that is none of the 20 residues is X."""
    of_symbol = np.frombuffer(f"{STANDARD_RESIDUES}X".encode(), np.uint8)  # -1 is the last one
    return str(of_symbol[symbols(alphabet)[ids]].tobytes(), "ascii")


def nearest(
    proteins: Proteins,
    indices: Places,
    among: Proteins,
    places: Places,
    alphabet: Alphabet,
    on_step: Callable[[int], object] = lambda aligned: None,
) -> list[Relative | None]:
    """The nearest relative of each of some proteins.

    Args:
        proteins, indices: (N,) whose relatives are looked for.
        among, places: (M,) where. A protein is no relative of itself where `among` is `proteins`.
        alphabet: of the ids of both.
        on_step: called with 1 after each of the N.

    Returns:
        N of them; None where no protein aligns with a residue in common.
    """
    candidates = _candidates(proteins, indices, among, places, alphabet)
    found = []
    for index, some in zip(indices.tolist(), candidates, strict=True):
        text = letters(proteins[index], alphabet)
        others = [place for place in some.tolist() if among is not proteins or place != index]
        found.append(_best(text, {i: letters(among[i], alphabet) for i in others}))
        on_step(1)
    return found


def align(text: str, other: str) -> tuple[float, float]:
    """Identity and coverage of the best local alignment of two texts; 0 and 0 without one.

    Args:
        text, other: of the 20 residues and X, which is like nothing.
    """
    alignments = _aligner().align(text, other)
    if not len(alignments) or alignments.score <= 0:
        return 0.0, 0.0
    rows = alignments[0].indices
    here, there = rows[:, (rows >= 0).all(axis=0)]
    one, two = np.frombuffer(text.encode(), np.uint8), np.frombuffer(other.encode(), np.uint8)
    same = (one[here] == two[there]) & (one[here] != ord("X"))
    return float(same.sum() / rows.shape[1]), float((rows[0] >= 0).sum() / len(text))


def _best(text: str, others: dict[int, str]) -> Relative | None:
    """Of `others`, by their places, the one that aligns best."""
    scores = {
        place: _aligner().score(text[:MOST_RESIDUES], other[:MOST_RESIDUES])
        for place, other in others.items()
    }
    if not scores:
        return None
    place = max(scores, key=lambda one: scores[one])
    identity, coverage = align(text[:MOST_RESIDUES], others[place][:MOST_RESIDUES])
    return Relative(place, identity, coverage) if identity > 0 else None


@functools.cache
def _aligner() -> Any:
    from Bio.Align import PairwiseAligner, substitution_matrices

    aligner = PairwiseAligner(mode="local", open_gap_score=-12, extend_gap_score=-1)
    aligner.substitution_matrix = substitution_matrices.load("BLOSUM62")
    return aligner


def _candidates(
    proteins: Proteins, indices: Places, among: Proteins, places: Places, alphabet: Alphabet
) -> list[npt.NDArray[np.int64]]:
    """For each protein the places of others with the most words in common, the best first."""
    found: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(indices), _QUERIES):
        has_word = np.zeros((NUM_RESIDUES**WORD, len(indices[start : start + _QUERIES])), np.uint8)
        for column, index in enumerate(indices[start : start + _QUERIES].tolist()):
            has_word[_words(proteins[index], alphabet), column] = 1
        found += _most_in_common(has_word, among, places, alphabet)
    return found


def _most_in_common(
    has_word: npt.NDArray[np.uint8], among: Proteins, places: Places, alphabet: Alphabet
) -> list[npt.NDArray[np.int64]]:
    """`_candidates` of proteins whose words are the columns of (20^4, N) `has_word`."""
    queries = has_word.shape[1]
    sizes = has_word.sum(axis=0, dtype=np.int64)
    best = np.empty((0, queries), np.int64)
    best_ranks = np.empty((0, queries))
    for start in range(0, len(places), _BLOCK):
        block = np.asarray(places[start : start + _BLOCK], dtype=np.int64)
        ranks = np.empty((len(block), queries))
        for row, index in enumerate(block.tolist()):
            words = _words(among[index], alphabet)
            expected = len(words) * sizes / NUM_RESIDUES**WORD
            shared = has_word[words].sum(axis=0, dtype=np.int64)
            ranks[row] = (shared - expected) / np.sqrt(expected + 1.0)
        best = np.concatenate([best, np.broadcast_to(block[:, None], ranks.shape)])
        best_ranks = np.concatenate([best_ranks, ranks])
        # One more than are wanted: the protein itself may be among them.
        top = np.argsort(-best_ranks, axis=0, kind="stable")[: CANDIDATES + 1]
        best = np.take_along_axis(best, top, axis=0)
        best_ranks = np.take_along_axis(best_ranks, top, axis=0)
    return list(best.T)


def _words(ids: npt.NDArray[np.integer[Any]], alphabet: Alphabet) -> npt.NDArray[np.int64]:
    """The different words of residues in a protein, as numbers below 20^4."""
    residues = symbols(alphabet)[ids].astype(np.int64)
    if len(residues) < WORD:
        return np.empty(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(residues, WORD)
    whole = windows[(windows >= 0).all(axis=1)]
    words: npt.NDArray[np.int64] = np.unique(whole @ NUM_RESIDUES ** np.arange(WORD))
    return words
