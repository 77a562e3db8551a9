"""Whether a model has found which positions of synthetic families vary together.

A model with a contact regression says so itself. For others there are the couplings of its
categorical Jacobian (`couplings`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.proteins import Places
from ..data.synthetic import PAIR_DISTANCE, SyntheticFamilies
from ..models.esm1 import ESM1
from .contacts import contact_map
from .couplings import corrected, couplings
from .masked_prediction import translation

PROTEINS_OF_A_FAMILY = 4

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PlantedPrecision:
    """Of the surest pairs of positions, the share that vary together.

    Attributes:
        measure: what says how sure: "contact regression" or "categorical Jacobian".
        num_proteins: how many proteins it is the mean of.
        at_all: among as many pairs as are planted, about L / 4.
        at_half: among half as many.
        chance: of pairs at random.
        chance_at_distance: of pairs at random that are as far apart as all planted ones.
    """

    measure: str
    num_proteins: int
    at_all: float
    at_half: float
    chance: float
    chance_at_distance: float


def planted_precision(
    model: ESM1,
    families: SyntheticFamilies,
    indices: Places,
    on_step: Callable[[int], object] = lambda done: None,
) -> PlantedPrecision | None:
    """How well a model finds the pairs that were planted, in a few proteins of each family.

    Args:
        model: with a contact regression or a language head.
        families: where proteins and pairs come from.
        indices: (N,) the proteins to choose from.
        on_step: called with 1 after each protein.

    Returns:
        The means over the proteins; None where no family that the proteins are of has pairs.

    Raises:
        UserError: the model gives NaN, or is too short for a protein.
    """
    chosen = _chosen(families, indices)
    if not chosen:
        return None
    translated = translation(families.alphabet, model.alphabet)
    rows = []
    for index in chosen:
        ids = translated[families.proteins[index]]
        pairs = families.families[int(families.family_of[index])].pairs
        if model.config.contact_head:
            sureness = np.array(contact_map(model, ids), dtype=np.float64)
        else:
            sureness = corrected(couplings(model, ids))
        length, num_pairs = len(ids), len(pairs)
        rows.append(
            (
                precision_at(sureness, pairs, num_pairs),
                precision_at(sureness, pairs, max(1, num_pairs // 2)),
                num_pairs / (length * (length - 1) / 2),
                num_pairs / (length - PAIR_DISTANCE),
            )
        )
        on_step(1)
    measure = "contact regression" if model.config.contact_head else "categorical Jacobian"
    return PlantedPrecision(measure, len(chosen), *(float(x) for x in np.mean(rows, axis=0)))


def precision_at(sureness: _Floats, pairs: npt.NDArray[np.int64], count: int) -> float:
    """The share of planted `pairs` (P, 2) among the `count` surest pairs i < j of (L, L)."""
    first, second = np.triu_indices(len(sureness), 1)
    surest = np.argsort(-sureness[first, second], kind="stable")[:count]
    planted = {tuple(sorted(pair)) for pair in pairs.tolist()}
    found = zip(first[surest].tolist(), second[surest].tolist(), strict=True)
    return sum(pair in planted for pair in found) / count


def num_looked_at(families: SyntheticFamilies, indices: Places) -> int:
    """How many proteins `planted_precision` looks at."""
    return len(_chosen(families, indices))


def _chosen(families: SyntheticFamilies, indices: Places) -> list[int]:
    """The first proteins of each family that has pairs."""
    family_of = families.family_of[indices]
    return [
        index
        for number, family in enumerate(families.families)
        if len(family.pairs)
        for index in indices[family_of == number][:PROTEINS_OF_A_FAMILY].tolist()
    ]
