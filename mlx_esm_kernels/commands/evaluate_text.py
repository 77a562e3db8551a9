"""Evaluations as lines of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..data.alphabet import STANDARD_RESIDUES
from ..data.baselines import FREQUENCIES, NEIGHBOURS
from ..data.floor import FLOOR
from ..data.masking import MASK_RATE
from ..data.residue_classes import RESIDUE_CLASSES
from ..inference.clustered import Mean
from ..inference.evaluation import MODEL, Evaluation, Part, Score, difference
from ..inference.measuring import Measured
from .table import table

# Models with a column of their own in the tables of parts; what is more is in the JSON.
_MOST_COLUMNS = 3
_SHORT = {FREQUENCIES: "freq.", NEIGHBOURS: "neighb.", FLOOR: "floor"}
_FEW_PROTEINS = 20


def lines(evaluations: Mapping[str, Evaluation], measured: Measured, kind: str) -> list[str]:
    """What a person reads; `evaluations` are by the name of the model."""
    first = next(iter(evaluations.values()))
    whole = first.whole
    proteins = kind if whole.num_proteins != 1 else kind.removesuffix("s")
    draws = "1 draw" if first.draws == 1 else f"{first.draws} draws"
    head = [
        f"🌳 {whole.num_targets:,} masked residues of {whole.num_proteins:,} {proteins} "
        f"({draws} of {MASK_RATE:.0%})"
    ]
    named = _named(evaluations)
    body = _overall(named, evaluations, measured)
    shown = dict(list(zip(named, evaluations.values(), strict=True))[:_MOST_COLUMNS])
    for title, group in (("length", "by_length"), ("place", "by_position")):
        parts = getattr(first, group)
        if len(parts) > 1:
            body += _parts(title, group, shown)
    body += _parts("class", "by_class", shown, RESIDUE_CLASSES)
    body += _residues(shown, first)
    if len(evaluations) > _MOST_COLUMNS:
        rest = len(evaluations) - _MOST_COLUMNS
        body += ["", f"the other {'model' if rest == 1 else f'{rest} models'}: see --json"]
    body += _planted(named, evaluations)
    return [*head, *(f"   {line}".rstrip() for line in body)]


def _named(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """What the tables call the models: letters, where there are several."""
    if len(evaluations) == 1:
        return [MODEL]
    return [f"model {number}" for number in range(1, len(evaluations) + 1)]


def _overall(
    named: Sequence[str], evaluations: Mapping[str, Evaluation], measured: Measured
) -> list[str]:
    """A line for each model and baseline."""
    models = list(evaluations)
    first = evaluations[models[0]]
    owners = measured.targets.owners
    rows = [["", "perplexity", "accuracy", f"nats less {named[0]}'s"]]
    for name, model in zip(named, models, strict=True):
        less = (
            ""
            if model == models[0]
            else _signed(difference(measured.answers[model], measured.answers[models[0]], owners))
        )
        rows.append([name, *_score(evaluations[model].whole.scores[MODEL]), less])
    for other, mean in first.differences.items():
        opposite = Mean(-mean.value, mean.error)
        rows.append([other, *_score(first.whole.scores[other]), _signed(opposite)])
    found = table(rows)
    if len(models) > 1:
        found = [*(f"{a}: {_brief(b)}" for a, b in zip(named, models, strict=True)), "", *found]
    count = first.whole.num_proteins
    if count == 1:
        found += ["one protein tells no standard error"]
    elif count < _FEW_PROTEINS:
        found += [f"{count} proteins tell standard errors (±) only roughly"]
    return found


def _parts(
    title: str,
    group: str,
    shown: Mapping[str, Evaluation],
    members: Mapping[str, str] | None = None,
) -> list[str]:
    """A line for each part of the targets."""
    rows = [[title, "residues", *_columns(shown)]]
    for place, part in enumerate(getattr(next(iter(shown.values())), group)):
        name = part.name if members is None else f"{part.name} {members[part.name]}"
        rows.append([name, f"{part.num_targets:,}", *_perplexities(shown, group, place)])
    return ["", *table(rows)]


def _residues(shown: Mapping[str, Evaluation], first: Evaluation) -> list[str]:
    """A line for each residue, with what the first model takes it for."""
    heading = ["residue", "share", *_columns(shown), "right", "else"]
    rows = [heading]
    for place, part in enumerate(first.by_residue):
        share = f"{part.num_targets / first.whole.num_targets:.1%}"
        right = f"{part.scores[MODEL].accuracy.value:.0%}"
        figures = _perplexities(shown, "by_residue", place)
        rows.append([part.name, share, *figures, right, _mistaken(first, part)])
    return ["", *table(rows)]


def _mistaken(evaluation: Evaluation, part: Part) -> str:
    """The three other residues that have most of the probability."""
    true = STANDARD_RESIDUES.index(part.name)
    chances = evaluation.confusion[true].copy()
    chances[true] = -1
    return "".join(STANDARD_RESIDUES[i] for i in np.argsort(-chances, kind="stable")[:3])


def _columns(shown: Mapping[str, Evaluation]) -> list[str]:
    others = next(iter(shown.values())).differences
    return [*shown, *(_SHORT[other] for other in others)]


def _perplexities(shown: Mapping[str, Evaluation], group: str, place: int) -> list[str]:
    """Of the models, the only one with its error, and of the baselines."""
    parts = [getattr(evaluation, group)[place] for evaluation in shown.values()]
    models = [part.scores[MODEL] for part in parts]
    cells = [_perplexity(score, error=len(models) == 1) for score in models]
    return [*cells, *(_perplexity(s) for who, s in parts[0].scores.items() if who != MODEL)]


def _planted(named: Sequence[str], evaluations: Mapping[str, Evaluation]) -> list[str]:
    """How well the planted pairs are found."""
    found = [(n, e.planted) for n, e in zip(named, evaluations.values(), strict=True) if e.planted]
    if not found:
        return []
    _, any_of = found[0]
    rows = [["planted pairs among", "L/8 surest", "L/4 surest", "by its"]]
    for name, planted in found:
        rows.append([name, f"{planted.at_half:.0%}", f"{planted.at_all:.0%}", planted.measure])
    chance, at_distance = f"{any_of.chance:.0%}", f"{any_of.chance_at_distance:.0%}"
    rows.append(["at random", chance, chance, ""])
    rows.append(["at random, i and i + 4", at_distance, at_distance, ""])
    return ["", *table(rows), f"(mean of {any_of.num_proteins} proteins)"]


def _score(score: Score) -> list[str]:
    return [_perplexity(score, error=True), f"{score.accuracy.value:.1%}"]


def _perplexity(score: Score, *, error: bool = False) -> str:
    value = score.perplexity
    if value >= 1e5:
        return f"{value:.1e}"
    if not error or score.perplexity_error is None:
        return f"{value:.2f}"
    return f"{value:.2f} ± {score.perplexity_error:.2f}"


def _signed(mean: Mean) -> str:
    return f"{mean.value:+.3f}" + ("" if mean.error is None else f" ± {mean.error:.3f}")


def _brief(name: str) -> str:
    """The end of a path, which tells more than its start."""
    return name if len(name) <= 60 else f"...{name[-57:]}"
