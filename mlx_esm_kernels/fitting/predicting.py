"""Predictions of a head for any proteins, and how a table shows them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import mlx.core as mx
import numpy as np

from ..data.csv_table import CsvTable
from ..data.proteins import Proteins
from ..models.esm1 import ESM1
from .features import FeatureMaker
from .head import Head, HeadSpec, Prediction, as_prediction


def predict(
    head: Head,
    spec: HeadSpec,
    model: ESM1,
    proteins: Proteins,
    on_step: Callable[[int], object] = lambda residues: None,
) -> Iterator[Prediction]:
    """What a head says of each protein, in order: one target, or one a residue.

    Args:
        head, spec: the head.
        model: the model that it was fitted to.
        proteins: any number of them; they are embedded as they are needed.
        on_step: called with a number of residues whenever that many more are done.

    Raises:
        UserError: a protein is too long (at once), or the model gives NaN.
    """
    maker = FeatureMaker(
        model,
        layers=spec.layers,
        level=spec.level,
        long=spec.long,
        wild_type=spec.wild_type,
    )
    maker.require(proteins)
    if spec.wild_type:
        _warn_of_other_changes(maker, spec, proteins)
    return _stream(head, spec, maker, proteins, on_step)


class PredictionWarning(UserWarning):
    """Some predictions are of another kind of protein than the head was fitted to."""


def _warn_of_other_changes(maker: FeatureMaker, spec: HeadSpec, proteins: Proteins) -> None:
    """Say where a variant has fewer or more changes than any that was learned from."""
    counts = maker.changes(proteins)
    fewest, most = spec.changes
    others = np.flatnonzero((counts < fewest) | (counts > most))
    if len(others):
        span = f"{most}" if fewest == most else f"{fewest} to {most}"
        first = f"protein {others[0] + 1} ({proteins.names[int(others[0])]!r})"
        warnings.warn(
            f"{len(others):,} of {len(proteins):,} variants, such as {first}, differ from the wild "
            f"type in fewer or more residues than those that the head was fitted to ({span}): "
            f"these predictions are a guess.",
            PredictionWarning,
            stacklevel=3,
        )


def _stream(
    head: Head,
    spec: HeadSpec,
    maker: FeatureMaker,
    proteins: Proteins,
    on_step: Callable[[int], object],
) -> Iterator[Prediction]:
    for place, rows in maker.stream(proteins, range(len(proteins))):
        yield as_prediction(np.array(head(mx.array(rows))), spec)
        on_step(int(proteins.lengths[place]))


def prediction_columns(
    table: CsvTable,
    spec: HeadSpec,
    predictions: Mapping[int, Prediction],
    *,
    probabilities: bool,
) -> dict[str, Sequence[str]]:
    """The columns `prediction`, and `probability_CLASS` where they are wanted.

    Of residues a cell holds one character each, or numbers with spaces between them.

    Args:
        table: whose rows and signs of decimals they have.
        spec: of the head.
        predictions: by row of the table, from 0; cells of other rows stay empty.
        probabilities: whether a classification has them too.
    """
    names = prediction_names(spec.classes, probabilities=probabilities)
    columns = {name: [""] * len(table.rows) for name in names}
    for row, prediction in predictions.items():
        values = prediction.values
        if not spec.classes:
            columns["prediction"][row] = _numbers(table, values)
            continue
        columns["prediction"][row] = "".join(spec.classes[int(value)] for value in values)
        if probabilities and prediction.probabilities is not None:
            for name, of_class in zip(names[1:], prediction.probabilities.T, strict=True):
                columns[name][row] = _numbers(table, of_class.round(4))
    return dict(columns)


def prediction_names(classes: Sequence[str], *, probabilities: bool) -> list[str]:
    """What the columns are called."""
    return ["prediction", *(f"probability_{name}" for name in classes if probabilities)]


def _numbers(table: CsvTable, values: Sequence[float] | np.ndarray) -> str:
    return " ".join(table.number_as_text(float(value)) for value in values)
