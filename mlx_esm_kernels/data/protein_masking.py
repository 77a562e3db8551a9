"""Masks at a rate of each protein's own, from one residue to all: what a sampler meets on its way.

A rate t is drawn for each protein, also for those that are packed into one row, and ceil(t n) of
its n residues become targets, all shown as `<mask>`:

- `diffusion`: t is uniform in (0, 1], so the number of targets k is uniform in 1..n. Each target
  weighs n / k, which makes the weights of a protein sum to n and the expected loss (weighted sum
  over sum of weights) the order-agnostic bound of -log p(protein), in nats per residue: Hoogeboom
  et al. 2022, "Autoregressive diffusion models", which EvoDiff's OADM is (Alamdari et al. 2023); in
  continuous time that of MDLM (Sahoo et al. 2024), weighted by 1 / t. DPLM (Wang et al. 2024) has
  the same masks, and its code other weights.
- `mixed`: t is from Beta(3, 9) in 80 % of the proteins and uniform in 20 %, 30 % on average, and
  all targets weigh 1. It is ESM3's schedule for sequences, "betalinear30" (Hayes et al. 2025,
  appendix A.2.2.1): theirs found a fixed 15 % poor at generating and uniform rates poor at
  representing. They speak of masks alone, not of BERT's random and true residues.

The rates of a batch are stratified, as MDLM's are: N proteins have one each of N equal strata of
the distribution, in a random order. Each is distributed as if it was drawn alone, and their mean,
and with it loss and number of targets, varies less from batch to batch.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .alphabet import Alphabet
from .masking import Masked, eighths, mask_tokens, maskable

Floats = npt.NDArray[np.float64]


def mask_for(
    objective: str,
    tokens: np.ndarray,
    segment_ids: np.ndarray,
    alphabet: Alphabet,
    rng: np.random.Generator,
) -> Masked:
    """A batch masked as an objective trains on it.

    Args:
        objective: "mlm", "diffusion" or "mixed".
        tokens, segment_ids: (B, L) integer; 0 = padding.
        alphabet: tells amino acids from the rest.
        rng: the source of chance; the same state gives the same masks.

    Raises:
        ValueError: shapes differ, or there is no such objective.
    """
    if objective == "mlm":
        return mask_tokens(tokens, segment_ids, alphabet, rng)
    return mask_proteins(tokens, segment_ids, alphabet, rng, objective)


def mask_proteins(
    tokens: np.ndarray,
    segment_ids: np.ndarray,
    alphabet: Alphabet,
    rng: np.random.Generator,
    objective: str,
) -> Masked:
    """Mask each protein at its own rate. One without any amino acid has no target.

    Args:
        tokens, segment_ids, alphabet, rng: see `mask_for`.
        objective: "diffusion" or "mixed".

    Raises:
        ValueError: shapes differ, or there is no such objective.
    """
    candidates = maskable(tokens, segment_ids, alphabet)
    rows = candidates // tokens.shape[1]
    segments = segment_ids.reshape(-1)[candidates].astype(np.int64)
    _, protein, sizes = np.unique(
        rows * (tokens.shape[1] + 1) + segments, return_inverse=True, return_counts=True
    )
    counts = np.ceil(draw_rates(objective, len(sizes), rng) * sizes).astype(np.int64)
    # Of each protein the first ones in a random order.
    order = np.lexsort((rng.random(candidates.size), protein))
    place = np.arange(candidates.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = np.sort(order[place < np.repeat(counts, sizes)])

    true = tokens.astype(np.int32).reshape(-1)
    positions, inputs = candidates[chosen], true.copy()
    inputs[positions] = alphabet.mask_idx
    weights = (sizes / counts)[protein[chosen]] if objective == "diffusion" else 1.0
    size = eighths(len(positions), tokens.size)
    return Masked.of(inputs.reshape(tokens.shape), positions, true[positions], weights, size)


def draw_rates(objective: str, count: int, rng: np.random.Generator) -> Floats:
    """(count,) rates above 0 and at most 1, one of each of `count` strata, in a random order."""
    uniform = (rng.permutation(count) + 1 - rng.random(count)) / max(count, 1)
    if objective == "diffusion":
        return uniform
    if objective == "mixed":
        return np.interp(uniform, _SHARES, _RATES)
    raise ValueError(f"[mask_proteins] objective must be diffusion or mixed; got {objective!r}.")


def mixed_cdf(rates: Floats) -> Floats:
    """The share of `mixed`'s rates up to each of these.

    Beta(3, 9) up to x is at least 3 successes in 11 tosses of probability x.
    """
    beta = sum(math.comb(11, k) * rates**k * (1 - rates) ** (11 - k) for k in range(3, 12))
    return 0.8 * np.asarray(beta) + 0.2 * rates


# Read backwards, between its points, it turns uniform numbers into rates.
_RATES: Floats = np.linspace(0, 1, 4097)
_SHARES = mixed_cdf(_RATES)
