"""Drawing residues from logits: temperature, nucleus, and runs of one residue."""

from __future__ import annotations

import numpy as np

from .likelihood import Floats, Tokens, log_softmax
from .sampling import Sampling


def choose(logits: Floats, sampling: Sampling, streams: list[np.random.Generator]) -> Tokens:
    """logits (N, A) -> the index (N,) of the choice of each row, drawn from the row's stream."""
    chosen: Tokens
    if sampling.max_prob_only:
        chosen = logits.argmax(axis=1)
        return chosen
    # From the highest logit down, so that a tiny temperature gives -inf and not inf - inf.
    shifted = logits - logits.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        log_probabilities = log_softmax(shifted / sampling.temperature)
    probabilities = nucleus(np.exp(log_probabilities), sampling.top_p)
    heaps = probabilities.cumsum(axis=1)
    draws = np.array([stream.random() for stream in streams])
    # Scaled by the last heap, and strict, a draw in [0, 1) can only fall on what has a probability.
    chosen = (heaps > draws[:, None] * heaps[:, -1:]).argmax(axis=1)
    return chosen


def nucleus(probabilities: Floats, top_p: float) -> Floats:
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


def too_long_runs(tokens: Tokens, column: int, longest: int) -> list[int]:
    """The tokens that would make, at a column of (L,) tokens, a run of more than `longest`.

    At most two, those on either side; so there is always a residue left to draw.
    """
    # Two parts of a run of at most `longest` each decide; further away nothing matters.
    left = tokens[max(0, column - longest) : column][::-1].tolist()
    right = tokens[column + 1 : column + 1 + longest].tolist()
    found = []
    for token in {*left[:1], *right[:1]}:
        run = 1
        for side in (left, right):
            same = next((n for n, other in enumerate(side) if other != token), len(side))
            run += same
        if run > longest:
            found.append(token)
    return found
