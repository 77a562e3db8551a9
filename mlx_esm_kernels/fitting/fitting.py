"""Fitting a head to labelled proteins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from ..data.labelled import Labelled
from ..data.splitting import PARTS, Parts
from ..inference.requirements import Long
from ..models.esm1 import ESM1
from ..system.errors import DataError
from ..system.interrupt import StopOnSignal
from .adapting import AdaptedPredictor
from .features import FeatureMaker, FrozenFeatures, make_features
from .head import Head, HeadSpec, Prediction, as_prediction
from .optimising import History, Pace, in_batches, optimise

Ints = npt.NDArray[np.int64]
# Targets of a batch: proteins, or residues of whole proteins.
BATCH = {"protein": 64, "residue": 2048}


@dataclass(frozen=True)
class Fitted:
    """A head that was fitted, and what it says of the proteins that it was fitted to.

    Attributes:
        head, spec: the head.
        history: its training.
        prediction: of every target (E,).
        adapted: the training of head and model together; None: there was none.
    """

    head: Head
    spec: HeadSpec
    history: History
    prediction: Prediction
    adapted: History | None = None


class FrozenPredictor:
    """A head on features that do not change."""

    def __init__(self, head: Head, features: FrozenFeatures, batch: int) -> None:
        self._head = head
        self._features, self._batch = features, batch

    @property
    def trained(self) -> nn.Module:
        return self._head

    def groups(self, places: Ints) -> Iterator[Ints]:
        return in_batches(places, self._features.counts[places], self._batch)

    def outputs(self, places: Ints) -> mx.array:
        outputs: mx.array = self._head(mx.array(self._features.of(places)))
        return outputs


def fit_head(
    model: ESM1,
    labelled: Labelled,
    parts: Parts,
    *,
    layers: Sequence[int] = (-1,),
    long: Long = "error",
    hidden: int | None = None,
    wild_type: str = "",
    pace: Pace | None = None,
    adapt: Callable[[ESM1], object] | None = None,
    adapt_pace: Pace | None = None,
    stop: StopOnSignal | None = None,
    on_embedded: Callable[[int], object] = lambda residues: None,
    on_epoch: Callable[[History], object] = lambda history: None,
) -> Fitted:
    """Fit a head to the embeddings of a model, which stays as it is but for `adapt`.

    Args:
        model: of `load_model`.
        labelled: the proteins and their targets.
        parts: (N,) of `split_by_hash` or `split_by_column`.
        layers, long: see `Embedder`.
        hidden, wild_type: see `HeadSpec`.
        pace: how to train.
        adapt: freezes a model but for what is to train in it (a low-rank product put beside its
            layers, say); that is trained together with the head, after the head alone. The model
            is another one then, which the caller has to keep.
        adapt_pace: how to train both; None: at a tenth of the rate.
        stop: see `optimise`.
        on_embedded: called with a number of residues whenever that many more are embedded.
        on_epoch: see `optimise`.

    Raises:
        UserError: a protein is too long, the training part has nothing to learn, the model gives
            NaN, or the loss does.
    """
    pace, stop = pace or Pace(), stop or StopOnSignal()
    require_something_to_learn(labelled, parts)
    maker = FeatureMaker(model, layers=layers, level=labelled.level, long=long, wild_type=wild_type)
    maker.require(labelled.proteins)
    spec = _spec(labelled, parts, maker, long, hidden, wild_type)
    features = make_features(maker, labelled.proteins, on_embedded)
    train, valid = (np.flatnonzero(parts == PARTS.index(name)) for name in ("train", "valid"))
    head = new_head(spec, features, train, pace.seed)
    predictor = FrozenPredictor(head, features, BATCH[labelled.level])
    given = (labelled, train, valid, spec)
    adapted = None
    with stop:
        history = optimise(predictor, *given, pace, stop, on_epoch)
        if adapt is not None and stop.received is None:
            slower = adapt_pace or replace(pace, learning_rate=pace.learning_rate / 10)
            adapt(model)
            both = AdaptedPredictor(head, spec, model, labelled.proteins)
            adapted = optimise(both, *given, slower, stop, on_epoch)
            # Through the model as `predict` runs it.
            features = make_features(maker, labelled.proteins, on_embedded)
            predictor = FrozenPredictor(head, features, BATCH[labelled.level])
    outputs = map(predictor.outputs, predictor.groups(np.arange(len(labelled))))
    found = np.concatenate([np.array(some) for some in outputs])
    return Fitted(head, spec, history, as_prediction(found, spec), adapted)


def _spec(
    labelled: Labelled,
    parts: Parts,
    maker: FeatureMaker,
    long: Long,
    hidden: int | None,
    wild_type: str,
) -> HeadSpec:
    mean, scale = _mean_and_scale(labelled, parts)
    changes = (0, 0)
    if wild_type:
        counts = maker.changes(labelled.proteins)[parts == PARTS.index("train")]
        changes = int(counts.min()), int(counts.max())
    return HeadSpec(
        labelled.task,
        labelled.level,
        labelled.classes,
        maker.layers,
        long,
        maker.inputs,
        hidden,
        wild_type,
        changes,
        mean,
        scale,
    )


def new_head(spec: HeadSpec, features: FrozenFeatures, train: Ints, seed: int) -> Head:
    """A head that standardises by the training part."""
    mx.random.seed(seed)
    head = Head(spec)
    mean, scale = features.mean_and_scale(train)
    head.feature_mean, head.feature_scale = mx.array(mean), mx.array(scale)
    return head


def known_targets(labelled: Labelled, parts: Parts) -> dict[str, Ints]:
    """By part, the places in (E,) of the targets that are known."""
    of_target = np.repeat(parts, np.diff(labelled.offsets))
    known = ~np.isnan(labelled.targets)
    return {name: np.flatnonzero(known & (of_target == place)) for place, name in enumerate(PARTS)}


def require_something_to_learn(labelled: Labelled, parts: Parts) -> None:
    """Refuse parts without a target, and a training part whose targets are all the same."""
    known = known_targets(labelled, parts)
    for name in ("train", "valid"):
        if not len(known[name]):
            raise DataError(f"The part {name} has no known target; give more proteins.")
    targets = labelled.targets[known["train"]]
    if targets.min() == targets.max():
        raise DataError("All targets of the part train are the same; there is nothing to learn.")


def _mean_and_scale(labelled: Labelled, parts: Parts) -> tuple[float, float]:
    """Of the targets of the training part; 0 and 1 of classes."""
    if labelled.classes:
        return 0.0, 1.0
    targets = labelled.targets[known_targets(labelled, parts)["train"]]
    return float(targets.mean()), float(targets.std())
