"""How a model judges mutated proteins (Meier et al. 2021, "Language models enable zero-shot
prediction of the effects of mutations on protein function").

Strategies, as in fair-esm's examples/variant-prediction/predict.py:

    wt-marginals       sum over mutated i of  log p(x_i^mt | x^wt) - log p(x_i^wt | x^wt)
    masked-marginals   sum over mutated i of  log p(x_i^mt | x^wt less i) - log p(x_i^wt | the same)
    pseudo-perplexity  sum over all i of      log p(x_i^mt | x^mt less i)

where "less i" has residue i masked, and p is over the whole vocabulary. Higher is fitter in each of
them. The pseudo-perplexity itself, for which low is good, is exp(-score / residues of x^wt).

Insertions and deletions have no residue of the wild type to compare with, so only the last strategy
takes them. Sums over proteins of different lengths say which is longer; so it takes the mean over i
times the residues of the wild type, which is the sum where the lengths are the same, and ranks all
by their pseudo-perplexity.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ..data.alphabet import STANDARD_RESIDUES
from ..data.mutants import Mutant, mutated, parse_mutants
from ..data.residues import require_residues
from ..distributed.ranks import Ranks
from ..models.esm1 import ESM1
from ..system.errors import UserError
from . import likelihood
from .likelihood import TOKENS_PER_PASS, Floats, Tokens, log_softmax, logits_at
from .requirements import WINDOWS_ADVICE, Long, require_room, seen_at_once, warn_long
from .windows import centred_starts

Strategy = Literal["wt-marginals", "masked-marginals", "pseudo-perplexity"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

# Sequences whose pseudo-perplexity is taken together: enough to fill passes, and little to keep.
_SEQUENCES_AT_ONCE = 64


class MutantWarning(UserWarning):
    """Some mutants have no score."""


def score_variants(
    model: ESM1,
    sequence: str,
    mutants: Iterable[str],
    *,
    strategy: Strategy = "wt-marginals",
    offset: int = 1,
    long: Long = "error",
    on_step: Callable[[int], object] = lambda scored: None,
    ranks: Ranks | None = None,
) -> Floats:
    """The score of each mutant; higher is fitter.

    Args:
        model: of `load_model`.
        sequence: the wild type, one letter per residue.
        mutants: such as `A1P`, or `A1P:D2N` for several substitutions, whose terms are summed; a
            list, or anything that can be gone through. See `parse_mutants` for other spellings.
        strategy: see the module.
        offset: the number by which the mutants call the first residue.
        long: what becomes of a sequence with more than `model.config.trained_residues` residues.
            "error": it is refused where the position table ends there, and taken whole where there
            is none. "window": each mutated residue is judged in a window with it in the middle.
            There are no windows for pseudo-perplexity.
        on_step: called with a number of positions whenever that many more are scored; `num_steps`
            tells how many there will be.
        ranks: the processes that share the work out, all of which get all scores; None: this one.

    Returns:
        (N,) float64; NaN for a protein that is cut short, which one `MutantWarning` counts.

    Raises:
        ValueError: a mutant is no such text, is out of range, or starts from a residue that the
            sequence does not have there, or the strategy does not take insertions; the sequence is
            too long; the model gives NaN.
    """
    if strategy not in STRATEGIES:
        raise UserError(f"[score_variants] strategy must be one of {STRATEGIES}; got {strategy!r}.")
    sequence = require_residues(sequence, model.alphabet)
    parsed = parse_mutants(mutants, sequence, model.alphabet, offset)
    _require_room(model, sequence, strategy, long)
    has_windows = strategy != "pseudo-perplexity"
    if long == "error" or not has_windows:
        warn_long(model, np.array([len(sequence)]), WINDOWS_ADVICE if has_windows else "")
    if num_cut := sum(mutant.is_cut for mutant in parsed):
        warnings.warn(
            f"{num_cut:,} of {len(parsed):,} mutants have no score: they end at a stop, shift the "
            f"frame, or are unknown.",
            MutantWarning,
            stacklevel=2,
        )
    if strategy == "pseudo-perplexity":
        return _by_pseudo_perplexity(model, sequence, parsed, on_step, ranks)
    is_masked = strategy != "wt-marginals"
    return _by_marginals(model, sequence, parsed, is_masked, long, on_step, ranks)


def num_steps(sequence: str, parsed: Sequence[Mutant], strategy: Strategy) -> int:
    """How many positions `score_variants` scores."""
    if strategy == "pseudo-perplexity":
        return sum(len(mutated(sequence, mutant)) for mutant in parsed if not mutant.is_cut)
    return len({one.position for mutant in parsed for one in mutant})


def marginals(
    model: ESM1,
    sequence: str,
    positions: npt.NDArray[np.int64],
    *,
    masked: bool,
    long: Long = "error",
    on_step: Callable[[int], object] = lambda scored: None,
    ranks: Ranks | None = None,
) -> Floats:
    """log p over the vocabulary at some positions of a protein.

    Args:
        model: of `load_model`.
        sequence: residues.
        positions: (P,) from 0, ascending.
        masked: whether a position is masked while its residues are scored. If so each has a forward
            pass of its own, many of which go side by side; if not all share one.
        long: see `score_variants`. The sequence is not too long for the model.
        on_step: called with a number of positions whenever that many more are done.
        ranks: the processes that share the work out, all of which get all of the result.

    Returns:
        (P, V) float64.

    Raises:
        UserError: the model gives NaN.
    """
    alphabet = model.alphabet
    ids = alphabet.encode(sequence)
    window = min(len(ids), seen_at_once(model.config, long) or len(ids))
    starts = centred_starts(positions, len(ids), window)
    columns = positions - starts + alphabet.residue_slice.start
    if masked:
        rows, row_starts = np.arange(len(positions)), starts
    else:
        row_starts, rows = np.unique(starts, return_inverse=True)
    parts = [np.empty((0, len(alphabet)))]
    per_pass = max(1, TOKENS_PER_PASS // (window + alphabet.num_specials))

    def run_pass(first: int) -> bytes:
        tokens = np.stack(
            [
                alphabet.with_specials(ids[start : start + window])
                for start in row_starts[first : first + per_pass].tolist()
            ]
        )
        in_pass = (rows >= first) & (rows < first + per_pass)
        at = rows[in_pass] - first, columns[in_pass]
        if masked:
            tokens[at] = alphabet.mask_idx
        return log_softmax(logits_at(model, tokens, *at)).tobytes()

    ranks = Ranks() if ranks is None else ranks
    for _, content in ranks.in_turns(range(0, len(row_starts), per_pass), run_pass):
        parts.append(np.frombuffer(content).reshape(-1, len(alphabet)))
        on_step(len(parts[-1]))
    return np.concatenate(parts)


def pseudo_perplexity(model: ESM1, sequence: str) -> float:
    """exp of the mean of -log p(residue), each residue masked in turn, all of them, in [1, inf).

    Args:
        model: of `load_model`.
        sequence: one letter per residue.

    Raises:
        ValueError: the sequence is empty, too long or holds what is no residue; or the model gives
            NaN.
    """
    return float(likelihood.pseudo_perplexity(model, _tokens(model, sequence))[0])


def residue_confidence(model: ESM1, sequence: str) -> Floats:
    """The probability of each residue of a protein, it alone masked.

    Args:
        model: of `load_model`.
        sequence: one letter per residue.

    Returns:
        (L,) float64 from 0 to 1; exp of the mean of -log is the `pseudo_perplexity`.

    Raises:
        ValueError: the sequence is empty, too long or holds what is no residue; or the model gives
            NaN.
    """
    found: Floats = np.exp(likelihood.masked_log_probabilities(model, _tokens(model, sequence))[0])
    return found


def _tokens(model: ESM1, sequence: str) -> Tokens:
    """(1, L) token ids of a protein that the model has room for, cls and eos around it."""
    sequence = require_residues(sequence, model.alphabet)
    _require_room(model, sequence, "pseudo-perplexity", "error")
    warn_long(model, np.array([len(sequence)]), "")
    tokens: Tokens = model.alphabet.with_specials(model.alphabet.encode(sequence))[None]
    return tokens


def every_substitution(sequence: str, offset: int = 1) -> list[str]:
    """Every substitution of one residue by another of the 20: `M1A`, `M1C`, ..."""
    return [
        f"{wild_type}{number}{mutant}"
        for number, wild_type in enumerate(sequence, start=offset)
        for mutant in STANDARD_RESIDUES
        if mutant != wild_type
    ]


def substitution_grid(sequence: str, scores: Floats) -> Floats:
    """(20, L) from the scores of `every_substitution`; rows as in `STANDARD_RESIDUES`."""
    grid = np.full((len(STANDARD_RESIDUES), len(sequence)), np.nan)
    is_scored = np.array([[new != old for old in sequence] for new in STANDARD_RESIDUES])
    grid.T[is_scored.T] = scores
    return grid


def _require_room(model: ESM1, sequence: str, strategy: Strategy, long: Long) -> None:
    """Refuse a sequence that is too long for the model where there are no windows."""
    advice = f"{WINDOWS_ADVICE}, or give a part of the sequence"
    if strategy == "pseudo-perplexity":
        advice = "there are no windows for pseudo-perplexity; give a part of the sequence"
    elif long == "window":
        return
    require_room(model, len(sequence), "the sequence", advice)


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Spearman's rank correlation of (N,) and (N,); values that are the same share a mean rank.

    Returns:
        In [-1, 1]; NaN where one of them has fewer than two different values.
    """
    ranks = [_ranks(np.asarray(values, dtype=np.float64)) for values in (a, b)]
    centred = [some - some.mean() if some.size else some for some in ranks]
    scale = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float(centred[0] @ centred[1]) / scale if scale else math.nan


def _ranks(values: Floats) -> Floats:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def _by_marginals(
    model: ESM1,
    sequence: str,
    parsed: Sequence[Mutant],
    masked: bool,
    long: Long,
    on_step: Callable[[int], object],
    ranks: Ranks | None,
) -> Floats:
    """The score of each mutant (N,) by the first two strategies."""
    for row, mutant in enumerate(parsed, start=1):
        if mutant.sequence is not None:
            raise UserError(
                f"row {row}: insertions and deletions have no residue of the wild type to compare "
                f"with; only the strategy pseudo-perplexity takes them."
            )
    positions = np.unique([one.position for some in parsed for one in some]).astype(np.int64)
    table = marginals(
        model, sequence, positions, masked=masked, long=long, on_step=on_step, ranks=ranks
    )
    place = {position: row for row, position in enumerate(positions.tolist())}
    ids = {letter: int(model.alphabet.encode(letter)[0]) for letter in _letters(parsed)}
    return np.array(
        [
            math.nan
            if mutant.is_cut
            else sum(
                table[place[one.position], ids[one.mutant]]
                - table[place[one.position], ids[one.wild_type]]
                for one in mutant
            )
            for mutant in parsed
        ]
    )


def _by_pseudo_perplexity(
    model: ESM1,
    sequence: str,
    parsed: Sequence[Mutant],
    on_step: Callable[[int], object],
    ranks: Ranks | None,
) -> Floats:
    """The score of each mutant (N,) by the last strategy; those of one length go together."""
    alphabet = model.alphabet
    scores = np.full(len(parsed), np.nan)
    texts = {row: mutated(sequence, mutant) for row, mutant in enumerate(parsed)}
    by_length: dict[int, list[int]] = {}
    for row, mutant in enumerate(parsed):
        if not mutant.is_cut:
            if not texts[row]:
                raise UserError(f"row {row + 1}: nothing is left of the protein.")
            _require_room(model, texts[row], "pseudo-perplexity", "error")
            by_length.setdefault(len(texts[row]), []).append(row)
    for rows in by_length.values():
        for first in range(0, len(rows), _SEQUENCES_AT_ONCE):
            some = rows[first : first + _SEQUENCES_AT_ONCE]
            ids = [alphabet.with_specials(alphabet.encode(texts[row])) for row in some]
            perplexities = likelihood.pseudo_perplexity(model, np.stack(ids), on_step, ranks)
            scores[some] = -len(sequence) * np.log(perplexities)
    return scores


def _letters(parsed: Sequence[Mutant]) -> set[str]:
    return {letter for mutant in parsed for one in mutant for letter in (one.wild_type, one.mutant)}
