"""What is off with generated proteins, in plain words.

Chance and smallness are no finding: a figure counts where it lies outside what every natural set
had, and by so much that it matters; a share where it differs by three standard errors or more.
"""

from __future__ import annotations

import math

import numpy as np

from ..data.alphabet import STANDARD_RESIDUES
from ..data.natural_range import Figure
from ..data.residue_classes import RESIDUE_NAMES
from ..inference.naturalness import Kinship, Likelihoods, Naturalness

NOTHING = "Nothing is off: all of this is as in natural proteins."
TWIN = 0.95  # identity above which two proteins are called nearly the same
ALIKE = 0.9
RELATED = 0.4
# Below these, what is beyond all natural sets is small all the same.
_TIMES = 1.25
_NATS = 0.01
_POINTS = 0.02
_ERRORS = 3.0
_FEW_PROTEINS = 20  # natural ones, that tell no usual length
_MOST_RESIDUES = 4  # that have a sentence each


def findings(found: Naturalness) -> list[str]:
    """A sentence for each thing that is off; none where nothing is."""
    figures = found.comparison.figures
    return [
        *_residues(found.comparison.residues),
        *_divergences(figures["composition"], figures["pairs"]),
        *_begins_with_m(figures["begin with M"]),
        *_low_complexity(figures["low complexity"]),
        *_lengths(found),
        *_repeats(found),
        *_relatives(found),
        *_model(found.likelihoods),
    ]


def residue_is_off(figure: Figure) -> bool:
    """Whether a residue is more or less frequent than in any natural set, and by a quarter."""
    if not figure.is_beyond or figure.value is None or figure.natural is None:
        return False
    return not 1 / _TIMES < (figure.value + 1e-12) / (figure.natural.mean + 1e-12) < _TIMES


def _residues(figures: list[Figure]) -> list[str]:
    """The residues that are off: those that are the most so in words, the others as letters."""
    off = []
    for letter, figure in zip(STANDARD_RESIDUES, figures, strict=True):
        if figure.value is not None and figure.natural is not None and residue_is_off(figure):
            off.append((letter, figure.value, figure.natural.mean))
    off.sort(key=lambda one: -abs(math.log((one[1] + 1e-6) / (one[2] + 1e-6))))
    told = [_residue(*one) for one in off[:_MOST_RESIDUES]]
    others = off[_MOST_RESIDUES:]
    more = "".join(letter for letter, value, usual in others if value > usual)
    less = "".join(letter for letter, value, usual in others if value < usual)
    for what, residues in (("frequent", more), ("rare", less)):
        if residues:
            told.append(f"Too {what} as well: {', '.join(residues)}.")
    return told


def _residue(letter: str, value: float, usual: float) -> str:
    name = RESIDUE_NAMES[letter].capitalize()
    if value == 0:
        return f"{name} does not occur; natural proteins have {usual:.1%}."
    if usual < 1e-4:
        return f"{name} makes {value:.1%}; natural proteins have next to none."
    times = value / usual
    size = f"{times:.0f}" if times >= 10 else f"{times:.1f}" if times > 1 else f"only {times:.2g}"
    return (
        f"{name} is {size} times as frequent as in natural proteins ({value:.1%}, not {usual:.1%})."
    )


def _divergences(composition: Figure, pairs: Figure) -> list[str]:
    told = _divergence("The mix of residues", "composition", composition)
    # Of independent residues, that of pairs would be twice that of the residues.
    by_residues = 2 * (composition.value or 0.0) if told else 0.0
    return told + _divergence("Which residue stands beside which", "pairs", pairs, by_residues)


def _divergence(what: str, name: str, figure: Figure, explained: float = 0.0) -> list[str]:
    natural = figure.natural
    if not figure.is_beyond or figure.value is None or natural is None:
        return []
    if figure.value - explained < natural.most + _NATS:
        return []
    return [
        f"{what} is unlike that of natural proteins: {name} KL {figure.value:.3f} nats, where "
        f"natural sets have {natural.low:.3f} to {natural.high:.3f}."
    ]


def _begins_with_m(figure: Figure) -> list[str]:
    if not _is_far(figure) or figure.value is None or figure.natural is None:
        return []
    return [f"{figure.value:.0%} begin with M; of natural proteins {figure.natural.mean:.0%} do."]


def _low_complexity(figure: Figure) -> list[str]:
    if not figure.is_beyond or figure.value is None or figure.natural is None:
        return []
    value, usual = figure.value, figure.natural.mean
    if abs(value - usual) < _POINTS / 4 or 1 / _TIMES < value / max(usual, 1e-12) < _TIMES:
        return []
    more = "repetitive: few residues over and over" if value > usual else "more even than natural"
    return [
        f"{value:.1%} of windows are of low complexity, of natural proteins {usual:.1%}: they are "
        f"{more}."
    ]


def _is_far(figure: Figure) -> bool:
    """Of a share: beyond all natural sets, by points that matter."""
    if not figure.is_beyond or figure.value is None or figure.natural is None:
        return False
    return abs(figure.value - figure.natural.mean) >= _POINTS


def _lengths(found: Naturalness) -> list[str]:
    if found.num_natural < _FEW_PROTEINS:
        return []
    median = float(np.median(found.generated.lengths))
    low, usual, high = np.quantile(found.natural.lengths, (0.05, 0.5, 0.95)).tolist()
    if low <= median <= high:
        return []
    than = "shorter" if median < low else "longer"
    return [
        f"They are {than} than 95 % of natural proteins: {median:,.0f} residues at the median, not "
        f"{usual:,.0f}."
    ]


def _repeats(found: Naturalness) -> list[str]:
    told = []
    count = len(found.generated)
    repeats = found.comparison.figures["repeats"]
    if _is_far(repeats) and repeats.value:
        told.append(f"{_of(round(repeats.value * count), count)} repeat another one exactly.")
    if found.twins is not None:
        usual = 0, 0
        if found.natural_twins is not None:
            usual = found.natural_twins.above(TWIN), len(found.natural_twins.relatives)
        near, asked = found.twins.above(TWIN), len(found.twins.relatives)
        if _differ(near, asked, *usual) and near * usual[1] >= usual[0] * asked:
            told.append(
                f"{_of(near, asked)} are more than {TWIN:.0%} identical to another generated one."
            )
    return told


def _relatives(found: Naturalness) -> list[str]:
    told = []
    count = len(found.generated)
    if found.copies:
        told.append(f"{_of(found.copies, count)} are exact copies of natural proteins.")
    ours, usual = found.to_natural, found.natural_to_natural
    if usual is None:
        return told
    asked, others = len(ours.relatives), len(usual.relatives)
    alike, natural_alike = ours.above(ALIKE), usual.above(ALIKE)
    if alike / asked > natural_alike / others and _differ(alike, asked, natural_alike, others):
        told.append(
            f"{_of(alike, asked)} are more than {ALIKE:.0%} identical to a natural protein; of "
            f"natural proteins {natural_alike / others:.0%} have such a relative."
        )
    related, natural_related = ours.above(RELATED), usual.above(RELATED)
    if related / asked < natural_related / others and _differ(
        related, asked, natural_related, others
    ):
        told.append(_unrelated(ours, usual))
    return told


def _unrelated(ours: Kinship, usual: Kinship) -> str:
    related, asked = ours.above(RELATED), len(ours.relatives)
    share = usual.above(RELATED) / len(usual.relatives)
    who = f"{related / asked:.0%} have" if related else "None has"
    return (
        f"{who} a natural relative of more than {RELATED:.0%} identity; of "
        f"natural proteins {share:.0%} have one."
    )


def _model(likelihoods: Likelihoods | None) -> list[str]:
    if likelihoods is None:
        return []
    beyond = likelihoods.beyond_natural
    if beyond.error is None or abs(beyond.value) < max(_ERRORS * beyond.error, _NATS):
        return []
    generated, natural, shuffled = (
        f"{one.perplexity:.1f}"
        for one in (likelihoods.generated, likelihoods.natural, likelihoods.shuffled)
    )
    if beyond.value < 0:
        return [
            f"The model finds them easier than natural proteins: pseudo-perplexity {generated}, "
            f"not {natural}."
        ]
    place = likelihoods.place
    if place is None:
        where = "it hardly tells these two apart"
    else:
        where = "no better than shuffled" if place >= 1 else f"{place:.0%} of the way to shuffled"
    return [
        f"The model finds them unlikely: pseudo-perplexity {generated}, where natural proteins "
        f"have {natural} and shuffled ones {shuffled} ({where})."
    ]


def _differ(some: int, of: int, others: int, of_others: int) -> bool:
    """Whether two shares differ by three standard errors, with one more of each kind."""
    share = (some + others + 1) / (of + of_others + 2)
    error = math.sqrt(share * (1 - share) * (1 / of + 1 / max(of_others, 1)))
    usual = others / of_others if of_others else 0.0
    return abs(some / of - usual) > _ERRORS * error


def _of(some: int, count: int) -> str:
    return f"{some:,} of {count:,}"
