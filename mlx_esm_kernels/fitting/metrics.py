"""How good predictions are, by the usual measures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..inference.variants import spearman

Floats = npt.NDArray[np.float64]

# Of each task, the first being what is compared; higher is better but for RMSE.
MEASURES = {
    "regression": ("Spearman", "R2", "RMSE"),
    "classification": ("macro F1", "accuracy", "balanced accuracy", "MCC"),
}


def regression_metrics(targets: Floats, values: Floats) -> dict[str, float]:
    """Of predictions (E,): the rank correlation, the share of the variance, the typical error.

    NaN where it is undefined: the rank correlation of a constant, R2 of fewer than two targets.
    """
    from sklearn.metrics import r2_score, root_mean_squared_error

    two = len(targets) > 1 and targets.min() < targets.max()
    return {
        "Spearman": spearman(values, targets),
        "R2": float(r2_score(targets, values)) if two else math.nan,
        "RMSE": float(root_mean_squared_error(targets, values)),
    }


def classification_metrics(targets: Floats, values: Floats) -> dict[str, float]:
    """Of predicted classes (E,); means over classes are over those that are among the targets."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, recall_score

    present = np.unique(targets)
    means = {"labels": present, "average": "macro", "zero_division": 0.0}
    return {
        "macro F1": float(f1_score(targets, values, **means)),
        "accuracy": float(accuracy_score(targets, values)),
        "balanced accuracy": float(recall_score(targets, values, **means)),
        "MCC": float(matthews_corrcoef(targets, values)),
    }


def metrics(targets: Floats, values: Floats, classes: Sequence[str]) -> dict[str, float]:
    """The measures of either task."""
    return (classification_metrics if classes else regression_metrics)(targets, values)


def confusion(targets: Floats, values: Floats, num_classes: int) -> npt.NDArray[np.int64]:
    """(K, K): how many targets of class i were called class j."""
    from sklearn.metrics import confusion_matrix

    counts: npt.NDArray[np.int64] = confusion_matrix(targets, values, labels=range(num_classes))
    return counts


def without_nan(found: Mapping[str, float]) -> dict[str, float | None]:
    """Measures for json, which has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in found.items()}
