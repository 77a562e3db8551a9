"""Masked language modelling: which residues are targets, and what the model sees there.

Three objectives differ in that alone:

- `mlm` (`mask_tokens`), to embed and to score: BERT's recipe (Devlin et al. 2018, section 3.1), as
  ESM-1 trained with. 15 % of the residues of a batch are targets; the model sees `<mask>` in place
  of 80 % of them, a random amino acid in place of 10 %, and the true residue in the last 10 %.
- `diffusion` (`mask_proteins`, in protein_masking.py), to generate: any share of each protein,
  weighted so that the loss is a bound of the likelihood.
- `mixed` (the same): mostly about a quarter of each protein, at times any share, for both.

The LM head runs on M positions alone. A compiled step is compiled for each M: under `mlm` M is one
number for a shape (B, L), under the others one of eight, see `eighths`.
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
    """A masked batch. For one (B, L) there are one M or few, so that a step is compiled seldom.

    Attributes:
        inputs: (B, L) int32, the tokens the model sees.
        positions: (M,) int32, the masked positions, as indices into the flattened (B * L,) batch.
        targets: (M,) int32, the true tokens there.
        weights: (M,) float32, above 0 for a target, which is 1 unless the objective says otherwise;
            0 for the unused rest, whose position is 0.
    """

    inputs: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(
        cls,
        inputs: np.ndarray,
        positions: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray | float,
        size: int,
    ) -> Masked:
        """With unused places after the targets, M = `size` in all; `weights`: of each or of all."""
        count = len(positions)
        places, tokens = np.zeros((2, size), dtype=np.int32)
        of_places = np.zeros(size, dtype=np.float32)
        places[:count], tokens[:count], of_places[:count] = positions, targets, weights
        return cls(inputs, places, tokens, of_places)

    @property
    def is_target(self) -> np.ndarray:
        """(B, L) bool, True at the masked positions."""
        is_target = np.zeros(self.inputs.size, dtype=bool)
        is_target[self.positions[self.weights > 0]] = True
        return is_target.reshape(self.inputs.shape)

    @property
    def weight(self) -> float:
        """The sum of the weights."""
        return float(self.weights.sum(dtype=np.float64))


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
    if not 0 < rate <= 1:
        raise ValueError(f"[mask_tokens] rate must be above 0 and at most 1; got {rate}.")
    candidates = maskable(tokens, segment_ids, alphabet)
    amino_acids = np.asarray(alphabet.amino_acid_ids, dtype=np.int32)
    true = tokens.astype(np.int32).reshape(-1)
    inputs = true.copy()
    count = min(candidates.size, max(1, round(rate * candidates.size)))
    chosen = np.sort(rng.choice(candidates, size=count, replace=False))

    lot = rng.random(count)
    random_residues = rng.choice(amino_acids, size=count)
    inputs[chosen[lot < shown.as_mask]] = alphabet.mask_idx
    is_random = (lot >= shown.as_mask) & (lot < shown.as_mask + shown.as_random)
    inputs[chosen[is_random]] = random_residues[is_random]

    size = max(1, math.ceil(rate * tokens.size))  # M: no batch of this shape has more
    return Masked.of(inputs.reshape(tokens.shape), chosen, true[chosen], 1, size)


def maskable(tokens: np.ndarray, segment_ids: np.ndarray, alphabet: Alphabet) -> np.ndarray:
    """(N,) indices into the flattened batch, in order: where one of the 20 amino acids stands.

    Args:
        tokens, segment_ids: (B, L) integer; 0 = padding.
        alphabet: tells amino acids from the rest.

    Raises:
        ValueError: shapes differ.
    """
    if tokens.ndim != 2 or tokens.shape != segment_ids.shape:
        raise ValueError(
            "[maskable] tokens and segment_ids must have the same shape (B, L); "
            f"got {tokens.shape} and {segment_ids.shape}."
        )
    is_amino_acid = np.isin(tokens, np.asarray(alphabet.amino_acid_ids))
    return np.flatnonzero(is_amino_acid & (segment_ids != 0))


def eighths(count: int, size: int) -> int:
    """M for `count` targets among `size` = B * L tokens: the next eighth of them, at least one.

    So a shape (B, L) has eight M at most, and on average a sixteenth of the tokens is unused.
    """
    eighth = max(1, math.ceil(8 * count / size))
    return math.ceil(size * eighth / 8)
