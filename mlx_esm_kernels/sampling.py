"""Filling the masked positions of proteins, and how likely a protein is to a model.

Masks are filled one position per protein and step, all proteins side by side in one batch; each
choice is seen by the next one. Only the 20 standard amino acids are ever chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from .model import ESM1

Order = Literal["left-to-right", "confident", "random"]
ORDERS: tuple[Order, ...] = get_args(Order)

Tokens = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

# Tokens of one forward pass: enough to keep the matrix products busy, few enough to stay in cache
# (the small model on two busy cores, median of six: 46,000 tokens/s in passes of 4,096, 17,000 in
# passes of 65,536), and a bound on the memory, whatever the number of proteins.
TOKENS_PER_PASS = 4096


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
            raise ValueError(
                f"[Sampling] temperature must be above 0; got {self.temperature}. "
                f"For the most probable residues use max_prob_only."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"[Sampling] top_p must be above 0 and at most 1; got {self.top_p}.")
        if self.order not in ORDERS:
            raise ValueError(f"[Sampling] order must be one of {ORDERS}; got {self.order!r}.")
        if self.seed < 0:
            raise ValueError(f"[Sampling] seed must be 0 or more; got {self.seed}.")


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
        ValueError: the rows have different numbers of masks, or the model gives NaN.
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


def pseudo_perplexity(
    model: ESM1,
    tokens: Tokens,
    on_step: Callable[[int], object] = lambda scored: None,
) -> Floats:
    """The pseudo-perplexity of each protein: exp(-mean over i of log p(x_i | all but x_i)).

    Each residue in turn is masked, with all the others in sight, and the probability of the true
    one is taken over the whole vocabulary (Salazar et al. 2020, "Masked Language Model Scoring").
    1 is certainty; a model that knows nothing but 20 equally likely residues gives 20.

    Args:
        model: the model.
        tokens: (N, L) integer, one protein in each row, with the cls and eos of the model's
            alphabet; no masks or padding.
        on_step: called with a number of residues whenever that many more are scored.

    Returns:
        (N,) float64.
    """
    alphabet = model.alphabet
    count, length = tokens.shape
    residues = length - alphabet.num_specials
    scores = np.empty((count, residues))
    # One row per residue: protein p with residue i masked. Passes go through them in order.
    per_pass = max(1, TOKENS_PER_PASS // length)
    for start in range(0, count * residues, per_pass):
        flat = np.arange(start, min(start + per_pass, count * residues))
        proteins, columns = flat // residues, flat % residues + int(alphabet.prepend_cls)
        copies = tokens[proteins]
        copies[np.arange(len(flat)), columns] = alphabet.mask_idx
        logits = logits_at(model, copies, np.arange(len(flat)), columns)
        true = tokens[proteins, columns]
        scores.flat[flat] = log_softmax(logits)[np.arange(len(flat)), true]
        on_step(len(flat))
    perplexities: Floats = np.exp(-scores.mean(axis=1))
    return perplexities


def logits_at(model: ESM1, tokens: Tokens, rows: Tokens, columns: Tokens) -> Floats:
    """The logits (M, V) at (rows, columns) of tokens (N, L); rows ascend."""
    parts = []
    per_pass = max(1, TOKENS_PER_PASS // tokens.shape[1])
    for start in range(0, len(tokens), per_pass):
        first, end = np.searchsorted(rows, (start, start + per_pass))
        if first == end:
            continue
        x = model.encode(mx.array(tokens[start : start + per_pass].astype(np.int32)))
        at = (mx.array(rows[first:end] - start), mx.array(columns[first:end]))
        parts.append(np.array(model.head(x[at]).astype(mx.float32), dtype=np.float64))
    logits = np.concatenate(parts)
    if not np.isfinite(logits).all():
        raise ValueError("the model gives NaN or infinite logits: its weights are damaged.")
    return logits


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


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probabilities: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_probabilities
