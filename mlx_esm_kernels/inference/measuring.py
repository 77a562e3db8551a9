"""Models at work on the same targets: what each says of every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.alphabet import STANDARD_RESIDUES
from ..data.targets import Answers, Targets
from ..models.esm1 import ESM1, require_language_head
from .likelihood import TOKENS_PER_PASS
from .masked_prediction import MaskedPredictor
from .requirements import Long, require_lengths

LONG_ADVICE = 'ask for windows (--long window, or long="window"), or leave it out'
_NUM_RESIDUES = len(STANDARD_RESIDUES)


@dataclass(frozen=True)
class Measured:
    """What models said of targets.

    Attributes:
        targets: those that were reached.
        answers: of each model, by its name.
        confusion: by model (20, 20) float64, in row a the mean probability of each residue where a
            is the true one; NaN where a is no target.
    """

    targets: Targets
    answers: Mapping[str, Answers]
    confusion: Mapping[str, npt.NDArray[np.float64]]


def require_measurable(model: ESM1, targets: Targets, long: Long) -> None:
    """Refuse a model without a language head, and proteins that are too long for it.

    Raises:
        UserError: so it is.
    """
    require_language_head(model.config)
    if long == "error":
        require_lengths(model, targets.proteins, LONG_ADVICE, targets.indices)


def measure(
    models: Mapping[str, ESM1],
    targets: Targets,
    *,
    long: Long = "error",
    tokens_per_pass: int = TOKENS_PER_PASS,
    on_step: Callable[[int], object] = lambda measured: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Measured:
    """Ask models for the same targets, some copies at a time, one model after the other.

    Args:
        models: by name.
        targets: what to ask for.
        long: what becomes of proteins that are too long; see `evaluate`.
        tokens_per_pass: about how many tokens go through a model at once. What comes out depends on
            it by rounding alone.
        on_step: called with a number of targets whenever all models are done with that many more.
        stopped: asked after each pass; True ends the work, and what was reached is returned.

    Raises:
        UserError: a model has no language head or gives NaN, or a protein is too long for it.
    """
    for model in models.values():
        require_measurable(model, targets, long)
    predictors = {
        name: MaskedPredictor(model, targets.alphabet, long, tokens_per_pass)
        for name, model in models.items()
    }
    answers: dict[str, list[Answers]] = {name: [] for name in models}
    sums = {name: np.zeros((_NUM_RESIDUES, _NUM_RESIDUES)) for name in models}
    done = 0
    for copies in _groups(targets, tokens_per_pass):
        own = slice(int(targets.offsets[copies.start]), int(targets.offsets[copies.stop]))
        residues = targets.residues[own]
        for name, predictor in predictors.items():
            found = predictor.log_probabilities(targets, copies)
            answers[name].append(Answers.of(found, residues))
            np.add.at(sums[name], residues, np.exp(found))
        done = copies.stop
        on_step(len(residues))
        if stopped():
            break
    reached = targets.first(done)
    counts = np.bincount(reached.residues, minlength=_NUM_RESIDUES)[:, None]
    return Measured(
        reached,
        {name: Answers.joined(parts) for name, parts in answers.items()},
        {
            name: np.divide(total, counts, out=np.full_like(total, np.nan), where=counts > 0)
            for name, total in sums.items()
        },
    )


def _groups(targets: Targets, tokens: int) -> Iterator[range]:
    """Copies in order, as many at a time as have about so many residues."""
    lengths = targets.proteins.lengths[targets.indices[targets.copies]].tolist()
    start, total = 0, 0
    for copy, length in enumerate(lengths):
        if copy > start and total + length > tokens:
            yield range(start, copy)
            start, total = copy, 0
        total += length
    yield range(start, len(lengths))
