"""A page about a training run: one file, which asks no network for anything and needs no script."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.alphabet import STANDARD_RESIDUES
from .page_text import filled, part
from .report_parts import confusion_table, contact_figure, sample_figure, table
from .run_charts import Rows, charts, rows_table

_Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ShownSample:
    """A protein that the model made.

    Attributes:
        sequence: L residues of the 20.
        confidence: (L,) probability of each, it alone masked.
        note: what is said of it.
        contacts: (L, L) probabilities, or None.
    """

    sequence: str
    confidence: _Floats = field(repr=False)
    note: str
    contacts: _Floats | None = field(default=None, repr=False)


@dataclass(frozen=True)
class RunPage:
    """What the page shows. What is not there is None or empty, and its `missing` says why.

    Attributes:
        name, subtitle: of the run.
        figures: names and values, as they are to be read.
        rows: of metrics.jsonl.
        levels: perplexities that no model is needed for, by name.
        confusion: (20, 20), row a the mean probability of each residue where a is the true one, in
            the order of STANDARD_RESIDUES; NaN where a was never asked for.
        counts: how often each residue was asked for.
        confusion_note: of what proteins.
        samples: some, with the contacts of none or a few.
        sampled: how they were made.
        classes: residues by class.
        config: the text of config.toml.
        command: what repeats the run.
        missing: sentences, by "curves", "confusion", "samples", "contacts", "config" and
            "neighbours".
    """

    name: str
    subtitle: str
    figures: Sequence[tuple[str, str]]
    rows: Rows
    levels: Mapping[str, float]
    confusion: _Floats | None
    counts: Mapping[str, int]
    confusion_note: str
    samples: Sequence[ShownSample]
    sampled: str
    classes: Mapping[str, str]
    config: str | None
    command: str | None
    missing: Mapping[str, str]

    def html(self) -> str:
        """The page."""
        parts = {
            "title": html.escape(self.name),
            "subtitle": html.escape(self.subtitle),
            "style": part("report.css"),
            "figures": _figures(self.figures),
            "curves": self._curves(),
            "confusion": self._confusion(),
            "samples": self._samples(),
            "contacts": self._contacts(),
            "config": self._config(),
        }
        return filled("report.html", parts)

    def _curves(self) -> str:
        drawn = charts(self.rows, self.levels)
        said = self._why("curves") + self._why("neighbours")
        return f'<div class="charts">{"".join(drawn)}</div>{rows_table(self.rows)}{said}'

    def _confusion(self) -> str:
        if self.confusion is None:
            return self._why("confusion")
        shown = confusion_table(self.confusion, STANDARD_RESIDUES, self.classes, self.counts)
        return f"<p>{html.escape(self.confusion_note)}</p>{shown}"

    def _samples(self) -> str:
        if not self.samples:
            return self._why("samples")
        keys = "".join(
            f'<li><span class="swatch {name}"></span>{name} ({residues})</li>'
            for name, residues in self.classes.items()
        )
        shown = [
            sample_figure(f"Sample {number}", one.note, one.sequence, one.confidence, self.classes)
            for number, one in enumerate(self.samples, start=1)
        ]
        return f'<p>{html.escape(self.sampled)}</p><ul class="legend">{keys}</ul>{"".join(shown)}'

    def _contacts(self) -> str:
        shown = [
            contact_figure(f"Sample {number}", one.sequence, one.contacts)
            for number, one in enumerate(self.samples, start=1)
            if one.contacts is not None
        ]
        return f'<div class="charts">{"".join(shown)}</div>' if shown else self._why("contacts")

    def _config(self) -> str:
        if self.config is None or self.command is None:
            return self._why("config")
        return (
            "<p>This does the run again, in a folder of its own:</p>"
            f'<pre tabindex="0" aria-label="Command">{html.escape(self.command)}</pre>'
            "<p>This is all that it was begun with:</p>"
            f'<pre tabindex="0" aria-label="config.toml">{html.escape(self.config)}</pre>'
        )

    def _why(self, what: str) -> str:
        sentence = self.missing.get(what)
        return "" if sentence is None else f'<p class="missing">{html.escape(sentence)}</p>'


def _figures(figures: Sequence[tuple[str, str]]) -> str:
    if not figures:
        return '<p class="missing">There are no figures yet.</p>'
    rows = [(html.escape(name), html.escape(value)) for name, value in figures]
    return table("Final figures", None, rows, kind="figures")
