"""What is judged, as lines of 80 columns."""

from __future__ import annotations

import textwrap

import numpy as np

from ..data.alphabet import STANDARD_RESIDUES
from ..data.composition import ProteinCounts
from ..data.low_complexity import TRIGGER_BITS, WINDOW
from ..data.natural_range import Comparison, Figure
from ..inference.naturalness import LEAST_COVERAGE, POSITIONS, Kinship, Likelihoods, Naturalness
from .judge_words import ALIKE, NOTHING, RELATED, TWIN, findings, residue_is_off
from .table import table

_COLUMNS = 77  # less the three before each line
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_NONE = "-"


def lines(found: Naturalness, model: str | None) -> list[str]:
    """What a person reads; `model` is what the model is called, where there is one."""
    num, residues = len(found.generated), int(found.generated.lengths.sum())
    head = [
        f"🌳 {_proteins(num, 'generated')} of {residues:,} residues beside {found.num_natural:,} "
        f"natural"
    ]
    body = [
        *_notes(found),
        *_overall(found.comparison),
        *_lengths(found),
        *_residues(found.comparison),
        *_kinships(found),
        *_likelihoods(found.likelihoods, model),
    ]
    told = findings(found) or [NOTHING]
    body += ["", *(line for sentence in told for line in _bullet(sentence))]
    return [*head, *(f"   {line}".rstrip() for line in body)]


def _notes(found: Naturalness) -> list[str]:
    """What was not counted, and what cannot be known."""
    told = []
    for what, counts in (("generated", found.generated), ("natural", found.natural)):
        others = int(counts.lengths.sum() - counts.residues.sum())
        if others:
            letters = "1 letter" if others == 1 else f"{others:,} letters"
            told.append(f"{letters} of the {what} ones are none of the 20 residues, and left out")
    if len(found.natural) < found.num_natural:
        told.append(f"natural figures: of {len(found.natural):,} of them, drawn at random")
    size = found.comparison.size
    if size == 0:
        told.append("one natural protein tells nothing of how natural proteins differ")
    elif size < len(found.generated):
        told.append(
            f"there are few natural proteins, so theirs are sets of {size:,}, which differ more"
        )
    return [line for one in told for line in textwrap.wrap(one, _COLUMNS)]


def _overall(comparison: Comparison) -> list[str]:
    figures = comparison.figures
    rows = [["", "generated", _sets(comparison)]]
    for name, label in (
        ("composition", "composition, KL in nats"),
        ("pairs", "neighbouring pairs, KL in nats"),
    ):
        rows.append([label, *_cells(figures[name], "{:.3f}")])
    for name, label in (
        ("begin with M", "begin with M"),
        ("low complexity", f"windows of low complexity ({WINDOW}, {TRIGGER_BITS} bits)"),
        ("repeats", "repeat another one exactly"),
    ):
        rows.append([label, *_cells(figures[name], "{:.1%}")])
    return table(rows)


def _sets(comparison: Comparison) -> str:
    if not comparison.draws:
        return "natural"
    return f"natural, sets of {comparison.size:,}"


def _cells(figure: Figure, form: str) -> list[str]:
    value = _NONE if figure.value is None else form.format(figure.value)
    natural = figure.natural
    if natural is None:
        return [value, _NONE]
    low, high = form.format(natural.low), form.format(natural.high)
    return [value, f"{form.format(natural.mean)} [{low}, {high}]"]


def _lengths(found: Naturalness) -> list[str]:
    rows = [["length", *(f"{share:.0%}" for share in _QUANTILES)]]
    for what, counts in (("generated", found.generated), ("natural", found.natural)):
        rows.append([what, *(f"{length:,.0f}" for length in length_quantiles(counts))])
    return ["", *table(rows)]


def length_quantiles(counts: ProteinCounts) -> list[float]:
    """Of the lengths, those below which 5, 25, 50, 75 and 95 % are."""
    quantiles: list[float] = np.quantile(counts.lengths, _QUANTILES).tolist()
    return quantiles


def _residues(comparison: Comparison) -> list[str]:
    """A line for each residue, the most in excess first."""
    rows = []
    for letter, figure in zip(STANDARD_RESIDUES, comparison.residues, strict=True):
        times = excess(figure)
        mark = ""
        if residue_is_off(figure) and figure.natural and figure.value is not None:
            mark = "too many" if figure.value > figure.natural.mean else "too few"
        shown = _NONE if times is None else f"{times:.2f}" if times < 100 else f"{times:.0f}"
        rows.append((times or 0.0, [letter, *_cells(figure, "{:.1%}"), shown, mark]))
    rows.sort(key=lambda row: -row[0])
    head = ["residue", "generated", _sets(comparison), "times", ""]
    return ["", *table([head, *(row for _, row in rows)])]


def excess(figure: Figure) -> float | None:
    """How many times as frequent as in natural sets; None where those have none."""
    if figure.value is None or figure.natural is None or figure.natural.mean == 0:
        return None
    return figure.value / figure.natural.mean


def _kinships(found: Naturalness) -> list[str]:
    ours, natural = found.to_natural, found.natural_to_natural
    both = [ours, natural]
    num_natural = 0 if natural is None else len(natural.relatives)
    rows = [
        [
            "nearest natural protein, of",
            _proteins(len(ours.relatives), "generated", short=True),
            f"{num_natural:,} natural",
        ],
        ["identity, median", *(_share(one, "median_identity") for one in both)],
        ["coverage, median", *(_share(one, "median_coverage") for one in both)],
    ]
    for identity in (RELATED, ALIKE):
        rows.append([f"above {identity:.0%} identity", *(_above(one, identity) for one in both)])
    twins = [found.twins, found.natural_twins]
    rows.append(
        [f"above {TWIN:.0%} to one of their own set", *(_above(one, TWIN) for one in twins)]
    )
    copies = f"exact copies of natural ones: {found.copies:,} of {len(found.generated):,}"
    told = (
        f"(identity: same residues by aligned columns; above: at {LEAST_COVERAGE:.0%} coverage or "
        f"more)"
    )
    return ["", *table(rows), copies, told]


def _share(kinship: Kinship | None, name: str) -> str:
    return _NONE if kinship is None else f"{getattr(kinship, name):.0%}"


def _above(kinship: Kinship | None, identity: float) -> str:
    if kinship is None:
        return _NONE
    return f"{kinship.above(identity) / len(kinship.relatives):.0%}"


def _likelihoods(likelihoods: Likelihoods | None, model: str | None) -> list[str]:
    if likelihoods is None or model is None:
        return []
    groups = {
        "natural": likelihoods.natural,
        "generated": likelihoods.generated,
        "natural, shuffled": likelihoods.shuffled,
    }
    rows = [["pseudo-perplexity", "proteins", "all", "of one, median"]]
    for what, some in groups.items():
        error = "" if some.nats.error is None else f" ± {some.perplexity * some.nats.error:.2f}"
        median = f"{np.median(some.by_protein):.2f}"
        rows.append([what, f"{len(some.by_protein):,}", f"{some.perplexity:.2f}{error}", median])
    beyond, before = likelihoods.beyond_natural, likelihoods.before_shuffled
    apart = [
        f"nats from natural to generated  {beyond.value:+.3f}{_error(beyond.error)}",
        f"nats from generated to shuffled {before.value:+.3f}{_error(before.error)}",
    ]
    place = likelihoods.place
    where = (
        "the model hardly tells natural proteins from shuffled ones, so it tells nothing here"
        if place is None
        else f"from natural (0%) to shuffled (100%) they are at {place:.0%}"
    )
    shown = model if len(model) <= 60 else f"...{model[-57:]}"
    told = f"(by {shown}, {POSITIONS} residues of each protein masked in turn)"
    return [
        "",
        *table(rows),
        *apart,
        *textwrap.wrap(where, _COLUMNS),
        *textwrap.wrap(told, _COLUMNS),
    ]


def _error(error: float | None) -> str:
    return "" if error is None else f" ± {error:.3f}"


def _proteins(count: int, kind: str, *, short: bool = False) -> str:
    if short:
        return f"{count:,} {kind}"
    return f"1 {kind} protein" if count == 1 else f"{count:,} {kind} proteins"


def _bullet(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, _COLUMNS, initial_indent="- ", subsequent_indent="  ")
