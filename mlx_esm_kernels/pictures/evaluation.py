"""How good models are: perplexity by residue and by length, and which residues are confused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.alphabet import STANDARD_RESIDUES
from .figure import new_figure, save_png

# Residues of one class beside each other.
_ORDER = "AILMVFWYNQSTHKRDECGP"
_MOST_LABEL = 40
# As in the loss curve of a run.
_COLOURS = {"residue frequencies": "tab:gray", "neighbours": "0.2", "entropy floor": "tab:green"}


def draw_evaluation(
    path: Path,
    by_residue: Mapping[str, Any],
    by_length: Mapping[str, Any],
    confusion: npt.NDArray[np.float64],
    *,
    title: str,
) -> None:
    """Three panels as a PNG.

    Args:
        path: the .png file.
        by_residue, by_length: "labels", the names of the parts, and "curves", for each model and
            baseline its perplexities and their standard errors, in the order of the labels.
        confusion: (20, 20), row a the mean probability of each residue where a is the true one, as
            in `STANDARD_RESIDUES`; NaN where it is not known.
        title: whose confusion it is.
    """
    # By length only where there is more than one: the sample's proteins are all short.
    panels = [(by_residue, "residue"), (by_length, "residues of the protein")]
    panels = [panel for panel in panels if panel[0] is by_residue or len(panel[0]["labels"]) > 1]
    figure = new_figure(13, 3.4 + 2.6 * len(panels))
    grid = figure.add_gridspec(len(panels), 2, width_ratios=(1.2, 1))
    for row, (parts, what) in enumerate(panels):
        axes = figure.add_subplot(grid[row, 0])
        labels = parts["labels"]
        order = list(range(len(labels)))
        if parts is by_residue:
            order.sort(key=lambda place: _ORDER.index(by_residue["labels"][place]))
        _draw_curves(axes, [labels[place] for place in order], order, parts["curves"])
        axes.set_xlabel(what)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    _draw_confusion(figure, figure.add_subplot(grid[:, 1]), confusion, title)
    save_png(figure, path)


def _draw_curves(
    axes: Any,
    labels: Sequence[str],
    order: Sequence[int],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> None:
    places = np.arange(len(labels))
    for number, (who, (values, errors)) in enumerate(curves.items()):
        offset = 0.5 * ((number + 0.5) / len(curves) - 0.5)
        axes.errorbar(
            places + offset,
            [values[i] for i in order],
            yerr=[errors[i] for i in order],
            fmt="o",
            color=_COLOURS.get(who),
            markersize=4,
            linewidth=1,
            label=_plain(who),
        )
    axes.set_xticks(places, labels)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_yscale("log")
    axes.set_ylabel("perplexity")
    axes.grid(axis="y", which="both", alpha=0.25)
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_confusion(figure: Any, axes: Any, confusion: npt.NDArray[np.float64], title: str) -> None:
    order = [STANDARD_RESIDUES.index(residue) for residue in _ORDER]
    picture = axes.imshow(confusion[np.ix_(order, order)], cmap="Blues", vmin=0)
    axes.set_xticks(range(len(order)), list(_ORDER))
    axes.set_yticks(range(len(order)), list(_ORDER))
    axes.set_xlabel("residue that the model takes it for")
    axes.set_ylabel("true residue")
    axes.set_title(_plain(title), fontsize=9, parse_math=False)
    figure.colorbar(picture, ax=axes, label="mean probability", fraction=0.046, location="bottom")


def _plain(name: str) -> str:
    """A name, cut to what there is room for, in which a dollar sign begins no formula."""
    short = name if len(name) <= _MOST_LABEL else f"...{name[-_MOST_LABEL:]}"
    return short.replace("$", r"\$").removeprefix("_")
