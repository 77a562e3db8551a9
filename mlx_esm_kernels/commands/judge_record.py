"""What is judged as plain data, for JSON and for a picture."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..data.alphabet import STANDARD_RESIDUES
from ..data.composition import ENTROPY_BINS, ProteinCounts
from ..data.low_complexity import TRIGGER_BITS, WINDOW
from ..data.natural_range import Figure
from ..data.nearest import CANDIDATES, WORD
from ..data.proteins import Proteins
from ..inference.naturalness import (
    LEAST_COVERAGE,
    POSITIONS,
    Kinship,
    Likelihood,
    Likelihoods,
    Naturalness,
)
from .judge_text import excess, length_quantiles
from .judge_words import ALIKE, RELATED, TWIN, findings


def record(
    found: Naturalness, generated: Proteins, natural: Proteins, model: str | None
) -> dict[str, Any]:
    """All figures and what they were made with, ready for json."""
    comparison = found.comparison
    return {
        "generated": _set(found.generated),
        "natural": {**_set(found.natural), "all_proteins": found.num_natural},
        "seed": found.seed,
        "natural_sets": {"proteins": comparison.size, "draws": comparison.draws, "range": 0.95},
        "figures": {name: _figure(one) for name, one in comparison.figures.items()},
        "residues": {
            letter: {**_figure(one), "times": excess(one)}
            for letter, one in zip(STANDARD_RESIDUES, comparison.residues, strict=True)
        },
        "low_complexity": {"window": WINDOW, "bits": TRIGGER_BITS},
        "alignment": {
            "word": WORD,
            "candidates": CANDIDATES,
            "matrix": "BLOSUM62",
            "gap_open": 11,
            "gap_extend": 1,
            "least_coverage": LEAST_COVERAGE,
        },
        "copies_of_natural": found.copies,
        "nearest_natural": {
            "generated": _kinship(found.to_natural, natural),
            "natural": _kinship(found.natural_to_natural, natural),
        },
        "nearest_in_own_set": {
            "generated": _kinship(found.twins, generated),
            "natural": _kinship(found.natural_twins, natural),
        },
        "model": None if model is None else _model(found.likelihoods, model),
        "findings": findings(found),
    }


def distributions(found: Naturalness) -> dict[str, Any]:
    """What a picture shows of each kind of proteins, see `draw_naturalness`."""
    entropies = {
        "generated": found.generated.entropies.sum(axis=0).tolist(),
        "natural": found.natural.entropies.sum(axis=0).tolist(),
    }
    identities = {"generated": found.to_natural.identities}
    if found.natural_to_natural is not None:
        identities["natural"] = found.natural_to_natural.identities
    perplexities = {}
    if found.likelihoods is not None:
        perplexities = {
            what: getattr(found.likelihoods, what).by_protein
            for what in ("generated", "natural", "shuffled")
        }
    return {
        "lengths": {
            "generated": found.generated.lengths.tolist(),
            "natural": found.natural.lengths.tolist(),
        },
        "entropies": entropies,
        "entropy_bins": ENTROPY_BINS.tolist(),
        "entropy_limit": TRIGGER_BITS,
        "identities": identities,
        "perplexities": perplexities,
    }


def _set(counts: ProteinCounts) -> dict[str, Any]:
    return {
        "proteins": len(counts),
        "residues": int(counts.residues.sum()),
        "other_letters": int(counts.lengths.sum() - counts.residues.sum()),
        "length_quantiles": dict(
            zip(("0.05", "0.25", "0.5", "0.75", "0.95"), length_quantiles(counts), strict=True)
        ),
        "windows": int(counts.entropies.sum()),
    }


def _figure(figure: Figure) -> dict[str, Any]:
    natural = None if figure.natural is None else dataclasses.asdict(figure.natural)
    return {"value": figure.value, "natural": natural}


def _kinship(kinship: Kinship | None, among: Proteins) -> dict[str, Any] | None:
    if kinship is None:
        return None
    return {
        "proteins": len(kinship.relatives),
        "median_identity": kinship.median_identity,
        "median_coverage": kinship.median_coverage,
        "above": {str(limit): kinship.above(limit) for limit in (RELATED, ALIKE, TWIN)},
        "relatives": [
            None
            if one is None
            else {
                "name": among.names[one.place],
                "identity": one.identity,
                "coverage": one.coverage,
            }
            for one in kinship.relatives
        ],
    }


def _model(likelihoods: Likelihoods | None, model: str) -> dict[str, Any] | None:
    if likelihoods is None:
        return None
    groups = {what: getattr(likelihoods, what) for what in ("generated", "natural", "shuffled")}
    return {
        "name": model,
        "residues_of_each": POSITIONS,
        **{what: _likelihood(some) for what, some in groups.items()},
        "place": likelihoods.place,
        "nats_of_shuffling": dataclasses.asdict(likelihoods.shuffling),
        "nats_beyond_natural": dataclasses.asdict(likelihoods.beyond_natural),
        "nats_before_shuffled": dataclasses.asdict(likelihoods.before_shuffled),
    }


def _likelihood(some: Likelihood) -> dict[str, Any]:
    return {
        "nats": dataclasses.asdict(some.nats),
        "pseudo_perplexity": some.perplexity if np.isfinite(some.perplexity) else None,
        "by_protein": some.by_protein,
    }
