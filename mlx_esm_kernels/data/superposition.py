"""One structure laid over another, C-alpha on C-alpha."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gemmi
import numpy as np
import numpy.typing as npt

from ..system.errors import DataError
from .structure import Chain, Structure

FEWEST_PAIRS = 3  # which a rotation needs


@dataclass(frozen=True, eq=False)
class Superposition:
    """How a structure is moved onto another: x -> rotation x + shift.

    Attributes:
        rotation: (3, 3) float64. shift: (3,) float64, angstrom.
        rmsd: root mean square distance in angstrom of the C-alphas that were laid on each other.
        num_pairs: how many those are.
        chains: the names of the two chains, of the one that stays first.
    """

    rotation: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]
    rmsd: float
    num_pairs: int
    chains: tuple[str, str]

    def move(self, positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(..., 3) positions of the moved structure, where they come to lie."""
        moved: npt.NDArray[np.float64] = positions @ self.rotation.T + self.shift
        return moved


def superpose(fixed: Structure, moved: Structure) -> Superposition:
    """The move of least RMSD (Kabsch 1976) of `moved` onto `fixed`.

    Of all pairs of protein chains those two are taken whose aligned sequences have the most
    residues in common, and of these residues the C-alphas.

    Raises:
        DataError: no two chains have three residues in common.
    """
    best: tuple[int, Chain, Chain, list[tuple[int, int]]] | None = None
    for one in fixed.proteins:
        for other in moved.proteins:
            pairs = [
                (i, j)
                for i, j in _common(one.sequence, other.sequence)
                if np.isfinite(one.ca[i]).all() and np.isfinite(other.ca[j]).all()
            ]
            if len(pairs) >= FEWEST_PAIRS and (best is None or len(pairs) > best[0]):
                best = (len(pairs), one, other, pairs)
    if best is None:
        raise DataError(
            f"{moved.name} cannot be laid over {fixed.name}: no chains of theirs have "
            f"{FEWEST_PAIRS} residues with C-alphas in common."
        )
    _, one, other, pairs = best
    found = gemmi.superpose_positions(
        [gemmi.Position(*one.ca[i]) for i, _ in pairs],
        [gemmi.Position(*other.ca[j]) for _, j in pairs],
    )
    return Superposition(
        rotation=np.array(found.transform.mat.tolist()),
        shift=np.array(found.transform.vec.tolist()),
        rmsd=found.rmsd,
        num_pairs=len(pairs),
        chains=(one.name, other.name),
    )


def _common(one: str, other: str) -> Iterator[tuple[int, int]]:
    """Places in two sequences that an alignment of the whole of both puts on each other."""
    if one == other:
        yield from ((i, i) for i in range(len(one)))
        return
    aligned = gemmi.align_string_sequences(list(one), list(other), [])
    i = j = 0
    for above, below in zip(aligned.add_gaps(one, 1), aligned.add_gaps(other, 2), strict=True):
        if above == below != "-":
            yield i, j
        i += above != "-"
        j += below != "-"
