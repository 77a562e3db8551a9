"""How good a masked language model is on given proteins: figures, and what they are made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..data.alphabet import STANDARD_RESIDUES
from ..data.baselines import BaselineCounts
from ..data.floor import FLOOR, floor_answers
from ..data.proteins import Proteins
from ..data.residue_classes import RESIDUE_CLASSES
from ..data.residues import as_text, listed, without_stop
from ..data.synthetic import SyntheticFamilies
from ..data.targets import Answers, Targets, draw_targets
from ..models.esm1 import ESM1
from ..system.errors import UserError
from .clustered import Mean, clustered_mean
from .measuring import Measured, measure
from .planted_contacts import PlantedPrecision
from .requirements import LONGS, Long

MODEL = "this model"
# The last residue count of each bin but the last.
LENGTH_BINS = (50, 100, 200, 400, 800)
NEAR_AN_END = 10


@dataclass(frozen=True)
class Score:
    """How well some targets were foretold.

    Attributes:
        nats: mean of -ln p(true residue).
        accuracy: share of the targets of which the likeliest residue is the true one.
    """

    nats: Mean
    accuracy: Mean

    @property
    def perplexity(self) -> float:
        """exp(nats); inf from 700 nats."""
        return math.exp(self.nats.value) if self.nats.value < 700 else math.inf

    @property
    def perplexity_error(self) -> float | None:
        """Its standard error, to first order."""
        return None if self.nats.error is None else self.perplexity * self.nats.error


@dataclass(frozen=True)
class Part:
    """Some of the targets.

    Attributes:
        name: what they have in common.
        num_targets, num_proteins: how many there are, of how many proteins.
        scores: of the model (`MODEL`), and of each baseline by its name.
    """

    name: str
    num_targets: int
    num_proteins: int
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on given proteins.

    Attributes:
        whole: all targets.
        draws: masked copies of each protein.
        differences: mean of the model's nats less a baseline's on the same targets, by the name of
            the baseline; below 0 the model is better.
        by_length, by_position, by_class, by_residue: the targets by length of the protein, by
            where they are in it, and by what they are; parts without targets are left out.
        confusion: (20, 20) float64: row a has the mean probability of each residue where a is the
            true one, in the order of `STANDARD_RESIDUES`; NaN where a is never a target.
        planted: on synthetic families, how well the pairs that vary together are found.
    """

    whole: Part
    draws: int
    differences: Mapping[str, Mean]
    by_length: tuple[Part, ...]
    by_position: tuple[Part, ...]
    by_class: tuple[Part, ...]
    by_residue: tuple[Part, ...]
    confusion: npt.NDArray[np.float64] = field(repr=False)
    planted: PlantedPrecision | None = None

    @property
    def perplexity(self) -> float:
        """Of the model, over all targets."""
        return self.whole.scores[MODEL].perplexity

    @property
    def perplexity_error(self) -> float | None:
        """Its standard error, clustered by protein; None for one protein."""
        return self.whole.scores[MODEL].perplexity_error

    @property
    def accuracy(self) -> float:
        """Share of all targets whose most likely residue is the true one."""
        return self.whole.scores[MODEL].accuracy.value

    def with_planted(self, planted: PlantedPrecision) -> Evaluation:
        """The same, and how well planted pairs are found."""
        return replace(self, planted=planted)


def evaluate(
    model: ESM1,
    proteins: Proteins | Iterable[str],
    *,
    draws: int | None = None,
    long: Long = "error",
    baseline_from: Proteins | Iterable[str] | None = None,
    on_step: Callable[[int], object] = lambda measured: None,
) -> Evaluation:
    """Measure a model on masked residues, beside residue frequencies and a model of neighbours.

    15 % of the residues are masked at a time, by a draw that is the same for any model. Of proteins
    that are the same one is measured.

    Args:
        model: of `load_model`.
        proteins: one letter per residue, each; or `Proteins` in the alphabet of the model.
        draws: how many times over, with other masks; None: as gives 10,000 targets, from 1 to 6.
        long: what becomes of proteins with more than `model.config.trained_residues` residues.
            "error": they are refused where the position table ends there, and taken whole where
            there is none. "window": windows that overlap by a quarter or more, each target taken
            from the one in which it is farther from an end.
        baseline_from: what the baselines are counted on; None: `proteins`. A protein's own counts
            are left out in any case.
        on_step: called with a number of targets whenever that many more are measured.

    Raises:
        ValueError: there are no proteins, none has one of the 20 amino acids, one is too long; the
            model has no language head, or gives NaN.
    """
    if not isinstance(model, ESM1):
        raise TypeError(
            f"[evaluate] expected a model, of load_model or ESM1; got a {type(model).__name__}."
        )
    if long not in LONGS:
        raise UserError(f"[evaluate] long must be one of {LONGS}; got {long!r}.")
    if draws is not None and draws < 1:
        raise UserError(f"[evaluate] draws must be at least 1; got {draws}.")
    given = _as_proteins(proteins, model, "[evaluate] proteins")
    counted = given
    if baseline_from is not None:
        counted = _as_proteins(baseline_from, model, "[evaluate] baseline_from")
    targets = draw_targets(given, np.arange(len(given)), model.alphabet, draws)
    measured = measure({MODEL: model}, targets, long=long, on_step=on_step)
    counts = BaselineCounts(counted, np.arange(len(counted)), model.alphabet)
    return summarised(measured, MODEL, yardsticks(measured.targets, counts))


def yardsticks(
    targets: Targets, counts: BaselineCounts, families: SyntheticFamilies | None = None
) -> dict[str, Answers]:
    """What the baselines say of the targets and, of synthetic families, the entropy floor."""
    floor = {} if families is None else {FLOOR: floor_answers(families, targets)}
    return {**counts.answers(targets), **floor}


def summarised(measured: Measured, name: str, others: Mapping[str, Answers]) -> Evaluation:
    """The figures of one of the models.

    Args:
        measured: answers of models; at least one target.
        name: of the model.
        others: answers of `yardsticks` to the same targets.
    """
    targets = measured.targets
    owners, positions, lengths = targets.owners, targets.positions, targets.lengths
    answers = {MODEL: measured.answers[name], **others}

    def parts(kinds: Iterable[tuple[str, npt.NDArray[np.bool_]]]) -> tuple[Part, ...]:
        return tuple(_part(kind, chosen, owners, answers) for kind, chosen in kinds if chosen.any())

    near_start = positions < NEAR_AN_END
    near_end = ~near_start & (positions >= lengths - NEAR_AN_END)
    bins = np.searchsorted(LENGTH_BINS, lengths)
    residues = np.array(list(STANDARD_RESIDUES))[targets.residues]
    return Evaluation(
        _part("all", np.ones(len(targets), dtype=bool), owners, answers),
        targets.draws,
        {other: difference(measured.answers[name], a, owners) for other, a in others.items()},
        parts((label, bins == number) for number, label in enumerate(_length_labels())),
        parts(
            [
                (f"first {NEAR_AN_END}", near_start),
                ("between", ~near_start & ~near_end),
                (f"last {NEAR_AN_END}", near_end),
            ]
        ),
        parts((kind, np.isin(residues, list(some))) for kind, some in RESIDUE_CLASSES.items()),
        parts((residue, residues == residue) for residue in STANDARD_RESIDUES),
        measured.confusion[name],
    )


def difference(a: Answers, b: Answers, owners: npt.NDArray[np.int64]) -> Mean:
    """Mean nats of `a` less those of `b`, target by target; below 0 `a` is better."""
    return clustered_mean(a.nats - b.nats, owners)


def _part(
    name: str,
    chosen: npt.NDArray[np.bool_],
    owners: npt.NDArray[np.int64],
    answers: Mapping[str, Answers],
) -> Part:
    own = owners[chosen]
    scores = {
        who: Score(
            clustered_mean(some.nats[chosen], own),
            clustered_mean(some.is_right[chosen].astype(np.float64), own),
        )
        for who, some in answers.items()
    }
    return Part(name, len(own), len(np.unique(own)), scores)


def _length_labels() -> list[str]:
    starts = [1, *(end + 1 for end in LENGTH_BINS)]
    labels = [f"{start} to {end}" for start, end in zip(starts, LENGTH_BINS, strict=False)]
    return [*labels, f"{starts[-1]} and more"]


def _as_proteins(given: Proteins | Iterable[str], model: ESM1, what: str) -> Proteins:
    if isinstance(given, Proteins):
        proteins = given
    else:
        texts = [
            without_stop(as_text(text, f"{what}, number {number}"))
            for number, text in enumerate(listed(given, what), start=1)
        ]
        proteins = Proteins.from_sequences(texts, model.alphabet)
    if not len(proteins):
        raise UserError(f"{what} must hold at least one; got none.")
    return proteins
