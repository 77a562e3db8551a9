"""The loss of a training run against its steps."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .figure import new_figure, save_png

Row = Mapping[str, float]


# The two are not of one kind: a model has an easier time where it sees a tenth of the answers, and
# a harder one where more is masked.
_TRAINING = {
    "mlm": "training, 10 % of the targets in sight, smoothed",
    "diffusion": "training, bound over all mask rates, smoothed",
    "mixed": "training, some 30 % masked, smoothed",
}
_HELD_OUT = "held out, all targets masked"
_HELD_OUT_BESIDE = "held out, 15 % masked"  # beside training that masks other shares
_BOUND = "held out, bound over all mask rates"


def plot_loss(
    rows: Sequence[Row],
    path: str | os.PathLike[str],
    *,
    title: str = "",
    objective: str = "mlm",
) -> None:
    """Draw the loss of a run against its steps and write it as a PNG, all or nothing.

    Training loss as it was (thin) and smoothed, validation loss as points, and as level lines what
    residue frequencies reach and, where it is known, the entropy floor. The right axis reads the
    same in perplexity, exp(loss).

    Args:
        rows: the rows of `MetricsLog`, with `step` and some of `train_loss`, `valid_loss`,
            `valid_bound`, `unigram_perplexity`, `floor_perplexity`.
        path: the .png file; its folder must exist.
        title: a line above the plot.
        objective: what the training loss is of: "mlm", "diffusion" or "mixed".
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    _draw_curves(axes, rows, objective)
    _draw_levels(axes, rows, objective)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_ylabel("loss on masked residues (nats)")
    axes.grid(alpha=0.25)
    axes.margins(x=0.01)
    if title:
        axes.set_title(title, parse_math=False)
    if axes.has_data():
        axes.legend(frameon=False)
        _add_perplexity_axis(axes)
    save_png(figure, Path(path))


def _draw_curves(axes: Any, rows: Sequence[Row], objective: str) -> None:
    trained = [(row["step"], row["train_loss"]) for row in rows if "train_loss" in row]
    if trained:
        steps, losses = zip(*trained, strict=True)
        axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=1)
        axes.plot(steps, smooth(losses), color="tab:blue", label=_TRAINING[objective])
    validated = [(row["step"], row["valid_loss"]) for row in rows if "valid_loss" in row]
    if validated:
        steps, losses = zip(*validated, strict=True)
        label = _HELD_OUT if objective == "mlm" else _HELD_OUT_BESIDE
        axes.plot(steps, losses, color="tab:orange", marker="o", markersize=4, label=label)
    bounds = [(row["step"], row["valid_bound"]) for row in rows if "valid_bound" in row]
    if bounds:
        steps, losses = zip(*bounds, strict=True)
        axes.plot(steps, losses, color="tab:purple", marker="s", markersize=4, label=_BOUND)


def _draw_levels(axes: Any, rows: Sequence[Row], objective: str) -> None:
    levels = (
        ("unigram_perplexity", "residue frequencies", "tab:gray", "--"),
        ("floor_perplexity", "entropy floor (synthetic families)", "tab:green", ":"),
    )
    for key, name, color, style in levels:
        known = [row[key] for row in rows if key in row]
        if known:
            # Nobody knows the floor of other masks than those of validation.
            of = "" if objective == "mlm" or key == "unigram_perplexity" else ", 15 % masked"
            label = f"{name}{of}: perplexity {known[-1]:.2f}"
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
