"""The record of a training run: metrics.jsonl, a row at a time, and loss.png drawn from it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .whole_file import replacement

Row = Mapping[str, float]


class MetricsError(ValueError):
    """A metrics.jsonl that cannot be gone on with; the message names the line."""


class MetricsLog:
    """Rows of numbers, one JSON object a line, on the disk as soon as they are known.

    A file that is there already is gone on with, so that the steps of a resumed run follow those
    of the first. A last line that was cut off (a full disk, a power cut) is dropped.

    Args:
        path: the .jsonl file; its folder must exist.

    Attributes:
        rows: list of dict, all rows so far.

    Raises:
        MetricsError: the file holds something else.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []
        if self.path.exists():
            self._read()
        self._file: IO[str] = self.path.open("a", encoding="utf-8")

    @property
    def last_step(self) -> int:
        """The step of the last row; 0 where there is none."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    def append(self, row: Row) -> None:
        """Add a row; it has a `step`, and a number that is not finite becomes null."""
        finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
        self.rows.append({key: value for key, value in finite.items() if value is not None})
        self._file.write(json.dumps(finite) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read(self) -> None:
        whole = 0  # bytes of the lines that are complete
        content = self.path.read_bytes()
        for number, line in enumerate(content.splitlines(keepends=True), start=1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                int(row["step"])
            except (ValueError, TypeError, KeyError):
                raise MetricsError(
                    f'{self.path}, line {number}: expected a JSON object with a "step"; '
                    f"got {line[:60]!r}. Move the file away, or choose another folder."
                ) from None
            self.rows.append({key: value for key, value in row.items() if value is not None})
            whole += len(line)
        if whole < len(content):
            os.truncate(self.path, whole)


def plot_loss(rows: Sequence[Row], path: str | os.PathLike[str], *, title: str = "") -> None:
    """Draw the loss of a run against its steps and write it as a PNG, all or nothing.

    Training loss as it was (thin) and smoothed, validation loss as points, and as level lines what
    residue frequencies reach and, where it is known, the entropy floor. The right axis reads the
    same in perplexity, exp(loss).

    Args:
        rows: the rows of `MetricsLog`, with `step` and some of `train_loss`, `valid_loss`,
            `unigram_perplexity`, `floor_perplexity`.
        path: the .png file; its folder must exist.
        title: a line above the plot.
    """
    # Here, not above: matplotlib takes a second to import. Agg draws without a screen, and a
    # Figure of our own leaves the figures and the backend of a notebook alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_curves(axes, rows)
    _draw_levels(axes, rows)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_ylabel("loss on masked residues (nats)")
    axes.grid(alpha=0.25)
    axes.margins(x=0.01)
    if title:
        axes.set_title(title)
    if axes.has_data():
        axes.legend(frameon=False)
        _add_perplexity_axis(axes)
    with replacement(Path(path)) as half_done:
        figure.savefig(half_done, dpi=150, format="png")


def _draw_curves(axes: Any, rows: Sequence[Row]) -> None:
    trained = [(row["step"], row["train_loss"]) for row in rows if "train_loss" in row]
    if trained:
        steps, losses = zip(*trained, strict=True)
        axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=1)
        axes.plot(steps, smooth(losses), color="tab:blue", label="training, smoothed")
    validated = [(row["step"], row["valid_loss"]) for row in rows if "valid_loss" in row]
    if validated:
        steps, losses = zip(*validated, strict=True)
        axes.plot(steps, losses, color="tab:orange", marker="o", markersize=4, label="held out")


def _draw_levels(axes: Any, rows: Sequence[Row]) -> None:
    levels = (
        ("unigram_perplexity", "residue frequencies", "tab:gray", "--"),
        ("floor_perplexity", "entropy floor (synthetic families)", "tab:green", ":"),
    )
    for key, name, color, style in levels:
        known = [row[key] for row in rows if key in row]
        if known:
            label = f"{name}: perplexity {known[-1]:.2f}"
            axes.axhline(math.log(known[-1]), color=color, linestyle=style, label=label)


def _add_perplexity_axis(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    right = axes.twinx()
    right.set_ylabel("perplexity")
    low, high = axes.get_ylim()
    ticks = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(math.exp(low), math.exp(high))
    ticks = [tick for tick in ticks if math.exp(low) <= tick <= math.exp(high)]
    right.set_ylim(low, high)
    right.set_yticks([math.log(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])


def smooth(values: Sequence[float], share: float = 0.05) -> list[float]:
    """Mean of each value and its neighbours, `share` of all values together; same length."""
    reach = round(share * len(values) / 2)
    # Near either end as many neighbours on one side as there are on the other, lest it be biased.
    reaches = [min(reach, i, len(values) - 1 - i) for i in range(len(values))]
    windows = [values[i - r : i + r + 1] for i, r in enumerate(reaches)]
    return [sum(window) / len(window) for window in windows]
