"""The layers that the models are made of, and how a model calls them.

They are mlx.nn's, on this package's ops, so whatever takes an `mlx.nn.Linear`, `LayerNorm` or
`Embedding` takes these. A layer may be replaced by any module that is called in the same way: with
a low-rank product added, quantised, spread over machines. Models call their layers through the
functions below, which alone know the difference: layers of ours run with what follows them in one
op, low-rank products beside them (`low_rank`) and int8 weights (`int8`) too; another is called as
any module is, and the rest is done beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..ops import add_layer_norm, int8_linears, layer_norm, linear, linears
from .int8 import Int8Linear
from .low_rank import LowRankLinear, gelu

# A module of any class: mlx.nn.Module itself does not say that it can be called.
Layer = Any


class Linear(nn.Linear):
    """x weight^T + bias.

    Args:
        inputs, outputs: I and O.
        gain: of Xavier-uniform weights, with zero biases; None: mlx.nn's own initial values.
    """

    def __init__(self, inputs: int, outputs: int, gain: float | None = 1.0):
        super().__init__(inputs, outputs)
        if gain is not None:
            bound = gain * (6 / (inputs + outputs)) ** 0.5
            self.weight = mx.random.uniform(-bound, bound, (outputs, inputs))
            self.bias = mx.zeros((outputs,))

    def __call__(
        self, x: mx.array, *, activation: str | None = None, residual: mx.array | None = None
    ) -> mx.array:
        """activation(x weight^T + bias) + residual, as one op.

        Args:
            x: (..., I).
            activation: None or "gelu".
            residual: (..., O), or None.

        Returns:
            (..., O) in the dtype of x.
        """
        return linear(x, self.weight, self.bias, activation=activation, residual=residual)


class LayerNorm(nn.LayerNorm):
    """The layer norm of x (..., C) with a weight and a bias."""

    def __init__(self, width: int, eps: float):
        super().__init__(width, eps)

    def __call__(self, x: mx.array) -> mx.array:
        return layer_norm(x, self.weight, self.bias, eps=self.eps)


class Embedding(nn.Embedding):
    """A table (rows, C) drawn from N(0, deviation), its row of padding 0."""

    def __init__(self, rows: int, width: int, padding_idx: int, deviation: float = 0.02):
        super().__init__(rows, width)
        self.weight = mx.random.normal((rows, width), scale=deviation)
        self.weight[padding_idx] = 0

    def as_linear(self, x: mx.array, bias: mx.array | None = None) -> mx.array:
        """x (..., C) -> x weight^T + bias, (..., rows)."""
        return linear(x, self.weight, bias)


def project(
    layer: Layer, x: mx.array, *, activation: str | None = None, residual: mx.array | None = None
) -> mx.array:
    """activation(layer(x)) + residual; arguments as those of `Linear`'s call."""
    plain = layer.linear if type(layer) is LowRankLinear else layer
    if type(plain) is Linear or type(layer) is Int8Linear:
        y: mx.array = layer(x, activation=activation, residual=residual)
        return y
    y = layer(x)
    if activation == "gelu":
        y = gelu(y)
    return y if residual is None else y + residual


def project_together(layers: Sequence[Layer], x: mx.array) -> list[mx.array]:
    """Each layer of the same x; low-rank products are added afterwards."""
    if all(type(layer) is Int8Linear for layer in layers):
        lists = ([layer[name] for layer in layers] for name in ("weight", "weight_scale", "bias"))
        return int8_linears(x, *lists)
    plain = [layer.linear if type(layer) is LowRankLinear else layer for layer in layers]
    if not all(type(layer) is Linear for layer in plain):
        return [layer(x) for layer in layers]
    ys = linears(x, [layer.weight for layer in plain], [layer.bias for layer in plain])
    return [
        layer.add_product(y, x) if type(layer) is LowRankLinear else y
        for layer, y in zip(layers, ys, strict=True)
    ]


def add_norm(norm: Layer, x: mx.array, delta: mx.array | None = None) -> tuple[mx.array, mx.array]:
    """x + delta and its layer norm; the gradients of both uses are added up in one pass."""
    if type(norm) is LayerNorm:
        return add_layer_norm(x, delta, norm.weight, norm.bias, eps=norm.eps)
    x = x if delta is None else x + delta
    return x, norm(x)


def whole_table(embedding: Layer, rows: int) -> mx.array:
    """The rows (rows, C) of an embedding, all of them."""
    if type(embedding) is Embedding:
        table: mx.array = embedding.weight
        return table
    table = embedding(mx.arange(rows))
    return table


def project_on_table(embedding: Layer, x: mx.array, bias: mx.array) -> mx.array:
    """x (..., C) times the rows of an embedding, plus bias (rows,) -> (..., rows)."""
    if type(embedding) is Embedding:
        return embedding.as_linear(x, bias)
    y: mx.array = embedding.as_linear(x)
    return y + bias


def affine_map(layer: Layer, inputs: int) -> tuple[mx.array, mx.array]:
    """The weight (O, I) and bias (O,) of a layer of I inputs, if need be by trying it."""
    if type(layer) is Linear:
        return layer.weight, layer.bias
    bias: mx.array = layer(mx.zeros((1, inputs)))[0]
    return (layer(mx.eye(inputs)) - bias).T, bias
