"""One step of training: gradients, clipping, AdamW or Muon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..distributed.ranks import Ranks
from ..models.esm1 import ESM1
from ..models.layers import Linear
from ..models.low_rank import draw_dropout, low_rank_layers
from ..ops import adamw
from .loss import masked_loss
from .muon import Muon, is_of_muon
from .settings import BETAS

EPSILON = 1e-8
NEVER_CLIPPED = 1e30  # float32 divides by it; infinity by infinity would be NaN
# Of float16, whose smallest gradients are lost unless the loss is multiplied: by this at first, by
# half as much where something overflows, by twice as much after so many steps without.
FIRST_SCALE, SMALLEST_SCALE, STEPS_PER_DOUBLING = 2.0**15, 2.0**-10, 2000
Batch = tuple[mx.array, ...]


class TrainStep:
    """Trains a model in place, a step a call: AdamW on `masked_loss`, with clipped gradients.

    Matrices and embeddings decay; biases and LayerNorms do not. Gradients whose global norm (L2
    over all parameters) is above `clip_norm` are scaled down to it first.

    On a GPU the whole step is compiled. On a CPU it is not: there MLX has the machine's C++
    compiler make a dozen kernels at a second or more each, for little.

    Args:
        model: the model.
        weight_decay: share of a weight that decays in a step, times the learning rate.
        clip_norm: the highest norm.
        betas: what stays of the first and of the second moment in a step.
        optimizer: "adamw", or "muon" for the matrices of the layers, see `Muon`, and AdamW for
            the rest.
        dtype: of activations and their gradients. Weights and moments stay float32, and so do the
            statistics of LayerNorms, softmax and the loss.
        seed: of the dropout of low-rank products; with the number of the step it decides it.
        ranks: those that take the step together, each with batches of its own; None: this process.
        compiled: compile the step; None: on a GPU.
    """

    def __init__(
        self,
        model: ESM1,
        *,
        weight_decay: float,
        clip_norm: float,
        betas: tuple[float, float] = BETAS,
        optimizer: str = "adamw",
        dtype: mx.Dtype = mx.float32,
        seed: int = 0,
        ranks: Ranks | None = None,
        compiled: bool | None = None,
    ) -> None:
        self.model, self.weight_decay, self.clip_norm = model, weight_decay, clip_norm
        self.betas, self.dtype, self._seed = betas, dtype, seed
        self._ranks = Ranks() if ranks is None else ranks
        # The factor of the loss, and steps since it changed last.
        self.scale, self.steps_at_scale = (FIRST_SCALE if dtype == mx.float16 else 1.0), 0
        self.steps = 0
        # Found once: to walk through the modules takes a share of a small model's step.
        self._drops = any(layer.dropout for layer in low_rank_layers(model).values())
        names, weights = zip(*tree_flatten(model.trainable_parameters()), strict=True)
        self._names = names
        self._places = [_place(model, name) for name in names]
        # Linear layers read float32 weights whatever the activations are.
        self._stay = [isinstance(module, Linear) for module, _ in self._places]
        by_muon = [
            optimizer == "muon" and is_of_muon(name, weight)
            for name, weight in zip(names, weights, strict=True)
        ]
        self._muon = Muon(weight_decay)
        # Places of the parameters that either steps; Muon's have no second moment.
        self._of_muon = [place for place, it_is in enumerate(by_muon) if it_is]
        self._of_adamw = [place for place, it_is in enumerate(by_muon) if not it_is]
        self._moments = [
            [mx.zeros_like(weight) for weight in weights],
            [mx.zeros_like(weights[place]) for place in self._of_adamw],
        ]
        self._state = [model.state, self._moments]
        self._loss_and_gradients = mx.value_and_grad(self._loss)
        if compiled is None:
            compiled = mx.default_device().type == mx.gpu
        self._run, self._find, self._apply = self._step, self._gradients, self._update
        if compiled:
            stateful = partial(mx.compile, inputs=self._state, outputs=self._state)
            self._run, self._apply = stateful(self._step), stateful(self._update)
            self._find = stateful(self._gradients)

    def __call__(
        self, batch: Batch, rate: float, *others: Batch, shares: Sequence[float] = (1.0,)
    ) -> tuple[float, float]:
        """Take a step.

        Args:
            batch: the arguments of `masked_loss` after the model.
            rate: the learning rate.
            others: further batches. The gradient is that of the weighted mean over the targets of
                all of them, as if they were one, at the memory of one and of one more gradient.
            shares: of each batch, which part of the sum of all weights it has, of whichever rank.

        Returns:
            The loss before the step, and the global norm of its gradient before clipping. If
            either is NaN or infinite, the model is spoilt.
        """
        self.steps += 1
        # Both moments begin at 0; this takes out the bias towards it.
        unbias_1, unbias_2 = (1 / (1 - beta**self.steps) for beta in self.betas)
        # As one array, since what differs from step to step must not be a constant when compiled.
        rates = mx.array([rate, rate * unbias_1 / unbias_2**0.5, EPSILON / unbias_2**0.5])
        batches = [(batch, shares[0]), *zip(others, shares[1:], strict=True)]
        if self.dtype == mx.float16:
            loss, gradients = self._without_overflow(batches)
            norm = self._apply(gradients, rates)
        elif others or self._ranks.count > 1:
            loss, gradients = self._accumulated(batches)
            norm = self._apply(gradients, rates)
        else:
            self._draw_dropout(0)
            loss, norm = self._run(batch, rates)
        mx.eval(loss, norm, self._state)
        if self._drops:
            draw_dropout(self.model, None)
        return float(loss), float(norm)

    def _without_overflow(
        self, batches: Sequence[tuple[Batch, float]]
    ) -> tuple[mx.array, list[mx.array]]:
        """As `_accumulated`, anew at half the scale as long as something overflows."""
        if self.steps_at_scale == STEPS_PER_DOUBLING:
            self.scale, self.steps_at_scale = 2 * self.scale, 0
        self.steps_at_scale += 1
        while True:
            loss, gradients = self._accumulated(batches)
            finite = mx.stack([mx.isfinite(gradient).all() for gradient in gradients]).all()
            if finite.item() or self.scale <= SMALLEST_SCALE:
                return loss, gradients
            self.scale, self.steps_at_scale = self.scale / 2, 0

    def _accumulated(
        self, batches: Sequence[tuple[Batch, float]]
    ) -> tuple[mx.array, list[mx.array]]:
        """The loss and the gradients of all batches, of all ranks, one after the other."""
        sums: list[mx.array] = []
        for number, (batch, part) in enumerate(batches):
            mx.eval(sums)  # before the next batch needs the memory
            self._draw_dropout(number)
            # The scale is a power of two: it leaves no trace where nothing was too small.
            share = mx.array(part / self.scale * self._ranks.count)
            found = [x * share for x in self._find(batch, mx.array(self.scale))]
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        loss, *gradients = self._ranks.mean(sums)
        mx.eval(loss, gradients)
        return loss, gradients

    def _draw_dropout(self, batch: int) -> None:
        """Other numbers are left out in each batch of each step of each rank."""
        if self._drops:
            draw_dropout(self.model, (self._seed, self.steps, self._ranks.number, batch))

    def arrays(self) -> dict[str, mx.array]:
        """Both moments of the parameters: `moment_1.NAME` and `moment_2.NAME`."""
        return {
            f"moment_{number}.{name}": moment
            for number, (names, moments) in enumerate(
                zip(self._names_of_moments(), self._moments, strict=True), start=1
            )
            for name, moment in zip(names, moments, strict=True)
        }

    def set_arrays(self, arrays: Mapping[str, mx.array], steps: int) -> None:
        """Go on from what `arrays` gave after `steps` steps; other names are left aside."""
        for place, names in enumerate(self._names_of_moments()):
            self._moments[place] = [arrays[f"moment_{place + 1}.{name}"] for name in names]
        self.steps = steps

    def _names_of_moments(self) -> tuple[list[str], list[str]]:
        """The parameters that have a first moment, and a second."""
        return list(self._names), [self._names[place] for place in self._of_adamw]

    def _step(self, batch: Batch, rates: mx.array) -> tuple[mx.array, mx.array]:
        loss, *gradients = self._gradients(batch)
        return loss, self._update(gradients, rates)

    def _gradients(self, batch: Batch, scale: mx.array | None = None) -> list[mx.array]:
        """The loss, and the gradient of each parameter, both times the scale."""
        weights = self._weights()
        loss, gradients = self._loss_and_gradients(weights, scale, *batch)
        self._set(weights)  # in place of what the gradient was traced through
        return [loss, *gradients]

    def _weights(self) -> list[mx.array]:
        return [module[key] for module, key in self._places]

    def _update(self, gradients: list[mx.array], rates: mx.array) -> mx.array:
        """Take the step, and give the norm of the gradients before clipping."""
        weights, clip_norm = self._weights(), self.clip_norm
        first, second = self._moments
        if self._of_muon:
            # AdamW's op knows the norm of what it is given alone.
            norm = mx.sqrt(mx.stack([g.square().sum() for g in gradients]).sum())
            gradients = [g * (clip_norm / mx.maximum(norm, clip_norm)) for g in gradients]
            clip_norm = NEVER_CLIPPED
        new, momenta = list(weights), list(first)

        def of(places: list[int], arrays: list[mx.array]) -> list[mx.array]:
            return [arrays[place] for place in places]

        def put(places: list[int], found: list[mx.array], found_momenta: list[mx.array]) -> None:
            for place, weight, momentum in zip(places, found, found_momenta, strict=True):
                new[place], momenta[place] = weight, momentum

        some = self._of_adamw
        found, found_momenta, self._moments[1], norm_of_adamw = adamw(
            of(some, weights),
            of(some, gradients),
            of(some, first),
            second,
            rates,
            beta_1=self.betas[0],
            beta_2=self.betas[1],
            weight_decay=self.weight_decay,
            clip_norm=clip_norm,
        )
        put(some, found, found_momenta)
        some = self._of_muon
        put(some, *self._muon(of(some, weights), of(some, gradients), of(some, first), rates[0]))
        self._moments[0] = momenta
        self._set(new)
        return norm if self._of_muon else norm_of_adamw

    def _loss(self, weights: list[mx.array], scale: mx.array | None, *batch: mx.array) -> mx.array:
        if self.dtype != mx.float32:
            weights = [
                weight if stays else weight.astype(self.dtype)
                for weight, stays in zip(weights, self._stay, strict=True)
            ]
        self._set(weights)
        loss = masked_loss(self.model, *batch)
        return loss if scale is None else loss * scale

    def _set(self, weights: list[mx.array]) -> None:
        # Place by place: MLX's way over nested dicts takes a tenth of a small model's step.
        for (module, key), weight in zip(self._places, weights, strict=True):
            module[key] = weight


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds the parameter `a.0.b`, and what it calls it."""
    *path, key = name.split(".")
    module: Any = model
    for part in path:
        module = module[int(part) if isinstance(module, list) else part]
    return module, key
