"""Epochs of AdamW until the validation part has not improved for a while; the best one is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten, tree_unflatten

from ..data.labelled import Labelled
from ..ops import adamw
from ..system.errors import UserError
from ..system.interrupt import StopOnSignal
from .head import HeadSpec, loss

Ints = npt.NDArray[np.int64]
BETAS, EPSILON, CLIP_NORM = (0.9, 0.999), 1e-8, 1.0


class Predictor(Protocol):
    """What gives outputs of proteins by their places, and has parameters that train."""

    @property
    def trained(self) -> nn.Module:
        """Whose parameters train."""

    def groups(self, places: Ints) -> Iterator[Ints]:
        """The places in order, as many at a time as make a batch."""

    def outputs(self, places: Ints) -> mx.array:
        """(rows of all of them, O) float32, protein after protein."""


def in_batches(places: Ints, costs: Ints, budget: int) -> Iterator[Ints]:
    """Places in order, as many at a time as fit a budget by their costs (N,); one at least."""
    ends = np.cumsum(costs)
    first = 0
    while first < len(places):
        before = int(ends[first - 1]) if first else 0
        end = max(first + 1, int(np.searchsorted(ends, before + budget, side="right")))
        yield places[first:end]
        first = end


@dataclass(frozen=True)
class Pace:
    """How a head is trained.

    Attributes:
        learning_rate, weight_decay: AdamW's; matrices decay, biases do not.
        max_epochs: the most epochs.
        patience: epochs without a lower loss of the validation part after which training ends.
        seed: of the order of the proteins, and of first weights.
        rate_flag: what a person calls learning_rate.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    max_epochs: int = 500
    patience: int = 20
    seed: int = 42
    rate_flag: str = "--learning-rate"


@dataclass
class History:
    """What training did.

    Attributes:
        train_losses, valid_losses: of each epoch; see `loss`. The former is taken on the way.
        start_loss: of the validation part, before the first epoch.
        best_epoch: the one whose parameters were kept, from 1; 0: those before the first.
        stopped_by: the number of a signal, or None.
    """

    train_losses: list[float] = field(default_factory=list)
    valid_losses: list[float] = field(default_factory=list)
    start_loss: float = math.inf
    best_epoch: int = 0
    stopped_by: int | None = None


def optimise(
    predictor: Predictor,
    labelled: Labelled,
    train: Ints,
    valid: Ints,
    spec: HeadSpec,
    pace: Pace,
    stop: StopOnSignal,
    on_epoch: Callable[[History], object] = lambda history: None,
) -> History:
    """Train what the predictor lets train, in place; it has the parameters of the best epoch then.

    Args:
        predictor: gives the outputs.
        labelled: the targets of all proteins.
        train, valid: places of the proteins to learn from, and to choose the epoch by.
        spec: of the head.
        pace: how.
        stop: a signal ends training after its step, with the best epoch until then.
        on_epoch: called after each epoch.

    Raises:
        UserError: the loss is NaN or infinite.
    """
    losses = _Losses(predictor, labelled, spec)
    train, valid = losses.with_targets(train), losses.with_targets(valid)

    def loss_of_valid() -> float:
        return losses.mean((some, float(losses(some))) for some in predictor.groups(valid))

    step = _Step(predictor.trained, losses, pace)
    rng = np.random.default_rng(pace.seed)
    history, best = History(start_loss=loss_of_valid()), _parameters(predictor.trained)
    lowest = history.start_loss
    while len(history.valid_losses) < pace.max_epochs and stop.received is None:
        order = predictor.groups(rng.permutation(train))
        taken = ((some, step(some)) for some in order if stop.received is None)
        train_loss = losses.mean(taken)
        valid_loss = loss_of_valid()
        if not math.isfinite(train_loss + valid_loss):
            raise UserError(
                f"the loss is no longer a number in epoch {len(history.valid_losses) + 1}; give a "
                f"lower {pace.rate_flag} than {pace.learning_rate:g}."
            )
        history.train_losses.append(train_loss)
        history.valid_losses.append(valid_loss)
        if valid_loss < lowest:
            lowest, best = valid_loss, _parameters(predictor.trained)
            history.best_epoch = len(history.valid_losses)
        on_epoch(history)
        if len(history.valid_losses) - history.best_epoch >= pace.patience:
            break
    history.stopped_by = stop.received
    predictor.trained.update(tree_unflatten(list(best.items())))
    return history


class _Losses:
    """The loss of proteins by their places, on the targets that are known."""

    def __init__(self, predictor: Predictor, labelled: Labelled, spec: HeadSpec) -> None:
        self._predictor, self._labelled, self._spec = predictor, labelled, spec
        self._known = [~np.isnan(labelled.of_protein(i)) for i in range(len(labelled))]

    def __call__(self, places: Ints) -> mx.array:
        """Of one batch, as `loss` has it."""
        of_proteins = [self._labelled.of_protein(i) for i in places.tolist()]
        rows = np.flatnonzero(np.concatenate([self._known[i] for i in places.tolist()]))
        outputs = self._predictor.outputs(places)[mx.array(rows)]
        return loss(outputs, mx.array(np.concatenate(of_proteins)[rows], mx.float32), self._spec)

    def with_targets(self, places: Ints) -> Ints:
        """Those of some proteins of which a target is known."""
        return places[[bool(self._known[i].any()) for i in places.tolist()]]

    def mean(self, losses: Iterable[tuple[Ints, float]]) -> float:
        """The mean over the targets of batches, each with its loss."""
        total = count = 0.0
        for places, value in losses:
            size = sum(int(self._known[i].sum()) for i in places.tolist())
            total, count = total + value * size, count + size
        return total / max(count, 1)


class _Step:
    """AdamW on the parameters of a module that train, with clipped gradients."""

    def __init__(
        self, trained: nn.Module, batch_loss: Callable[[Ints], mx.array], pace: Pace
    ) -> None:
        self._trained, self._pace = trained, pace
        self._loss_and_gradients = nn.value_and_grad(trained, batch_loss)
        self._moments: list[list[mx.array]] = [
            [mx.zeros_like(parameter) for parameter in _parameters(trained).values()]
            for _ in range(2)
        ]
        self._steps = 0

    def __call__(self, places: Ints) -> float:
        """Take a step; the loss before it."""
        value, gradients = self._loss_and_gradients(places)
        self._steps += 1
        unbias_1, unbias_2 = (1 / (1 - beta**self._steps) for beta in BETAS)
        rate = self._pace.learning_rate
        rates = mx.array([rate, rate * unbias_1 / unbias_2**0.5, EPSILON / unbias_2**0.5])
        parameters, by_name = _parameters(self._trained), dict(tree_flatten(gradients))
        m, v = self._moments
        new, *self._moments, _ = adamw(
            list(parameters.values()),
            [by_name[name] for name in parameters],
            m,
            v,
            rates,
            beta_1=BETAS[0],
            beta_2=BETAS[1],
            weight_decay=self._pace.weight_decay,
            clip_norm=CLIP_NORM,
        )
        self._trained.update(tree_unflatten(list(zip(parameters, new, strict=True))))
        mx.eval(value, new, self._moments)
        return float(value)


def _parameters(trained: nn.Module) -> Mapping[str, mx.array]:
    return dict(tree_flatten(trained.trainable_parameters()))
