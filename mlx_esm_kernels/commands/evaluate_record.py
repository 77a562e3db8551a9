"""An evaluation as plain data, for JSON and for a picture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..data.alphabet import STANDARD_RESIDUES
from ..data.masking import MASK_RATE
from ..data.residue_classes import RESIDUE_CLASSES
from ..inference.clustered import Mean
from ..inference.evaluation import MODEL, Evaluation, Part, Score, difference
from ..inference.measuring import Measured

_GROUPS = ("by_length", "by_position", "by_class", "by_residue")


def record(evaluations: Mapping[str, Evaluation], measured: Measured, kind: str) -> dict[str, Any]:
    """All figures, ready for json; `evaluations` are by the name of the model."""
    first = next(iter(evaluations.values()))
    whole = first.whole
    names = list(evaluations)
    owners = measured.targets.owners
    return {
        "proteins": whole.num_proteins,
        "kind": kind,
        "masked_residues": whole.num_targets,
        "draws": first.draws,
        "mask_rate": MASK_RATE,
        "residues": STANDARD_RESIDUES,
        "residue_classes": RESIDUE_CLASSES,
        "models": {name: _of_model(some) for name, some in evaluations.items()},
        "differences": [
            {
                "model": name,
                "less": other,
                "nats": _mean(difference(measured.answers[name], measured.answers[other], owners)),
            }
            for place, other in enumerate(names)
            for name in names[place + 1 :]
        ],
    }


def series(evaluations: Mapping[str, Evaluation], group: str) -> dict[str, Any]:
    """The perplexities of a group of parts, as a picture wants them.

    Returns:
        {"labels": names of the parts, "curves": {who: (perplexities, standard errors)}}, models by
        their names, then the baselines; an error that is not known is 0.
    """
    parts: Sequence[Part] = getattr(next(iter(evaluations.values())), group)
    curves = {
        name: [part.scores[MODEL] for part in getattr(evaluation, group)]
        for name, evaluation in evaluations.items()
    }
    for other in parts[0].scores:
        if other != MODEL:
            curves[other] = [part.scores[other] for part in parts]
    return {
        "labels": [part.name for part in parts],
        "curves": {
            who: ([s.perplexity for s in scores], [s.perplexity_error or 0.0 for s in scores])
            for who, scores in curves.items()
        },
    }


def _of_model(evaluation: Evaluation) -> dict[str, Any]:
    planted = evaluation.planted
    confusion = [
        [None if math.isnan(chance) else chance for chance in row]
        for row in evaluation.confusion.tolist()
    ]
    return {
        "all": _part(evaluation.whole),
        "differences": {other: _mean(mean) for other, mean in evaluation.differences.items()},
        **{group: [_part(part) for part in getattr(evaluation, group)] for group in _GROUPS},
        "confusion": confusion,
        "planted_pairs": None if planted is None else dataclasses.asdict(planted),
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "masked_residues": part.num_targets,
        "proteins": part.num_proteins,
        "scores": {who: _score(score) for who, score in part.scores.items()},
    }


def _score(score: Score) -> dict[str, Any]:
    known = math.isfinite(score.perplexity)
    return {
        "nats": _mean(score.nats),
        "perplexity": score.perplexity if known else None,
        "perplexity_error": score.perplexity_error if known else None,
        "accuracy": _mean(score.accuracy),
    }


def _mean(mean: Mean) -> dict[str, float | None]:
    return {"value": mean.value, "error": mean.error}
