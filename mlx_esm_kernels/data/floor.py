"""The entropy floor at targets of synthetic proteins: the best that any model could do there."""

from __future__ import annotations

import numpy as np

from .masking import TO_MEASURE
from .synthetic import NUM_RESIDUES, SyntheticFamilies, posterior
from .targets import Answers, Targets, symbols

_COPIES_AT_ONCE = 4096


FLOOR = "entropy floor"


def floor_answers(families: SyntheticFamilies, targets: Targets) -> Answers:
    """The best possible prediction of each target.

    Args:
        families: what the proteins were drawn from.
        targets: of whole proteins of those families.
    """
    nats, is_right = np.empty(len(targets)), np.empty(len(targets), dtype=bool)
    symbol_of = symbols(targets.alphabet)
    lengths = targets.proteins.lengths[targets.indices[targets.copies]]
    for length in np.unique(lengths).tolist():
        of_length = np.flatnonzero(lengths == length)
        for first in range(0, len(of_length), _COPIES_AT_ONCE):
            some = of_length[first : first + _COPIES_AT_ONCE].tolist()
            observed = np.stack([symbol_of[targets.ids(copy)] for copy in some])
            places = np.concatenate([np.r_[targets.of_copy(copy)] for copy in some])
            counts = [targets.of_copy(copy).stop - targets.of_copy(copy).start for copy in some]
            rows = np.repeat(np.arange(len(some)), counts)
            columns = targets.positions[places]
            observed[rows, columns] = NUM_RESIDUES  # <mask>
            answers = posterior(families.families, observed, TO_MEASURE)
            with np.errstate(divide="ignore"):  # what is impossible
                log_answers = np.log(answers[rows, columns])
            given = Answers.of(log_answers, targets.residues[places])
            nats[places], is_right[places] = given.nats, given.is_right
    return Answers(nats, is_right)
