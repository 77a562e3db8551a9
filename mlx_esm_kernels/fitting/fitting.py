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
        frozen: what the head alone said of every target before that; None where there was none.
    """

    head: Head
    spec: HeadSpec
    history: History
    prediction: Prediction
    adapted: History | None = None
    frozen: Prediction | None = None

    @property
    def is_adapted(self) -> bool:
        """Whether what was trained in the model is of use to the head; else it is to be left."""
        return self.adapted is not None and self.adapted.best_epoch > 0

    @property
    def stopped_by(self) -> int | None:
        """The number of the signal that ended the training, or None."""
        return self.history.stopped_by or (self.adapted.stopped_by if self.adapted else None)


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


# Over 60 lines long as two thirds of it are arguments and what they mean.
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
    on_adapting: Callable[[int], object] = lambda residues: None,
    on_adapted: Callable[[History], object] = lambda history: None,
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
            is another one then, which the caller has to keep. It is called with MLX's random
            numbers seeded by adapt_pace.
        adapt_pace: how to train both; None: at a tenth of the rate.
        stop: see `optimise`.
        on_embedded: called with a number of residues whenever that many more are embedded.
        on_epoch: see `optimise`.
        on_adapting: called with the residues of each batch while both are trained.
        on_adapted: as on_epoch, while both are trained.

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
    adapted = frozen = None
    with stop:
        history = optimise(predictor, *given, pace, stop, on_epoch)
        prediction = _predicted(predictor, spec, len(labelled))
        if adapt is not None and stop.received is None:
            slower = adapt_pace or replace(pace, learning_rate=pace.learning_rate / 10)
            mx.random.seed(slower.seed)
            adapt(model)
            both = AdaptedPredictor(head, spec, model, labelled.proteins, on_step=on_adapting)
            adapted, frozen = optimise(both, *given, slower, stop, on_adapted), prediction
            if adapted.best_epoch:
                # Through the model as `predict` runs it.
                features = make_features(maker, labelled.proteins, on_embedded)
                predictor = FrozenPredictor(head, features, BATCH[labelled.level])
                prediction = _predicted(predictor, spec, len(labelled))
    return Fitted(head, spec, history, prediction, adapted, frozen)


def _predicted(predictor: FrozenPredictor, spec: HeadSpec, count: int) -> Prediction:
    """Of the first `count` proteins, which are all."""
    outputs = map(predictor.outputs, predictor.groups(np.arange(count)))
    return as_prediction(np.concatenate([np.array(some) for some in outputs]), spec)


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
