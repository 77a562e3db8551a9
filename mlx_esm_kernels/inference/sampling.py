"""Filling the masked positions of proteins.

Masks are filled one position per protein and step, all proteins side by side in one batch; each
choice is seen by the next one. Only the 20 standard amino acids are ever chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ..models.esm1 import ESM1
from ..system.errors import UserError
from .likelihood import Floats, Tokens, log_softmax, logits_at

Order = Literal["left-to-right", "confident", "random"]
ORDERS: tuple[Order, ...] = get_args(Order)


@dataclass(frozen=True)
class Sampling:
    """How residues are chosen.

    Attributes:
        temperature: logits are divided by it; below 1 is bolder, above 1 more varied.
        top_p: choose among the fewest residues whose probabilities reach it together; 1: all.
        order: which mask is next: "left-to-right", the one whose best residue is the most
            probable ("confident"), or a random one.
        max_prob_only: always the most probable residue; temperature and top_p play no part.
        seed: protein i of a batch draws from the stream (seed, i), so that it stays the same
            however many proteins are sampled with it.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    order: Order = "left-to-right"
    max_prob_only: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UserError(
                f"[Sampling] temperature must be above 0; got {self.temperature}. "
                f"For the most probable residues use max_prob_only."
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"[Sampling] top_p must be above 0 and at most 1; got {self.top_p}.")
        if self.order not in ORDERS:
            raise UserError(f"[Sampling] order must be one of {ORDERS}; got {self.order!r}.")
        if self.seed < 0:
            raise UserError(f"[Sampling] seed must be 0 or more; got {self.seed}.")


def fill_masks(
    model: ESM1,
    tokens: Tokens,
    sampling: Sampling,
    on_step: Callable[[int], object] = lambda filled: None,
) -> Tokens:
    """Replace every mask by an amino acid, one mask of each protein per step.

    Args:
        model: the model.
        tokens: (N, L) integer, one protein in each row: residues and masks, with the cls and eos
            of the model's alphabet; no padding. Every row has the same number of masks.
        sampling: how to choose.
        on_step: called after each step with the number of masks that it filled.

    Returns:
        (N, L), tokens without masks; the argument is left as it is.

    Raises:
        ValueError: the rows have different numbers of masks.
        UserError: the model gives NaN.
    """
    alphabet, tokens = model.alphabet, np.array(tokens)
    masked = tokens == alphabet.mask_idx  # (N, L)
    counts = masked.sum(axis=1)
    if counts.size and counts.min() != counts.max():
        raise ValueError(
            f"[fill_masks] every row must have the same number of masks; "
            f"got {counts.min()} to {counts.max()}."
        )
    rows = np.arange(len(tokens))
    streams = [np.random.default_rng([sampling.seed, row]) for row in range(len(tokens))]
    for _ in range(int(counts[0]) if counts.size else 0):
        if sampling.order == "confident":
            columns, logits = _most_confident(model, tokens, masked)
        else:
            if sampling.order == "random":
                columns = np.array(
                    [
                        stream.choice(np.flatnonzero(row))
                        for stream, row in zip(streams, masked, strict=True)
                    ]
                )
            else:
                columns = masked.argmax(axis=1)
            logits = logits_at(model, tokens, rows, columns)[:, alphabet.amino_acid_ids]
        tokens[rows, columns] = alphabet.amino_acid_ids[_choose(logits, sampling, streams)]
        masked[rows, columns] = False
        on_step(len(rows))
    return tokens


def _most_confident(
    model: ESM1, tokens: Tokens, masked: npt.NDArray[np.bool_]
) -> tuple[Tokens, Floats]:
    """Of each row the mask (N,) whose best amino acid is the most probable; its logits (N, 20)."""
    rows, columns = np.nonzero(masked)
    logits = logits_at(model, tokens, rows, columns)[:, model.alphabet.amino_acid_ids]
    shape = (len(tokens), -1)
    best = log_softmax(logits).max(axis=1).reshape(shape).argmax(axis=1)  # (N,)
    picked = np.arange(len(tokens)), best
    return columns.reshape(shape)[picked], logits.reshape(*shape, logits.shape[1])[picked]


def _choose(logits: Floats, sampling: Sampling, streams: list[np.random.Generator]) -> Tokens:
    """logits (N, A) -> the index (N,) of the choice of each row, drawn from the row's stream."""
    chosen: Tokens
    if sampling.max_prob_only:
        chosen = logits.argmax(axis=1)
        return chosen
    # From the highest logit down, so that a tiny temperature gives -inf and not inf - inf.
    shifted = logits - logits.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        log_probabilities = log_softmax(shifted / sampling.temperature)
    probabilities = _nucleus(np.exp(log_probabilities), sampling.top_p)
    heaps = probabilities.cumsum(axis=1)
    draws = np.array([stream.random() for stream in streams])
    # Scaled by the last heap, and strict, a draw in [0, 1) can only fall on what has a probability.
    chosen = (heaps > draws[:, None] * heaps[:, -1:]).argmax(axis=1)
    return chosen


def _nucleus(probabilities: Floats, top_p: float) -> Floats:
    """probabilities (N, A), 0 but for the fewest of each row that sum to top_p."""
    if top_p == 1:
        return probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    # A residue stays while those before it have not reached top_p; the first always stays.
    before = ranked.cumsum(axis=1) - ranked
    ranked = np.where(before < top_p, ranked, 0)
    kept = np.empty_like(ranked)
    np.put_along_axis(kept, order, ranked, axis=1)
    return kept
