"""How likely residues are to a model: logits at some positions, and pseudo-perplexity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..distributed.ranks import Ranks
from ..models.esm1 import ESM1
from ..models.masked_positions import masked_logits
from .requirements import require_finite

_Piece = TypeVar("_Piece")

Tokens = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

# Tokens of one forward pass: enough to keep the matrix products busy, few enough to stay in cache
# (the small model on two busy cores, median of six: 46,000 tokens/s in passes of 4,096, 17,000 in
# passes of 65,536), and a bound on the memory, whatever the number of proteins.
TOKENS_PER_PASS = 4096


def pseudo_perplexity(
    model: ESM1,
    tokens: Tokens,
    on_step: Callable[[int], object] = lambda scored: None,
    ranks: Ranks | None = None,
) -> Floats:
    """The pseudo-perplexity of each protein: exp(-mean over i of log p(x_i | all but x_i)).

    See `masked_log_probabilities`; 1 is certainty, and a model that knows nothing but 20 equally
    likely residues gives 20.

    Args:
        model, tokens, on_step, ranks: as there.

    Returns:
        (N,) float64.

    Raises:
        UserError: the model gives NaN or infinity.
    """
    scores = masked_log_probabilities(model, tokens, on_step, ranks)
    perplexities: Floats = np.exp(-scores.mean(axis=1))
    return perplexities


def masked_log_probabilities(
    model: ESM1,
    tokens: Tokens,
    on_step: Callable[[int], object] = lambda scored: None,
    ranks: Ranks | None = None,
) -> Floats:
    """log p(x_i | all but x_i) of every residue of some proteins.

    Each residue in turn is masked, with all the others in sight, and the probability of the true
    one is taken over the whole vocabulary (Salazar et al. 2020, "Masked Language Model Scoring").

    Args:
        model: the model.
        tokens: (N, L) integer, one protein in each row, with the cls and eos of the model's
            alphabet; no masks or padding.
        on_step: called with a number of residues whenever that many more are scored.
        ranks: the processes that share the work out, all of which get all of the result.

    Returns:
        (N, residues) float64.

    Raises:
        UserError: the model gives NaN or infinity.
    """
    alphabet = model.alphabet
    count, length = tokens.shape
    residues = length - alphabet.num_specials
    scores = np.empty((count, residues))
    # One row per residue: protein p with residue i masked. Passes go through them in order.
    per_pass = max(1, TOKENS_PER_PASS // length)

    def run_pass(start: int) -> bytes:
        flat = np.arange(start, min(start + per_pass, count * residues))
        proteins, columns = flat // residues, flat % residues + int(alphabet.prepend_cls)
        copies = tokens[proteins]
        copies[np.arange(len(flat)), columns] = alphabet.mask_idx
        logits = logits_at(model, copies, np.arange(len(flat)), columns)
        true = tokens[proteins, columns]
        found: Floats = log_softmax(logits)[np.arange(len(flat)), true]
        return found.tobytes()

    ranks = Ranks() if ranks is None else ranks
    for start, content in ranks.in_turns(range(0, count * residues, per_pass), run_pass):
        found = np.frombuffer(content)
        scores.flat[start : start + len(found)] = found
        on_step(len(found))
    return scores


def logits_at(model: ESM1, tokens: Tokens, rows: Tokens, columns: Tokens) -> Floats:
    """The logits (M, V) at (rows, columns) of tokens (N, L); rows ascend.

    Raises:
        UserError: the model gives NaN or infinity.
    """
    parts = []
    per_pass = max(1, TOKENS_PER_PASS // tokens.shape[1])
    for start in range(0, len(tokens), per_pass):
        first, end = np.searchsorted(rows, (start, start + per_pass))
        if first == end:
            continue
        x = model.encode(mx.array(tokens[start : start + per_pass].astype(np.int32)))
        at = (mx.array(rows[first:end] - start), mx.array(columns[first:end]))
        found = model.head(x[at])
        require_finite(mx.isfinite(found).all(), found.dtype)
        parts.append(np.array(found.astype(mx.float32), dtype=np.float64))
    return np.concatenate(parts)


def packed_logits(model: ESM1, rows: Sequence[Tokens], columns: Sequence[Tokens]) -> Floats:
    """The logits at some columns of proteins that go side by side through one forward pass.

    Args:
        model: with a language head.
        rows: (L_i,) integer each, one protein with cls and eos; together they are one pass.
        columns: (M_i,) integer each, where in the protein of the same place.

    Returns:
        (M, V) float64, M = sum of M_i, in their order.

    Raises:
        UserError: the model gives NaN or infinity.
    """
    lengths = [len(row) for row in rows]
    starts = np.cumsum([0, *lengths[:-1]])
    positions = [start + some for start, some in zip(starts.tolist(), columns, strict=True)]
    logits = masked_logits(
        model,
        mx.array(np.concatenate(rows).astype(np.int32)[None]),
        mx.array(np.repeat(np.arange(1, len(rows) + 1, dtype=np.int32), lengths)[None]),
        mx.array(np.concatenate(positions).astype(np.int32)),
    )
    require_finite(mx.isfinite(logits).all(), model.embed_tokens.weight.dtype)
    return np.array(logits, dtype=np.float64)


def in_passes(
    pieces: Iterable[_Piece], size: Callable[[_Piece], int], most: int
) -> Iterator[list[_Piece]]:
    """Pieces, in order, that go through one forward pass: of at most `most` tokens, or one."""
    some: list[_Piece] = []
    tokens = 0
    for piece in pieces:
        if some and tokens + size(piece) > most:
            yield some
            some, tokens = [], 0
        some.append(piece)
        tokens += size(piece)
    if some:
        yield some


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probabilities: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_probabilities
