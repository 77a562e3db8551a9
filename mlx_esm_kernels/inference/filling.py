"""The one loop that fills masks: positions are visited, masked, and drawn anew.

Unmasking visits each mask once; Gibbs sampling (Wang and Cho 2019, "BERT has a mouth, and it must
speak"; Johnson et al. 2021, "Generating novel protein sequences using Gibbs sampling of masked
language models") fills them by chance first, and visits all of them in every round. Only the 20
standard amino acids are ever drawn.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.frequencies import natural_frequencies
from ..models.esm1 import ESM1
from . import likelihood
from .drawing import choose, too_long_runs
from .likelihood import Floats, Tokens, in_passes, log_softmax, packed_logits
from .sampling import Sampling, Schedule, settled

# Columns of a protein that a forward pass answers for, and how many of them are drawn.
_Visit = tuple[Tokens, int]
_NO_VISIT: _Visit = (np.zeros(0, dtype=np.int64), 0)


@dataclass
class _Protein:
    """A protein that is being filled, in place.

    Attributes:
        tokens: (L,) int32, with cls and eos.
        columns: (M,) where it is filled.
        stream: its own source of chance.
    """

    tokens: Tokens
    columns: Tokens
    stream: np.random.Generator


def fill_masks(
    model: ESM1,
    templates: Sequence[Tokens],
    sampling: Sampling,
    on_step: Callable[[int], object] = lambda drawn: None,
    *,
    starts: Sequence[Tokens] | None = None,
    first: int = 0,
) -> list[Tokens]:
    """Replace every mask by an amino acid.

    Proteins stand side by side in a forward pass, whatever their lengths, and none sees another.

    Args:
        model: the model.
        templates: (L_i,) integer each, one protein: residues and masks, with the cls and eos of the
            model's alphabet; no padding.
        sampling: how to draw.
        on_step: called after each step with the number of residues that it drew.
        starts: (L_i,) integer each, the residues at which "gibbs" starts in place of masks. None:
            random ones, as frequent as in known proteins.
        first: the number of the first template; number i draws from the stream (seed, i).

    Returns:
        (L_i,) int32 each, tokens without masks; the arguments are left as they are.

    Raises:
        UserError: the model gives NaN, or there are more steps than masks.
    """
    sampling = settled(sampling, model, templates)
    alphabet = model.alphabet
    proteins = []
    for number, template in enumerate(templates):
        tokens = np.array(template, dtype=np.int32)
        columns = np.flatnonzero(tokens == alphabet.mask_idx)
        stream = np.random.default_rng([sampling.seed, first + number])
        if sampling.sampler == "gibbs" and starts is not None:
            tokens[columns] = starts[number][columns]
        elif sampling.sampler == "gibbs":
            drawn = stream.choice(20, size=len(columns), p=natural_frequencies())
            tokens[columns] = alphabet.amino_acid_ids[drawn]
        proteins.append(_Protein(tokens, columns, stream))
    # Together go those that need about as many steps.
    proteins_by_steps = sorted(proteins, key=lambda protein: len(protein.columns))
    for group in in_passes(
        proteins_by_steps, lambda protein: len(protein.tokens), likelihood.TOKENS_PER_PASS
    ):
        _fill(model, group, sampling, on_step)
    return [protein.tokens for protein in proteins]


def _fill(
    model: ESM1, proteins: list[_Protein], sampling: Sampling, on_step: Callable[[int], object]
) -> None:
    mask, residues = model.alphabet.mask_idx, model.alphabet.amino_acid_ids
    blocks = max(1, min(sampling.blocks, max(len(protein.columns) for protein in proteins)))
    visits = (_visits(protein, sampling, blocks, mask) for protein in proteins)
    for step, visited in enumerate(itertools.zip_longest(*visits, fillvalue=_NO_VISIT)):
        some = [
            (protein, *visit) for protein, visit in zip(proteins, visited, strict=True) if visit[1]
        ]
        if not some:
            continue
        for protein, columns, _ in some:
            protein.tokens[columns] = mask
        logits = packed_logits(
            model,
            [protein.tokens for protein, _, _ in some],
            [columns for _, columns, _ in some],
        )[:, residues]
        how = sampling
        if step < blocks * (sampling.burn_in or 0):
            how = dataclasses.replace(sampling, temperature=1, top_p=1, max_prob_only=False)
        ends = np.cumsum([len(columns) for _, columns, _ in some])
        parts = np.split(logits, ends[:-1])
        surest = [
            (protein, *_surest(columns, part, count))
            for (protein, columns, count), part in zip(some, parts, strict=True)
        ]
        _draw(surest, how, residues)
        on_step(sum(count for _, _, count in some))


def _visits(protein: _Protein, sampling: Sampling, blocks: int, mask: int) -> Iterator[_Visit]:
    """What is visited step by step; it is asked for when what was drawn before is in place."""
    columns, stream = protein.columns, protein.stream
    if sampling.sampler == "gibbs":
        for _ in range(sampling.rounds or 0):
            for block in np.array_split(stream.permutation(columns), blocks):
                yield block, len(block)
        return
    counts = schedule_counts(len(columns), sampling.steps, sampling.schedule or "linear")
    if sampling.order == "random":
        columns = stream.permutation(columns)
    for count in counts:
        if sampling.order == "confident":
            yield np.flatnonzero(protein.tokens == mask), count
        else:
            yield columns[:count], count
            columns = columns[count:]


def schedule_counts(masks: int, steps: int | None, schedule: Schedule) -> list[int]:
    """How many masks are filled in each step, at least one; they sum to all.

    Args:
        masks: how many there are.
        steps: at most as many; None: one each.
        schedule: as of `Sampling`.
    """
    steps = masks if steps is None else steps
    filled = 0
    counts = []
    for step in range(1, steps + 1):
        share = step / steps if schedule == "linear" else 1 - math.cos(math.pi / 2 * step / steps)
        # One of each step, and the share of the others that are to be filled by then.
        now = step + round((masks - steps) * share)
        counts.append(now - filled)
        filled = now
    return counts


def _surest(columns: Tokens, logits: Floats, count: int) -> tuple[Tokens, Floats]:
    """Of columns (M,) and their logits (M, 20) the `count` whose best residue is the likeliest."""
    if count == len(columns):
        return columns, logits
    best = log_softmax(logits).max(axis=1)
    first = np.argsort(-best, kind="stable")[:count]
    return columns[first], logits[first]


def _draw(
    some: list[tuple[_Protein, Tokens, Floats]], sampling: Sampling, residues: Tokens
) -> None:
    """Draw the residues at some columns of each protein, the first of each, then the second, ...

    So the length of a run is known, of what was drawn in the same step too.
    """
    place = {int(token): index for index, token in enumerate(residues)}
    for number in range(max(len(columns) for _, columns, _ in some)):
        now = [one for one in some if len(one[1]) > number]
        logits = np.stack([part[number] for _, _, part in now])
        if sampling.longest_run:
            for row, (protein, columns, _) in enumerate(now):
                for token in too_long_runs(
                    protein.tokens, int(columns[number]), sampling.longest_run
                ):
                    if token in place:
                        logits[row, place[token]] = -np.inf
        chosen = choose(logits, sampling, [protein.stream for protein, _, _ in now])
        for (protein, columns, _), index in zip(now, chosen.tolist(), strict=True):
            protein.tokens[columns[number]] = residues[index]
