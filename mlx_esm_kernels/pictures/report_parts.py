"""Parts of the page of a run: tables, the confusion of residues, proteins and their contacts."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.floating[Any]]

# Contacts that are less probable are left blank. Pairs that are nearer say little of a fold.
_LEAST_CONTACT, _LEAST_APART = 0.05, 6
_SUREST = 10
_PER_ROW = 10


def table(
    name: str,
    head: Sequence[str] | None,
    rows: Sequence[Sequence[str]],
    kind: str = "values",
) -> str:
    """A table whose first column has the names of the rows.

    Args:
        name: for who does not see it.
        head: of each column; None: none is needed.
        rows: cells, HTML already.
        kind: CSS class.
    """
    top = ""
    if head is not None:
        cells = "".join(f'<th scope="col">{html.escape(one)}</th>' for one in head)
        top = f"<thead><tr>{cells}</tr></thead>"
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{one}</td>" for one in rest)}</tr>'
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(name)}">'
        f'<table class="{kind}">{top}<tbody>{body}</tbody></table></div>'
    )


def folded(name: str, content: str) -> str:
    """Something that is opened when it is wanted."""
    return f"<details><summary>{html.escape(name)}</summary>{content}</details>"


def confusion_table(
    confusion: _Floats, residues: str, classes: Mapping[str, str], counts: Mapping[str, int]
) -> str:
    """A heat map that is a table, and what each residue is taken for in words.

    Args:
        confusion: (20, 20), row a the mean probability of each residue where a is the true one, in
            the order of `residues`; NaN: not known.
        residues: 20 letters.
        classes: residues by class, which stand beside each other.
        counts: how often each was asked for.
    """
    letters = [one for some in classes.values() for one in some]
    order = [residues.index(one) for one in letters]
    shares = confusion[np.ix_(order, order)]
    most = float(np.nanmax(shares, initial=1e-9))
    head = "".join(f'<th scope="col">{one}</th>' for one in letters)
    body, words = [], []
    for letter, row in zip(letters, shares, strict=True):
        cells = "".join(
            _cell(letter, other, float(p), most) for other, p in zip(letters, row, strict=True)
        )
        body.append(f'<tr><th scope="row">{letter}</th>{cells}</tr>')
        words.append(_in_words(letter, letters, row, counts.get(letter, 0)))
    spoken = table(
        "What each residue is taken for",
        ["residue", "asked for", "itself", "most often taken for"],
        words,
    )
    return (
        '<div class="heat"><table><caption>Rows: the true residue. Columns: what the model puts '
        f"there, from 0 % (no colour) to {100 * most:.0f} % (full colour).</caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        + folded("The same in words", spoken)
    )


def _cell(true: str, other: str, share: float, most: float) -> str:
    if np.isnan(share):
        return '<td title="not known"><span>not known</span></td>'
    told = f"{true} as {other}: {share:.1%}"
    return f'<td style="--p:{share / most:.3f}" title="{told}"><span>{share:.0%}</span></td>'


def _in_words(letter: str, letters: Sequence[str], row: _Floats, count: int) -> tuple[str, ...]:
    if np.isnan(row).any():
        return letter, f"{count:,}", "–", "–"
    others = sorted((-float(p), one) for one, p in zip(letters, row, strict=True) if one != letter)
    taken = ", ".join(f"{one} {-p:.1%}" for p, one in others[:3])
    return letter, f"{count:,}", f"{row[list(letters).index(letter)]:.1%}", taken


def sample_figure(
    name: str, note: str, sequence: str, confidence: _Floats, classes: Mapping[str, str]
) -> str:
    """A protein, each residue in the colour of its class over a bar of its confidence.

    Args:
        name, note: above it.
        sequence: L residues.
        confidence: (L,) from 0 to 1.
        classes: residues by class.
    """
    class_of = {one: kind for kind, some in classes.items() for one in some}
    drawn, rows = [], []
    for start in range(0, len(sequence), _PER_ROW):
        some = range(start, min(start + _PER_ROW, len(sequence)))
        cells = "".join(
            f'<span class="{class_of.get(sequence[i], "")}" style="--p:{confidence[i]:.3f}" '
            f'title="{html.escape(sequence[i])} {i + 1}: {confidence[i]:.0%}">'
            f"{html.escape(sequence[i])}</span>"
            for i in some
        )
        drawn.append(f'<span class="ten">{cells}</span>')
        chances = ", ".join(f"{html.escape(sequence[i])} {confidence[i]:.0%}" for i in some)
        rows.append((f"{start + 1} to {some[-1] + 1}", chances))
    spoken = table(f"{name}, confidence", ["residues", "confidence of each"], rows)
    return (
        f'<section class="sample"><h3>{html.escape(name)}</h3><p>{html.escape(note)}</p>'
        f'<div class="protein" aria-hidden="true">{"".join(drawn)}</div>'
        f'<p class="plain">{html.escape(sequence)}</p>'
        f"{folded(f'{name}: confidence of each residue', spoken)}</section>"
    )


def contact_figure(name: str, sequence: str, contacts: _Floats) -> str:
    """A contact map, and its surest pairs in a table.

    Args:
        name: of the protein.
        sequence: L residues.
        contacts: (L, L) probabilities.
    """
    size = len(sequence)
    cells = "".join(
        f'<path style="opacity:{contacts[i, j]:.2f}" d="M{j} {i}h1v1h-1z"><title>'
        f"{sequence[i]} {i + 1}, {sequence[j]} {j + 1}: {contacts[i, j]:.0%}</title></path>"
        for i, j in np.argwhere(contacts >= _LEAST_CONTACT).tolist()
        if i != j
    )
    first, second = np.triu_indices(size, _LEAST_APART)
    surest = np.argsort(-contacts[first, second], kind="stable")[:_SUREST]
    rows = [
        (f"{sequence[i]} {i + 1}", f"{sequence[j]} {j + 1}", f"{contacts[i, j]:.0%}")
        for i, j in zip(first[surest].tolist(), second[surest].tolist(), strict=True)
    ]
    label = f"Contact map of {name}, {size} by {size} residues; its surest pairs are in the table."
    title = f"{name}, surest pairs"
    spoken = table(title, ["residue", "with", "probability"], rows)
    told = folded(f"{title}, {_LEAST_APART} or more apart", spoken) if rows else ""
    return (
        f'<figure class="map"><figcaption>{html.escape(name)}: from 0 % (blank) to 100 % (full '
        f'colour)</figcaption><svg viewBox="0 0 {size} {size}" role="img" '
        f'aria-label="{html.escape(label)}">{cells}</svg>'
        f"{told}</figure>"
    )
