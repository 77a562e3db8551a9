"""A head: what makes a prediction of the features of a protein, or of each of its residues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from ..data.labelled import Level, Task
from ..inference.requirements import Long
from ..models.layers import Linear, project

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeadSpec:
    """What a head takes and gives.

    Attributes:
        task, level, classes: see `Labelled`.
        layers: of the model, ascending; their embeddings side by side are the features; see
            `FeatureMaker`.
        long: see `Embedder`.
        inputs: F, the number of features.
        hidden: width of the layer between features and outputs; None: there is none.
        wild_type: the protein that all others are variants of; "": there is none.
        changes: the fewest and the most residues in which the training part differs from it.
        target_mean, target_scale: of a regression; the head's output is (target - mean) / scale.
    """

    task: Task
    level: Level
    classes: tuple[str, ...]
    layers: tuple[int, ...]
    long: Long
    inputs: int
    hidden: int | None = None
    wild_type: str = ""
    changes: tuple[int, int] = (0, 0)
    target_mean: float = 0.0
    target_scale: float = 1.0

    @property
    def outputs(self) -> int:
        """O: one, or one for each class."""
        return len(self.classes) or 1


class Head(nn.Module):
    """Features (E, F), standardised, to outputs (E, O): linear, or with a GELU layer between.

    What standardises is kept with the weights, and does not train. A new head gives 0 for any
    features: the mean, or all classes alike.

    Args:
        spec: its sizes.
    """

    def __init__(self, spec: HeadSpec) -> None:
        super().__init__()
        self.feature_mean = mx.zeros((spec.inputs,))
        self.feature_scale = mx.ones((spec.inputs,))
        if spec.hidden is not None:
            self.dense = Linear(spec.inputs, spec.hidden)
        self.out = Linear(spec.hidden or spec.inputs, spec.outputs)
        self.out.weight = mx.zeros_like(self.out.weight)
        self.freeze(keys=["feature_mean", "feature_scale"], recurse=False)

    def __call__(self, features: mx.array) -> mx.array:
        """(E, F) of any dtype -> (E, O) float32."""
        x = (features.astype(mx.float32) - self.feature_mean) / self.feature_scale
        if "dense" in self:
            x = project(self.dense, x, activation="gelu")
        return project(self.out, x)


@dataclass(frozen=True)
class Prediction:
    """What a head says of E targets.

    Attributes:
        values: (E,) float64, numbers in the unit of the targets, or indices of classes.
        probabilities: (E, K) float64 of each class; None of a regression.
    """

    values: Floats
    probabilities: Floats | None = None

    def __getitem__(self, key: Any) -> Prediction:
        of_classes = None if self.probabilities is None else self.probabilities[key]
        return Prediction(self.values[key], of_classes)


def as_prediction(outputs: npt.NDArray[np.float32], spec: HeadSpec) -> Prediction:
    """The prediction in outputs (E, O)."""
    wide = outputs.astype(np.float64)
    if not spec.classes:
        return Prediction(wide[:, 0] * spec.target_scale + spec.target_mean)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    return Prediction(probabilities.argmax(axis=1).astype(np.float64), probabilities)


def loss(outputs: mx.array, targets: mx.array, spec: HeadSpec) -> mx.array:
    """Mean over E of the squared error, in units of target_scale, or of the cross-entropy in nats.

    Args:
        outputs: (E, O) float32 of a head.
        targets: (E,) float32, as in `Labelled`; none is NaN.
        spec: of the head.
    """
    if not spec.classes:
        wanted = (targets - spec.target_mean) / spec.target_scale
        return mx.square(outputs[:, 0] - wanted).mean()
    at_target = mx.take_along_axis(outputs, targets.astype(mx.int32)[:, None], axis=-1)[:, 0]
    return (mx.logsumexp(outputs, axis=-1) - at_target).mean()
