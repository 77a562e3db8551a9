"""Masked language modelling: which residues are targets, and what the model sees there.

The recipe is BERT's (Devlin et al. 2018, section 3.1), as ESM-1 trained with: 15 % of the residues
are targets; the model sees `<mask>` in place of 80 % of them, a random amino acid in place of
10 %, and the true residue in the last 10 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .alphabet import Alphabet

MASK_RATE = 0.15


@dataclass(frozen=True)
class Shown:
    """What the model sees at a target: `<mask>`, a random amino acid, or else the true residue.

    Attributes:
        as_mask, as_random: how likely the first two are; the third has the rest.
    """

    as_mask: float
    as_random: float

    @property
    def as_itself(self) -> float:
        """How likely the model sees the true residue."""
        return 1 - self.as_mask - self.as_random


TO_TRAIN = Shown(as_mask=0.8, as_random=0.1)
# A perplexity is of tokens that are hidden; a model need not have been trained with other ones.
TO_MEASURE = Shown(as_mask=1.0, as_random=0.0)

# (inputs, true tokens, segment ids, is target), each (B, L), and what targets are shown as
# -> (sum of nats, number of targets).
OptimalLoss = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Shown], tuple[float, int]]


@dataclass(frozen=True)
class Masked:
    """A masked batch. M depends on (B, L) alone, so that a step is compiled once.

    Attributes:
        inputs: (B, L) int32, the tokens the model sees.
        positions: (M,) int32, the masked positions, as indices into the flattened (B * L,) batch.
        targets: (M,) int32, the true tokens there.
        weights: (M,) float32, 1 for a target; 0 for the unused rest, whose position is 0.
    """

    inputs: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    @property
    def is_target(self) -> np.ndarray:
        """(B, L) bool, True at the masked positions."""
        is_target = np.zeros(self.inputs.size, dtype=bool)
        is_target[self.positions[self.weights > 0]] = True
        return is_target.reshape(self.inputs.shape)


def mask_tokens(
    tokens: np.ndarray,
    segment_ids: np.ndarray,
    alphabet: Alphabet,
    rng: np.random.Generator,
    *,
    rate: float = MASK_RATE,
    shown: Shown = TO_TRAIN,
) -> Masked:
    """Choose masked positions, and hide what is there.

    Only the 20 standard amino acids are ever targets: never a special token, and never X, B or
    Z, which name no residue. Exactly `round(rate * n)` of the n candidates in the batch are taken
    (at least one), without looking at what they are.

    Args:
        tokens: (B, L) integer token ids.
        segment_ids: (B, L) integer, 0 = padding.
        alphabet: tells amino acids from the rest.
        rng: the source of chance; the same state gives the same masks.
        rate: share of the candidates that become targets, above 0 and at most 1.
        shown: what the model sees there; which residues are targets does not depend on it.

    Raises:
        ValueError: shapes differ, or the rate is out of range.
    """
    if tokens.ndim != 2 or tokens.shape != segment_ids.shape:
        raise ValueError(
            "[mask_tokens] tokens and segment_ids must have the same shape (B, L); "
            f"got {tokens.shape} and {segment_ids.shape}."
        )
    if not 0 < rate <= 1:
        raise ValueError(f"[mask_tokens] rate must be above 0 and at most 1; got {rate}.")
    amino_acids = np.asarray(alphabet.amino_acid_ids, dtype=np.int32)
    true = tokens.astype(np.int32).reshape(-1)
    inputs = true.copy()
    candidates = np.flatnonzero(np.isin(true, amino_acids) & (segment_ids.reshape(-1) != 0))
    count = min(candidates.size, max(1, round(rate * candidates.size)))
    chosen = np.sort(rng.choice(candidates, size=count, replace=False))

    lot = rng.random(count)
    random_residues = rng.choice(amino_acids, size=count)
    inputs[chosen[lot < shown.as_mask]] = alphabet.mask_idx
    is_random = (lot >= shown.as_mask) & (lot < shown.as_mask + shown.as_random)
    inputs[chosen[is_random]] = random_residues[is_random]

    size = max(1, math.ceil(rate * tokens.size))  # M: no batch of this shape has more
    positions, targets = np.zeros((2, size), dtype=np.int32)
    weights = np.zeros(size, dtype=np.float32)
    positions[:count], targets[:count], weights[:count] = chosen, true[chosen], 1
    return Masked(inputs.reshape(tokens.shape), positions, targets, weights)
