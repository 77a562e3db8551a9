"""Line charts as SVG within a page: in the colours of its style, and read without a mouse too."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 24, 38
# More than a screen shows; each is the mean of its neighbours where there are more.
_MOST_IN_LINE = 240
# Each is a stop of the tabulator key.
_MOST_POINTS = 9

Pairs = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """Values against the step.

    Attributes:
        name: what the legend calls it.
        style: of the CSS classes `thin`, `main`, `second` and `third`.
        pairs: (step, value), in order; values are finite.
        has_points: the values are marked, some of them so that the keyboard comes to them.
    """

    name: str
    style: str
    pairs: Pairs
    has_points: bool = False


@dataclass(frozen=True)
class Level:
    """A value that holds at any step."""

    name: str
    style: str
    value: float


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title, unit: what the values are; the unit may be "".
        lines, levels: what is drawn; at least one line has values.
        spec: how values are written, as of `format`.
        from_zero: the axis of values begins at 0.
    """

    title: str
    unit: str
    lines: Sequence[Line]
    levels: Sequence[Level] = ()
    spec: str = ".4g"
    from_zero: bool = False

    def html(self) -> str:
        """A figure with its legend."""
        lines = [line for line in self.lines if line.pairs]
        scale = _Scale.of(lines, self.levels, self.from_zero)
        unit = f" ({self.unit})" if self.unit else ""
        parts = [
            f'<figure class="chart"><figcaption>{html.escape(self.title + unit)}</figcaption>',
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="group" '
            f'aria-label="{html.escape(self._told(lines))}">',
            scale.axes(),
        ]
        for level in self.levels:
            y = scale.y(level.value)
            parts.append(
                f'<path class="{level.style}" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"><title>'
                f"{html.escape(level.name)}: {level.value:{self.spec}}</title></path>"
            )
        for line in lines:
            places = " ".join(f"{scale.x(x):.1f},{scale.y(y):.1f}" for x, y in _thinned(line.pairs))
            parts.append(f'<polyline class="{line.style}" points="{places}"/>')
        points = [self._points(line, scale) for line in lines if line.has_points]
        drawn: list[Line | Level] = [*lines, *self.levels]
        entries = "".join(
            f'<li><svg class="key" viewBox="0 0 30 10" aria-hidden="true"><path class="{one.style}"'
            f' d="M1 5H29"/></svg>{html.escape(self._entry(one))}</li>'
            for one in drawn
        )
        return "".join([*parts, *points, f'</svg><ul class="legend">{entries}</ul></figure>'])

    def _entry(self, one: Line | Level) -> str:
        return one.name if isinstance(one, Line) else f"{one.name}: {one.value:{self.spec}}"

    def _told(self, lines: Sequence[Line]) -> str:
        """The chart in words."""
        said = []
        for line in lines:
            (first, begun), (last, ended) = line.pairs[0], line.pairs[-1]
            said.append(
                f"{line.name}: {begun:{self.spec}} at step {first:,.0f}, {ended:{self.spec}} at "
                f"step {last:,.0f}"
            )
        said += [self._entry(level) for level in self.levels]
        return f"{self.title}. {'; '.join(said)}."

    def _points(self, line: Line, scale: _Scale) -> str:
        """Marks; the first, the last, the lowest and some between can be reached by the keyboard.

        A value is shown at the top of the chart, where nothing else is.
        """
        told = _chosen([value for _, value in line.pairs], _MOST_POINTS)
        drawn = _chosen([value for _, value in line.pairs], 8 * _MOST_POINTS)
        parts = []
        for place in sorted(drawn | told):
            step, value = line.pairs[place]
            at = f'cx="{scale.x(step):.1f}" cy="{scale.y(value):.1f}"'
            text = html.escape(f"step {step:,.0f}: {value:{self.spec}}")
            stop = f' tabindex="0" role="img" aria-label="{text}"' if place in told else ""
            hidden = "" if place in told else ' aria-hidden="true"'
            parts.append(
                f'<g class="point"{stop}{hidden}><circle class="{line.style}" {at} r="3.5"/>'
                f'<circle class="aim" {at} r="9"/><text class="value" x="{WIDTH - _RIGHT}" '
                f'y="15" aria-hidden="true">{text}</text></g>'
            )
        return "".join(parts)


@dataclass(frozen=True)
class _Scale:
    """From values to places in the picture."""

    last_step: float
    low: float
    high: float
    ticks: Sequence[float]

    @classmethod
    def of(cls, lines: Sequence[Line], levels: Sequence[Level], from_zero: bool) -> _Scale:
        values = [value for line in lines for _, value in line.pairs]
        values += [level.value for level in levels]
        low, high = min(values), max(values)
        low = min(0.0, low) if from_zero else low
        if high - low <= 1e-9 * max(abs(high), 1e-300):  # a level line is no edge of the picture
            low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
        ticks = _ticks(low, high, 5)
        last = max(step for line in lines for step, _ in line.pairs)
        return cls(max(last, 1), min(low, ticks[0]), max(high, ticks[-1]), ticks)

    def x(self, step: float) -> float:
        return _LEFT + step / self.last_step * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    def axes(self) -> str:
        """Lines and numbers; what a chart says in words is its label."""
        parts = ['<g class="axes" aria-hidden="true">']
        for tick in self.ticks:
            y = self.y(tick)
            parts.append(
                f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>'
                f'<text class="y" x="{_LEFT - 6}" y="{y + 4:.1f}">{_short(tick)}</text>'
            )
        for step in _ticks(0, self.last_step, 4):
            if step <= self.last_step and step == int(step):
                x = self.x(step)
                parts.append(f'<text class="x" x="{x:.1f}" y="{HEIGHT - 21}">{_short(step)}</text>')
        middle = (_LEFT + WIDTH - _RIGHT) / 2
        parts.append(f'<text class="x" x="{middle:.0f}" y="{HEIGHT - 4}">step</text></g>')
        return "".join(parts)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers around a range."""
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in found]


def _short(value: float) -> str:
    """A number of an axis: 12, 2.5k, 3M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{0.0 if abs(value) < 1e-15 else value:.4g}"


def _thinned(pairs: Pairs) -> Pairs:
    """At most _MOST_IN_LINE, each the mean of as many neighbours; both ends stay."""
    if len(pairs) <= _MOST_IN_LINE:
        return pairs
    size = math.ceil((len(pairs) - 2) / (_MOST_IN_LINE - 2))
    inner = pairs[1:-1]
    groups = [inner[start : start + size] for start in range(0, len(inner), size)]
    means = [tuple(math.fsum(some) / len(some) for some in zip(*g, strict=True)) for g in groups]
    return [pairs[0], *((step, value) for step, value in means), pairs[-1]]


def _chosen(values: Sequence[float], most: int) -> set[int]:
    """Places of the first, the last, the lowest, and of others evenly between."""
    last = len(values) - 1
    count = min(most - 1, last) or 1
    even = {round(last * number / count) for number in range(count + 1)}
    return even | {min(range(len(values)), key=values.__getitem__)}
