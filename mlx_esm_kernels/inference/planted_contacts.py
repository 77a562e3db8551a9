"""Whether a model has found which positions of synthetic families vary together.

A model with a contact regression says so itself. For others there is the categorical Jacobian
(Zhang et al. 2024, "Protein language models learn evolutionary statistics of interacting sequence
motifs"): how the logits at position j move when residue i is put in the place of each of the 20.
With J_ij its 20 x 20 block, centred along both axes,

    S_ij = |J_ij| + |J_ji|        planted_ij ~ S_ij - S_i S_j / S

where |.| is the Frobenius norm and the last step the average product correction. It needs no
training, and sees what the whole model does, whichever head or layer does it.
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
from .likelihood import logits_at
from .masked_prediction import translation

PROTEINS_OF_A_FAMILY = 4

_Floats = npt.NDArray[np.float64]
_Ids = npt.NDArray[np.uint8]


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


def couplings(model: ESM1, ids: _Ids) -> _Floats:
    """(L, L) float64, symmetric: |J_ij| + |J_ji| of the categorical Jacobian of one protein.

    Args:
        model: with a language head.
        ids: (L,) residue ids, without cls and eos.
    """
    alphabet = model.alphabet
    residues = alphabet.amino_acid_ids
    length, first = len(ids), int(alphabet.prepend_cls)
    columns = np.arange(length)
    norms = np.empty((length, length))
    for place in range(length):
        tokens = np.repeat(alphabet.with_specials(ids)[None], len(residues), axis=0)
        tokens[:, first + place] = residues
        rows = np.repeat(np.arange(len(residues)), length)
        logits = logits_at(model, tokens, rows, np.tile(columns + first, len(residues)))
        block = logits[:, residues].reshape(len(residues), length, len(residues))
        block = block - block.mean(axis=0)  # over what stands at `place`
        block = block - block.mean(axis=2, keepdims=True)  # a logit is known up to a constant
        norms[place] = np.sqrt((block**2).sum(axis=(0, 2)))
    np.fill_diagonal(norms, 0)
    symmetric: _Floats = norms + norms.T
    return symmetric


def corrected(sums: _Floats) -> _Floats:
    """(L, L) less the average product: what two positions have beyond what each has with all."""
    rows = sums.sum(axis=0)
    total = rows.sum()
    result: _Floats = sums - np.outer(rows, rows) / total if total else sums
    return result


def precision_at(sureness: _Floats, pairs: npt.NDArray[np.int64], count: int) -> float:
    """The share of planted `pairs` (P, 2) among the `count` surest pairs i < j of (L, L)."""
    first, second = np.triu_indices(len(sureness), 1)
    surest = np.argsort(-sureness[first, second], kind="stable")[:count]
    planted = {tuple(sorted(pair)) for pair in pairs.tolist()}
    found = zip(first[surest].tolist(), second[surest].tolist(), strict=True)
    return sum(pair in planted for pair in found) / count


def _chosen(families: SyntheticFamilies, indices: Places) -> list[int]:
    """The first proteins of each family that has pairs."""
    family_of = families.family_of[indices]
    return [
        index
        for number, family in enumerate(families.families)
        if len(family.pairs)
        for index in indices[family_of == number][:PROTEINS_OF_A_FAMILY].tolist()
    ]
