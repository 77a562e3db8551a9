"""The heat map of a page of substitutions, as SVG: cells of one colour are one path, so that a
protein of 1,500 residues is half a megabyte."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.floating[Any]]

PER_BLOCK = 100
# Units of the drawing: Safari draws no letters that are smaller than one.
_CELL = 10
# From 0 to each end of the scale.
_LEVELS = 12
# In widths of a cell: above the rows, between classes, the track below and its distance.
_TOP, _GAP, _TRACK, _APART = 2.5, 0.3, 4.0, 0.6


def in_digits(value: float, digits: int = 2) -> str:
    """A number with a minus sign that is one, and no minus before 0."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


@dataclass(frozen=True)
class SubstitutionMap:
    """Every substitution in a protein.

    Attributes:
        sequence: the wild type, L residues.
        offset: number of the first residue.
        classes: residues by class, 20 in all: the rows, from the top.
        scores: (20, L), rows as in `letters`; NaN for the wild type's own residue.
    """

    sequence: str
    offset: int
    classes: Mapping[str, str]
    scores: _Floats = field(repr=False)

    @property
    def letters(self) -> str:
        return "".join(self.classes.values())

    @property
    def means(self) -> _Floats:
        """(L,) the mean of the substitutions of each position."""
        means: _Floats = np.nanmean(self.scores, axis=0)
        return means

    @property
    def reach(self) -> float:
        """What the scale ends at on both sides of 0; what is extreme does not stretch it."""
        return float(np.nanpercentile(np.abs(self.scores), 99)) or 1.0

    @property
    def tops(self) -> list[float]:
        """Where each row begins."""
        tops: list[float] = []
        for number, some in enumerate(self.classes.values()):
            start = _TOP + len(tops) + number * _GAP
            tops += [round(start + row, 2) for row in range(len(some))]
        return tops

    @property
    def height(self) -> float:
        """Of a block."""
        return round(self._track + _TRACK + 0.2, 2)

    @property
    def _track(self) -> float:
        return self.tops[-1] + 1 + _APART

    def name_of(self, position: int) -> str:
        """`M1`; positions count from 0."""
        return f"{self.sequence[position]}{position + self.offset}"

    def blocks(self) -> str:
        """All of it, in blocks of 100 positions beneath each other."""
        labels, reach, means = self._labels(), self.reach, self.means
        levels = np.rint(np.clip(self.scores / reach, -1, 1) * _LEVELS)
        return "".join(
            self._block(slice(first, min(first + PER_BLOCK, len(self.sequence))), levels, means)
            .replace("{{labels}}", labels)
            for first in range(0, len(self.sequence), PER_BLOCK)
        )  # fmt: skip

    def _block(self, span: slice, levels: _Floats, means: _Floats) -> str:
        first, last = self.name_of(span.start), self.name_of(span.stop - 1)
        told = f"Substitutions of {first} to {last}. Arrow keys go from one to the next."
        width = span.stop - span.start
        return (
            f'<div class="block" tabindex="0" role="application" aria-label="{html.escape(told)}">'
            f'{{{{labels}}}}<svg class="cells" style="--columns:{width + 1}" '
            f'viewBox="{self._box(width + 1)}" aria-hidden="true"><g transform="scale({_CELL})">'
            f"{self._cells(levels[:, span])}{self._bars(means, span)}</g>{self._head(span)}</svg>"
            "</div>"
        )

    def _box(self, columns: int) -> str:
        return f"0 0 {_CELL * columns} {_CELL * self.height:g}"

    def _labels(self) -> str:
        """The letters of the rows, which stay where they are when a block is scrolled."""
        tops, high, low = self.tops, *self._track_ends()
        bars = "".join(
            f'<path class="bar {name}" d="M.1 {top:g}h.6v{len(some)}h-.6z"/>'
            for name, some in self.classes.items()
            for top in [tops[self.letters.index(some)]]
        )
        letters = [
            _text(one, 1.7, top + 0.85, "letter")
            for one, top in zip(self.letters, tops, strict=True)
        ]
        ends = [
            _text(in_digits(high, 1), 2.8, self._track + 0.7, "end"),
            _text("mean", 2.8, self._track + _TRACK / 2 + 0.3, "end"),
            _text(in_digits(low, 1), 2.8, self._track + _TRACK, "end"),
        ]
        return (
            f'<svg class="labels" viewBox="{self._box(3)}" aria-hidden="true">'
            f'<g transform="scale({_CELL})">{bars}</g>{"".join(letters + ends)}</svg>'
        )

    def _head(self, span: slice) -> str:
        """Numbers of positions, and the wild type's letters."""
        drawn = [_text(str(span.start + self.offset), 0, 0.9, "first")]
        for place, letter in enumerate(self.sequence[span]):
            number = span.start + place + self.offset
            if number % 10 == 0 and place >= 4:
                drawn.append(_text(str(number), place + 0.5, 0.9, "x"))
            drawn.append(_text(letter, place + 0.5, _TOP - 0.4, "letter"))
        return "".join(drawn)

    def _cells(self, levels: _Floats) -> str:
        """The cells of (20, some) levels; of the wild type a dot."""
        middles = [f"{top + 0.5:g}" for top in self.tops]
        paths: dict[float | None, list[str]] = {}
        for row, some in enumerate(levels.tolist()):
            for column, level in enumerate(some):
                if np.isnan(level):
                    wild = f"M{column + 0.5:g} {middles[row]}h0"
                    paths.setdefault(None, []).append(wild)
                else:
                    paths.setdefault(level, []).append(f"M{column} {middles[row]}h1")
        return "".join(
            f'<path class="wild" d="{"".join(d)}"/>' if level is None else level_path(level, d)
            for level, d in paths.items()
        )

    def _track_ends(self) -> tuple[float, float]:
        means = self.means
        return max(0.0, float(means.max())), min(0.0, float(means.min()))

    def _bars(self, means: _Floats, span: slice) -> str:
        """The mean of each position, from 0 up or down."""
        high, low = self._track_ends()
        scale = _TRACK / ((high - low) or 1.0)
        zero = self._track + high * scale
        bars: dict[str, list[str]] = {"low": [], "high": []}
        for i, mean in enumerate(means[span].tolist()):
            kind = "low" if mean < 0 else "high"
            bars[kind].append(f"M{i + 0.5:g} {zero:.2f}v{-mean * scale:.2f}")
        drawn = "".join(
            f'<path class="mean {kind}" d="{"".join(d)}"/>' for kind, d in bars.items() if d
        )
        return f'{drawn}<path class="zero" d="M0 {zero:.2f}h{span.stop - span.start}"/>'


def _text(text: str, x: float, y: float, kind: str) -> str:
    """Some text, its place in cells."""
    place = f'x="{_CELL * x:g}" y="{_CELL * y:g}"'
    return f'<text class="{kind}" {place}>{html.escape(text)}</text>'


def level_path(level: float, d: Sequence[str]) -> str:
    """Cells of one colour, from -1 times the levels to as many."""
    kind = "low" if level < 0 else "high"
    return f'<path class="{kind}" style="--p:{abs(level) / _LEVELS:.0%}" d="{"".join(d)}"/>'


def colour_key(reach: float) -> str:
    """The colours from one end of the scale to the other, and what they stand for."""
    cells = "".join(
        level_path(level, [f"M{place} .5h1"])
        for place, level in enumerate(range(-_LEVELS, _LEVELS + 1))
    )
    end = in_digits(reach)
    return (
        f'<svg class="colours" viewBox="0 0 {2 * _LEVELS + 1} 1" preserveAspectRatio="none" '
        f'aria-hidden="true">{cells}</svg>'
        f'<p class="ends"><span>≤ −{end} damaging</span><span>0</span>'
        f"<span>favoured ≥ {end}</span></p>"
    )
