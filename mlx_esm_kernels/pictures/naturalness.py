"""Generated proteins beside natural ones: residues, lengths, complexity, relatives, likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.alphabet import STANDARD_RESIDUES
from .figure import new_figure, save_png

# Residues of one class beside each other.
_ORDER = "AILMVFWYNQSTHKRDECGP"
# Of Okabe and Ito, which those who see no red or green tell apart; and other lines for each.
_COLOURS = {"natural": "#0072B2", "generated": "#D55E00", "shuffled": "#555555"}
_LINES = {"natural": "-", "generated": "--", "shuffled": ":"}


def draw_naturalness(
    path: Path,
    residues: Sequence[tuple[float, tuple[float, float, float] | None]],
    distributions: Mapping[str, Any],
    *,
    title: str,
) -> None:
    """Panels as a PNG.

    Args:
        path: the .png file.
        residues: of each residue, as in `STANDARD_RESIDUES`, the share among generated ones, and
            of natural sets the mean and the ends of their range.
        distributions: "lengths", "identities" and "perplexities", lists of numbers by whose they
            are ("generated", "natural", "shuffled"), of which any may be missing; "entropies",
            counts of windows in "entropy_bins", with the "entropy_limit" of low complexity.
        title: a line above.
    """
    figure = new_figure(12, 8)
    figure.suptitle(title, fontsize=11)
    panels = [_draw_lengths, _draw_entropies, _draw_identities]
    if distributions["perplexities"]:
        panels.append(_draw_perplexities)
    grid = figure.add_gridspec(2, len(panels))
    _draw_residues(figure.add_subplot(grid[0, :]), residues)
    for column, draw in enumerate(panels):
        axes = figure.add_subplot(grid[1, column])
        draw(axes, distributions)
        axes.grid(axis="y", alpha=0.25)
        axes.legend(frameon=False, fontsize=9)
    save_png(figure, path)


def _draw_residues(
    axes: Any, residues: Sequence[tuple[float, tuple[float, float, float] | None]]
) -> None:
    ordered = [residues[STANDARD_RESIDUES.index(letter)] for letter in _ORDER]
    places = np.arange(len(_ORDER))
    axes.bar(
        places + 0.2,
        [100 * share for share, _ in ordered],
        0.4,
        color=_COLOURS["generated"],
        label="generated",
    )
    if all(natural is not None for _, natural in ordered):
        mean, low, high = 100 * np.array([natural for _, natural in ordered], dtype=float).T
        axes.bar(
            places - 0.2,
            mean,
            0.4,
            yerr=[np.maximum(mean - low, 0), np.maximum(high - mean, 0)],
            color=_COLOURS["natural"],
            ecolor="black",
            capsize=2,
            label="natural, with the range of 95 % of the sets",
        )
    axes.set_xticks(places, list(_ORDER))
    axes.set_xlim(-0.6, len(_ORDER) - 0.4)
    axes.set_xlabel("residue")
    axes.set_ylabel("% of residues")
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, fontsize=9)


def _draw_lengths(axes: Any, distributions: Mapping[str, Any]) -> None:
    lengths = distributions["lengths"]
    # Few very long ones would leave no room for the others.
    end = max(float(np.quantile(some, 0.98)) for some in lengths.values()) * 1.05
    start = min(min(some) for some in lengths.values())
    bins = np.linspace(start, max(end, start + 1.0), 31)
    _draw_steps(axes, {who: np.minimum(some, bins[-1]) for who, some in lengths.items()}, bins)
    axes.set_xlabel("residues of the protein")
    axes.set_ylabel("% of proteins")


def _draw_entropies(axes: Any, distributions: Mapping[str, Any]) -> None:
    edges = np.array(distributions["entropy_bins"])
    for who, counts in distributions["entropies"].items():
        if sum(counts):
            shares = 100 * np.array(counts) / sum(counts)
            axes.stairs(
                shares, edges, color=_COLOURS[who], linestyle=_LINES[who], linewidth=1.8, label=who
            )
    axes.axvline(distributions["entropy_limit"], color="0.5", linewidth=1)
    axes.text(
        distributions["entropy_limit"],
        0.5,
        "low complexity ",
        ha="right",
        fontsize=9,
        transform=axes.get_xaxis_transform(),
    )
    axes.set_xlabel("bits of 12 residues")
    axes.set_ylabel("% of windows")


def _draw_identities(axes: Any, distributions: Mapping[str, Any]) -> None:
    shares = {who: 100 * np.array(some) for who, some in distributions["identities"].items()}
    _draw_sums(axes, shares)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% identity to the nearest natural protein")


def _draw_perplexities(axes: Any, distributions: Mapping[str, Any]) -> None:
    perplexities = distributions["perplexities"]
    _draw_sums(axes, perplexities)
    # A few that the model finds impossible would leave no room for the others.
    ends = [np.quantile(some, (0.02, 0.95)) for some in perplexities.values()]
    axes.set_xlim(0.9 * min(low for low, _ in ends), 1.1 * max(high for _, high in ends))
    axes.set_xlabel("pseudo-perplexity")


def _draw_sums(axes: Any, values: Mapping[str, Any]) -> None:
    """For each value how many are at most that."""
    for who, some in values.items():
        share = 100 * np.arange(1, len(some) + 1) / len(some)
        style = {"color": _COLOURS[who], "linestyle": _LINES[who], "linewidth": 1.8}
        axes.step(np.sort(some), share, where="post", label=who, **style)
    axes.set_ylabel("% of proteins that have at most this")


def _draw_steps(axes: Any, values: Mapping[str, Any], bins: Any) -> None:
    """A histogram each, as a share of its own; what lies beyond an end is in the last bin."""
    for who, some in values.items():
        counts, _ = np.histogram(np.clip(some, bins[0], bins[-1]), bins)
        axes.stairs(
            100 * counts / max(len(some), 1),
            bins,
            color=_COLOURS[who],
            linestyle=_LINES[who],
            linewidth=1.8,
            label=who,
        )
