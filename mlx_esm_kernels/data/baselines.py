"""What can be said of a masked residue without a language model, as yardsticks for one.

    residue frequencies  p(a): how often each residue occurs
    neighbours           p(a | l, r) ~ p(a | l) p(r | a), with l and r the residues beside it

Either end of a protein is a neighbour as well, of which a first residue, mostly M, tells a lot. A
neighbour that is masked itself, or is none of the 20 residues, is left out: p(a) takes the place of
p(a | l), and 1 that of p(r | a). Both are counted over some proteins, less the counts of the very
protein that is asked about, so that none predicts itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..system.console import progress
from .alphabet import STANDARD_RESIDUES, Alphabet
from .frequencies import sampled
from .proteins import Proteins
from .targets import Answers, Targets, symbols

FREQUENCIES, NEIGHBOURS = "residue frequencies", "neighbours"
BASELINES = (FREQUENCIES, NEIGHBOURS)

NUM_RESIDUES = len(STANDARD_RESIDUES)
_END = NUM_RESIDUES  # the symbol before the first residue, and after the last
_UNKNOWN = -1
# Pairs that are taken to have been seen after each residue, shared out as residues occur: what few
# pairs say counts little.
PSEUDO_PAIRS = 20.0

_Floats = npt.NDArray[np.float64]
_Symbols = npt.NDArray[np.int8]


class BaselineCounts:
    """Counts of residues and of neighbours over some proteins, each distinct one once.

    Of very many proteins, a random 50,000 are counted.

    Args:
        proteins: where the residues are.
        indices: (N,) which of them to count.
        alphabet: of their ids.
    """

    def __init__(self, proteins: Proteins, indices: npt.ArrayLike, alphabet: Alphabet) -> None:
        given = np.asarray(indices, dtype=np.int64)
        _, first = np.unique(proteins.hashes[given], return_index=True)
        chosen = sampled(given[np.sort(first)])
        self._symbol_of = symbols(alphabet)
        self._hashes = frozenset(proteins.hashes[chosen].tolist())
        self._pairs = np.zeros((NUM_RESIDUES + 1, NUM_RESIDUES + 1))
        self._singles = np.zeros(NUM_RESIDUES)
        for index in progress(chosen.tolist(), desc="🔍 counting residues", unit="protein"):
            pairs, singles = _counts(self._symbol_of[proteins[index]])
            self._pairs += pairs
            self._singles += singles
        self._all = _Chances(self._pairs, self._singles)

    def answers(self, targets: Targets) -> dict[str, Answers]:
        """What either baseline says of each target.

        Args:
            targets: of proteins in the alphabet of those counted.
        """
        found: dict[str, list[Answers]] = {name: [] for name in BASELINES}
        hashes = targets.proteins.hashes
        copies = progress(targets.copies.tolist(), desc="🔍 measuring baselines", unit="protein")
        for copy, place in enumerate(copies):
            true = self._symbol_of[targets.ids(copy)]
            own = targets.of_copy(copy)
            chances = self._all
            if int(hashes[targets.indices[place]]) in self._hashes:
                pairs, singles = _counts(true)
                chances = _Chances(self._pairs - pairs, self._singles - singles)
            positions, residues = targets.positions[own], targets.residues[own]
            given = {
                FREQUENCIES: np.broadcast_to(chances.frequencies, (len(residues), NUM_RESIDUES)),
                NEIGHBOURS: chances.between(*_neighbours(true, positions)),
            }
            for name, probabilities in given.items():
                found[name].append(Answers.of(np.log(probabilities), residues))
        return {name: Answers.joined(parts) for name, parts in found.items()}


class _Chances:
    """The frequencies that counts give: of residues, and of what follows each.

    Args:
        pairs: (21, 21), how often symbol b follows symbol a; the last symbol is a protein's end.
        singles: (20,), how often each residue occurs.
    """

    def __init__(self, pairs: _Floats, singles: _Floats) -> None:
        self.frequencies = (singles + 1) / (singles.sum() + NUM_RESIDUES)  # (20,)
        overall = (pairs.sum(axis=0) + 1) / (pairs.sum() + NUM_RESIDUES + 1)
        self._following = (pairs + PSEUDO_PAIRS * overall) / (
            pairs.sum(axis=1, keepdims=True) + PSEUDO_PAIRS
        )  # (21, 21), rows sum to 1

    def between(self, left: _Symbols, right: _Symbols) -> _Floats:
        """(M, 20), rows sum to 1: p(a | l, r); a neighbour of -1 is left out."""
        given_left = np.where(
            (left == _UNKNOWN)[:, None], self.frequencies, self._following[left, :NUM_RESIDUES]
        )
        given_right = np.where(
            (right == _UNKNOWN)[:, None], 1.0, self._following.T[right, :NUM_RESIDUES]
        )
        product = given_left * given_right
        answers: _Floats = product / product.sum(axis=1, keepdims=True)
        return answers


def _counts(protein: _Symbols) -> tuple[_Floats, _Floats]:
    """(21, 21) pairs, less those with what is no residue in them, and (20,) residues."""
    ended = np.concatenate([[_END], protein, [_END]]).astype(np.int64)
    first, second = ended[:-1], ended[1:]
    known = (first != _UNKNOWN) & (second != _UNKNOWN)
    size = NUM_RESIDUES + 1
    pairs = np.bincount(first[known] * size + second[known], minlength=size * size)
    singles = np.bincount(protein[protein != _UNKNOWN], minlength=NUM_RESIDUES)
    return pairs.reshape(size, size).astype(np.float64), singles.astype(np.float64)


def _neighbours(protein: _Symbols, positions: npt.NDArray[np.integer]) -> tuple[_Symbols, _Symbols]:
    """(M,) what is left and right of masked positions, -1 where that is masked or no residue."""
    seen = protein.copy()
    seen[positions] = _UNKNOWN
    ended = np.concatenate([[_END], seen, [_END]]).astype(np.int8)
    return ended[positions], ended[positions + 2]
