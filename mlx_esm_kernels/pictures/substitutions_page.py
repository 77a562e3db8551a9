"""A page of every substitution in a protein: one file, which asks no network for anything."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.alphabet import STANDARD_RESIDUES
from .page_text import as_data, filled, part
from .report_parts import folded, table
from .substitution_map import PER_BLOCK, SubstitutionMap, colour_key, in_digits

_Floats = npt.NDArray[np.floating[Any]]

_LISTED = 20
# Digits after the point of what the page computes ranks from.
_KEPT = 4


def substitutions_page(
    title: str,
    subtitle: str,
    sequence: str,
    scores: Mapping[str, _Floats],
    *,
    offset: int,
    classes: Mapping[str, str],
    measure: str,
    note: str,
) -> str:
    """The HTML of a page.

    Args:
        title, subtitle: above it.
        sequence: the wild type, L residues.
        scores: of each model, by name: (20, L) in nats, rows as in `STANDARD_RESIDUES`; 0 is as
            good as the wild type, whose own residues are NaN. Of several models the mean is drawn.
        offset: number of the first residue.
        classes: the 20 residues by class, which stand beside each other.
        measure: what the scores are, with their unit.
        note: where the numbers are, too.
    """
    order = [STANDARD_RESIDUES.index(one) for some in classes.values() for one in some]
    kept = {name: np.round(some[order], _KEPT) for name, some in scores.items()}
    drawn = SubstitutionMap(sequence, offset, classes, np.round(_mean(kept), _KEPT))
    several = kept if len(kept) > 1 else {}
    data = {
        "sequence": sequence,
        "offset": offset,
        "letters": drawn.letters,
        "perBlock": PER_BLOCK,
        "tops": drawn.tops,
        "height": drawn.height,
        "scores": _flat(drawn.scores),
        "models": [{"name": name, "scores": _flat(some)} for name, some in several.items()],
    }
    parts = {
        "title": html.escape(title),
        "subtitle": html.escape(subtitle),
        "style": part("report.css") + part("substitutions.css"),
        "measure": html.escape(measure),
        "key": colour_key(drawn.reach),
        "classes": "".join(
            f'<li><span class="swatch {name}"></span>{name} ({" ".join(residues)})</li>'
            for name, residues in classes.items()
        ),
        "blocks": drawn.blocks(),
        "numbers": folded("All numbers, as a table", _numbers(drawn)),
        "note": html.escape(note),
        "extremes": _extremes(drawn, several),
        "data": as_data(data),
        "script": part("substitutions.js"),
    }
    return filled("substitutions.html", parts)


def _mean(scores: Mapping[str, _Floats]) -> _Floats:
    mean: _Floats = np.mean(list(scores.values()), axis=0)
    return mean


def _flat(scores: _Floats) -> list[float | None]:
    """Position by position; None for the wild type's own residue."""
    return [None if np.isnan(one) else one for one in scores.T.ravel().tolist()]


def _numbers(drawn: SubstitutionMap) -> str:
    rows = [
        (
            html.escape(drawn.name_of(position)),
            in_digits(mean),
            *("wild type" if np.isnan(one) else in_digits(one) for one in some),
        )
        for position, (mean, some) in enumerate(
            zip(drawn.means.tolist(), drawn.scores.T.tolist(), strict=True)
        )
    ]
    return table("All numbers", ["position", "mean", *drawn.letters], rows)


def _extremes(drawn: SubstitutionMap, several: Mapping[str, _Floats]) -> str:
    """Tables of what is tolerated best and worst, and of the positions where most harm is done."""
    flat = drawn.scores.T.ravel()
    ascending = np.argsort(flat, kind="stable")[: np.isfinite(flat).sum()]
    descending = np.argsort(-flat, kind="stable")[: np.isfinite(flat).sum()]
    head = ["substitution", "mean of the models" if several else "score", *several]

    def listed(places: npt.NDArray[np.intp]) -> list[tuple[str, ...]]:
        rows = []
        for place in places[:_LISTED].tolist():
            position, row = divmod(place, len(drawn.letters))
            numbers = [drawn.scores[row, position], *(s[row, position] for s in several.values())]
            name = f"{drawn.name_of(position)}{drawn.letters[row]}"
            rows.append((html.escape(name), *map(in_digits, numbers)))
        return rows

    means = drawn.means
    sensitive = [
        (html.escape(drawn.name_of(one)), in_digits(means[one]), _best(drawn, one))
        for one in np.argsort(means, kind="stable")[:_LISTED].tolist()
    ]
    tables: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = [
        ("Tolerated best", head, listed(descending)),
        ("Most damaging", head, listed(ascending)),
        ("Most sensitive positions", ["position", "mean", "tolerated best"], sensitive),
    ]
    return "".join(
        f"<div><h3>{name}</h3>{table(name, columns, rows)}</div>" for name, columns, rows in tables
    )


def _best(drawn: SubstitutionMap, position: int) -> str:
    row = int(np.nanargmax(drawn.scores[:, position]))
    return f"{drawn.letters[row]} {in_digits(drawn.scores[row, position])}"
