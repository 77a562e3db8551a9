"""One step of training: gradients, clipping, AdamW; and the learning rate of each step."""

from __future__ import annotations

from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten, tree_unflatten

from .model import ESM1
from .objective import masked_loss

# Shorter memories than Adam's 0.9 and 0.999, for runs of some hundred or thousand steps: on the
# sample 0.8 saves a quarter of the steps that 0.9 needs. 0.98 is fairseq's for RoBERTa.
BETA_1, BETA_2 = 0.8, 0.98
EPSILON = 1e-8
GROUP_SIZE = 1 << 18  # numbers; passes over longer arrays cost more than calls do


class TrainStep:
    """Trains a model in place, a step a call: AdamW on `masked_loss`, with clipped gradients.

    Matrices and embeddings decay; biases and LayerNorms do not. Gradients whose global norm (L2
    over all parameters) is above `clip_norm` are scaled down to it first.

    AdamW is written out here because MLX's own runs twice as many elementwise ops on each
    parameter, and most parameters are so small that calls cost more than sums: here the small ones
    are joined first. On a GPU the whole step is compiled. On a CPU it is not: there MLX has the
    machine's C++ compiler make 25 kernels at a second or more each, and a step gains 2 % at most.

    Args:
        model: the model.
        weight_decay: share of a weight that decays in a step, times the learning rate.
        clip_norm: the highest norm.
        compiled: compile the step; None: on a GPU.
    """

    def __init__(
        self, model: ESM1, *, weight_decay: float, clip_norm: float, compiled: bool | None = None
    ) -> None:
        self.model, self.weight_decay, self.clip_norm = model, weight_decay, clip_norm
        self.steps = 0
        parameters = dict(tree_flatten(model.trainable_parameters()))
        self._groups = _join_small(parameters)
        self._moments = [[mx.zeros_like(flat)] * 2 for flat in self._joined(parameters)]
        self._state = [model.state, self._moments]
        self._loss_and_gradients = value_and_grad(model, masked_loss)
        if compiled is None:
            compiled = mx.default_device().type == mx.gpu
        self._run = self._step
        if compiled:
            self._run = partial(mx.compile, inputs=self._state, outputs=self._state)(self._step)

    def __call__(self, question: tuple[mx.array, ...], rate: float) -> tuple[float, float]:
        """Take a step.

        Args:
            question: the arguments of `masked_loss` after the model.
            rate: the learning rate.

        Returns:
            The loss before the step, and the global norm of its gradient before clipping. If
            either is NaN or infinite, the model is spoilt.
        """
        self.steps += 1
        # Both moments begin at 0; this takes out the bias towards it.
        unbias_1, unbias_2 = (1 / (1 - beta**self.steps) for beta in (BETA_1, BETA_2))
        # As one array, since what differs from step to step must not be a constant when compiled.
        scalars = mx.array([rate, rate * unbias_1 / unbias_2**0.5, EPSILON / unbias_2**0.5])
        loss, norm = self._run(question, scalars)
        mx.eval(loss, norm, self._state)
        return float(loss), float(norm)

    def _step(self, question: tuple[mx.array, ...], scalars: mx.array) -> tuple[mx.array, mx.array]:
        loss, gradients = self._loss_and_gradients(self.model, *question)
        return loss, self._adamw(dict(tree_flatten(gradients)), scalars)

    def _adamw(self, gradients: dict[str, mx.array], scalars: mx.array) -> mx.array:
        """Loshchilov and Hutter 2019, algorithm 2, in the order of Kingma and Ba's section 2.

        With g the clipped gradient: m = beta_1 m + (1 - beta_1) g, v = beta_2 v + (1 - beta_2) g^2
        and w -= rate (unbias_1 m / (sqrt(unbias_2 v) + epsilon) + weight_decay w). All factors
        are gathered into scalars first; what is left are thirteen passes over each parameter.
        """
        rate, scaled_rate, scaled_epsilon = scalars
        flat_gradients = self._joined(gradients)
        squares = [mx.sum(mx.square(gradient)) for gradient in flat_gradients]
        norm = mx.sqrt(mx.sum(mx.stack(squares)))
        clip = self.clip_norm / mx.maximum(norm, self.clip_norm)
        share_1, share_2 = (1 - BETA_1) * clip, (1 - BETA_2) * mx.square(clip)
        kept = 1 - rate * self.weight_decay

        old = dict(tree_flatten(self.model.trainable_parameters()))
        new: list[tuple[str, Any]] = []
        steps = zip(self._groups, flat_gradients, self._joined(old), self._moments, strict=True)
        for names, gradient, w, moments in steps:
            m, v = moments
            m = BETA_1 * m + share_1 * gradient
            v = BETA_2 * v + share_2 * mx.square(gradient)
            w = kept * w if old[names[0]].ndim > 1 else w
            w = w - scaled_rate * m / (mx.sqrt(v) + scaled_epsilon)
            moments[:] = [m, v]
            ends = np.cumsum([old[name].size for name in names])[:-1].tolist()
            parts = mx.split(w, ends)
            new += [
                (name, part.reshape(old[name].shape))
                for name, part in zip(names, parts, strict=True)
            ]
        self.model.update(tree_unflatten(new))
        return norm

    def _joined(self, arrays: dict[str, mx.array]) -> list[mx.array]:
        """One flat array for each group."""
        return [
            mx.concatenate([arrays[name].reshape(-1) for name in names]) for names in self._groups
        ]


def _join_small(parameters: dict[str, mx.array]) -> list[list[str]]:
    """Names in groups that decay alike, each of at most GROUP_SIZE numbers or one parameter."""
    groups: list[list[str]] = []
    for decays in (True, False):
        size = GROUP_SIZE
        for name, parameter in parameters.items():
            if (parameter.ndim > 1) != decays:
                continue
            size += parameter.size
            if size > GROUP_SIZE:
                groups.append([])
                size = parameter.size
            groups[-1].append(name)
    return groups


def learning_rate(peak: float, step: int, warmup: int, done: float) -> float:
    """The rate of a step: linear increase over `warmup` steps, times linear decay to 0.

    Args:
        peak: the highest rate.
        step: steps taken so far, from 0.
        warmup: steps of increase.
        done: the share of the run that is over, from 0 to 1.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return peak * rise * max(0.0, 1 - done)
