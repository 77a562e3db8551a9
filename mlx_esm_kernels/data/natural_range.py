"""How natural proteins differ from set to set, as a measure of how far another set is from them.

Of natural proteins, random sets are drawn that have as many proteins as the other set, of about its
lengths (at most half of all), and each is compared with the natural proteins that are left.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .composition import ProteinCounts, divergence
from .similar_lengths import SimilarLengths

_MOST_DRAWS, _FEWEST_DRAWS = 1000, 100
_MOST_DRAWN = 2_000_000  # proteins in all draws together, a few seconds of work
_INTERVAL = (0.025, 0.975)

_Floats = npt.NDArray[np.float64]
_Sums = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Range:
    """What natural sets have.

    Attributes:
        mean: of all draws.
        low, high: between them are 95 % of the draws.
        least, most: of all draws.
    """

    mean: float
    low: float
    high: float
    least: float
    most: float


@dataclass(frozen=True)
class Figure:
    """A figure of a set.

    Attributes:
        value: of the set; None where there is nothing to take it from.
        natural: what natural sets of its size have; None where none can be drawn.
    """

    value: float | None
    natural: Range | None

    @property
    def is_beyond(self) -> bool:
        """Whether it lies outside what any natural set had."""
        if self.value is None or self.natural is None:
            return False
        return not self.natural.least <= self.value <= self.natural.most


@dataclass(frozen=True)
class Comparison:
    """A set beside natural ones.

    Attributes:
        size, draws: proteins of a natural set, and how many sets were drawn; 0 where there is but
            one natural protein.
        figures: "composition" and "pairs" (KL in nats, see `composition`), and the shares "begin
            with M" and "repeats" (those that are the same as an earlier one) of the proteins, and
            "low complexity" of the windows.
        residues: the share of each residue, in the order of `STANDARD_RESIDUES`.
    """

    size: int
    draws: int
    figures: dict[str, Figure]
    residues: list[Figure]


def compare(generated: ProteinCounts, natural: ProteinCounts, seed: int) -> Comparison:
    """Compare a set with natural sets; the same seed gives the same."""
    size = min(len(generated), len(natural) // 2)
    draws = 0 if size == 0 else max(_FEWEST_DRAWS, min(_MOST_DRAWS, _MOST_DRAWN // size))
    whole = natural.residues.sum(axis=0), natural.pairs.sum(axis=0)
    given = _statistics([generated], whole, apart=False)
    drawn: dict[str, _Floats] = {}
    if draws:
        sets = SimilarLengths(natural.lengths, generated.lengths, size)
        rng = np.random.default_rng(seed)
        chosen = (natural.of(sets.draw(rng)) for _ in range(draws))
        drawn = _statistics(chosen, whole, apart=True)
    found = {
        name: [
            Figure(_known(value), _range(drawn[name][:, place]) if draws else None)
            for place, value in enumerate(values[0].tolist())
        ]
        for name, values in given.items()
    }
    residues = found.pop("residues")
    return Comparison(size, draws, {name: one for name, [one] in found.items()}, residues)


def _statistics(
    sets: Iterable[ProteinCounts], whole: tuple[_Sums, _Sums], *, apart: bool
) -> dict[str, _Floats]:
    """By name (S, 1) or (S, 20) figures of each of S sets; NaN where there is nothing to count.

    `whole` are the residues and pairs of all natural proteins; `apart` leaves those of the set out.
    """
    rows = [_sums(some) for some in sets]
    residues, pairs = (np.stack([row[place] for row in rows]) for place in (0, 1))
    begin, low, windows, repeats, size = np.array([row[2] for row in rows], dtype=np.float64).T
    others = (whole[0] - residues, whole[1] - pairs) if apart else whole
    shares = np.divide(low, windows, out=np.full(len(rows), np.nan), where=windows > 0)
    figures = {
        "composition": divergence(residues, others[0]),
        "pairs": divergence(pairs, others[1]),
        "begin with M": begin / size,
        "low complexity": shares,
        "repeats": repeats / size,
    }
    return {
        **{name: values[:, None] for name, values in figures.items()},
        "residues": residues / np.maximum(residues.sum(axis=1, keepdims=True), 1),
    }


def _sums(some: ProteinCounts) -> tuple[_Sums, _Sums, tuple[int, ...]]:
    """Residues and pairs of a set, and what begins with M, windows, repeats, and its size."""
    ordered = np.sort(some.hashes)
    return (
        some.residues.sum(axis=0),
        some.pairs.sum(axis=0),
        (
            some.begins_with_m.sum(),
            some.low.sum(),
            some.entropies.sum(),
            (ordered[1:] == ordered[:-1]).sum(),
            len(some),
        ),
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _range(drawn: _Floats) -> Range | None:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return None
    low, high = np.quantile(known, _INTERVAL).tolist()
    return Range(float(known.mean()), low, high, float(known.min()), float(known.max()))
