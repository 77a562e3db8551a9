"""A page of structures that opens anywhere: one file, which asks no network for anything.

The drawing is done by 3Dmol.js 2.5.5 (npm `3dmol`, BSD; `page/3Dmol-LICENSE.txt`), as it is.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from .page_text import as_data, filled, part

# Kyte and Doolittle 1982, table 2.
_HALF_SCALES = {
    "ARNDCQEGHI": (1.8, -4.5, -3.5, -3.5, 2.5, -3.5, -3.5, -0.4, -3.2, 4.5),
    "LKMFPSTWYV": (3.8, -3.9, 1.9, 2.8, -1.6, -0.8, -0.7, -0.9, -1.3, 4.2),
}
HYDROPHOBICITY = {
    residue: value
    for residues, values in _HALF_SCALES.items()
    for residue, value in zip(residues, values, strict=True)
}


def structure_page(title: str, structures: Sequence[Mapping[str, Any]]) -> str:
    """The HTML of a page.

    Args:
        title: its headline.
        structures: each with `name`, `caption`, `notes` (texts), `atoms` (mmCIF whose chain c is
            called c and whose residues have the numbers `ids`), and `chains`, each of these with
            `name`, `is_protein`, `sequence`, `names`, `numbers`, `ids`, `drawn` ("cartoon", "trace"
            or "sticks") and, of a prediction, `confidence` (numbers from 0 to 100). Where there is
            a contact map: `contacts`, with `truth` (L texts of L characters 0, 1, ?), `predicted`
            (L lists of L percent), `cb` (L positions), `surest` (triples i, j, whether it is one),
            `label` and `precision` (texts).
    """
    parts = {
        "title": html.escape(title),
        "style": part("page.css"),
        "data": as_data({"structures": structures, "hydrophobicity": HYDROPHOBICITY}),
        "viewer": part("3Dmol-min.js"),
        "script": part("page.js"),
    }
    return filled("page.html", parts)
