"""The cases of what is ours on a CPU alone: linear, its int8 form, layer_norm and adamw."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from .. import _ext
from . import rounding, truth
from .cases import normal
from .judging import Case
from .truth import Array

ROWS, INPUTS, OUTPUTS = (3, 37), 72, 101
INT8_INPUTS = 73  # a last step of one byte, where four are multiplied at once


def linear_cases() -> Iterator[Case]:
    """With and without a bias, GELU and a residual."""
    rng = np.random.default_rng(0)
    x, weight = normal(rng, *ROWS, INPUTS), normal(rng, OUTPUTS, INPUTS) / 8
    bias, residual, dy = (normal(rng, *shape) for shape in ((OUTPUTS,), *[(*ROWS, OUTPUTS)] * 2))
    for activation, has_residual in itertools.product((None, "gelu"), (False, True)):
        words = [activation or "plain"] + ["residual"] * has_residual
        inputs = [x, weight, bias] + [residual] * has_residual
        yield _linear(" ".join(words), inputs, dy, activation)


def _linear(name: str, inputs: list[Array], dy: Array, activation: str | None) -> Case:
    x, weight, bias, *residual = inputs
    true = {"y": truth.linear(x, weight, bias, activation=activation)}
    true |= truth.linear_gradients(dy, x, weight, bias, activation=activation)
    if residual:
        true |= {"y": true["y"] + residual[0], "dresidual": dy}

    def call(*y: mx.array, stream: Any) -> mx.array:
        options: dict[str, Any] = {"residual": y[3]} if residual else {}
        return _ext.linear(*y[:3], activation=activation, **options, stream=stream)

    @functools.cache
    def units(dtype: str) -> dict[str, Array]:
        found = rounding.linear(dy, x, weight, bias, dtype=dtype, activation=activation)
        if residual:
            eps = rounding.EPS[dtype]
            found["y"] = found["y"] + eps * np.abs(residual[0])
            found["dresidual"] = eps * np.abs(dy)
        return found

    return Case(name, tuple(true), tuple(inputs), dy, call, true, units)


def int8_linear_cases() -> Iterator[Case]:
    """As those of linear, of bytes of any size; and of rows that are not like the others."""
    rng = np.random.default_rng(0)
    x = normal(rng, *ROWS, INT8_INPUTS)
    weight = rng.integers(-128, 128, (OUTPUTS, INT8_INPUTS)).astype(np.int8)
    scale = (64 + rng.integers(0, 64, OUTPUTS)) / 2.0**16
    bias, residual = normal(rng, OUTPUTS), normal(rng, *ROWS, OUTPUTS)
    for activation, has_residual in itertools.product((None, "gelu"), (False, True)):
        words = [activation or "plain"] + ["residual"] * has_residual
        inputs = [x, bias] + [residual] * has_residual
        yield _int8_linear(" ".join(words), inputs, weight, scale, activation)
    # Beside rows of nothing, and of what no number comes of, sums that 16 bits would not hold.
    rows, far = x.copy(), weight.copy()
    rows[0, :5] = np.array([4.0, -4.0, 0.0, np.nan, np.inf])[:, None]
    rows[1, :2, -1] = np.nan, -np.inf
    far[::3], far[1::3] = -128, 127
    yield _int8_linear("far rows", [rows, bias], far, scale, None)


def _int8_linear(
    name: str, inputs: list[Array], weight: Array, scale: Array, activation: str | None
) -> Case:
    """It has no gradients; inputs: x, the bias and maybe a residual."""
    x, bias, *residual = inputs
    options: dict[str, Any] = {"activation": activation}
    exact = options | {"residual": residual[0] if residual else None}
    y = truth.int8_linear(x, weight, scale, bias, **exact)

    def call(x: mx.array, bias: mx.array, *residual: mx.array, stream: Any) -> mx.array:
        fixed = mx.array(weight), mx.array(scale.astype(np.float32))
        given = options | ({"residual": residual[0]} if residual else {})
        return _ext.int8_linear(x, *fixed, bias, **given, stream=stream)

    @functools.cache
    def units(dtype: str) -> dict[str, Array]:
        return rounding.int8_linear(x, weight, scale, bias, dtype=dtype, **exact)

    return Case(name, ("y",), tuple(inputs), y, call, {"y": y}, units)


def layer_norm_cases() -> Iterator[Case]:
    """Of rows about 0, and of rows far from it."""
    rng = np.random.default_rng(0)
    shape, eps = (*ROWS, OUTPUTS), 1e-5
    weight, bias = normal(rng, OUTPUTS), normal(rng, OUTPUTS)
    s, dy = normal(rng, *shape), normal(rng, *shape)
    for name, rows in (("centred", s), ("far from 0", np.round(s) + 64)):
        true = {"y": truth.layer_norm(rows, weight, bias, eps=eps)}
        true |= truth.layer_norm_gradients(dy, rows, weight, eps=eps)

        def call(*x: mx.array, stream: Any) -> mx.array:
            return _ext.layer_norm(*x, eps=eps, stream=stream)

        def units(dtype: str, s: Array = rows) -> dict[str, Array]:
            return rounding.layer_norm(dy, s, weight, bias, dtype=dtype, eps=eps, rounds_s=False)

        yield Case(name, tuple(true), (rows, weight, bias), dy, call, true, units)


def adamw_cases() -> Iterator[Case]:
    """A step with gradients that are clipped, and one with gradients that are not; in float32."""
    for name, clip_norm in (("clipped", 1.0), ("not clipped", 1e4)):
        rng = np.random.default_rng(0)
        arrays = {name: normal(rng, 65, 130) for name in "wgm"}
        arrays["v"] = np.abs(normal(rng, 65, 130)) + 0.25
        options: dict[str, Any] = {
            "beta_1": 0.9,
            "beta_2": 0.98,
            "weight_decay": 0.01,
            "clip_norm": clip_norm,
        }
        for result in ("w", "m", "v"):
            yield _adamw(f"{name}, new {result}", result, arrays, options)


def _adamw(name: str, result: str, arrays: dict[str, Array], options: dict[str, Any]) -> Case:
    """It has no gradients: one of its results is a case's output."""
    rate, t, epsilon = 1e-2, 3, 1e-8
    kept_1, kept_2 = 1 - options["beta_1"] ** t, (1 - options["beta_2"] ** t) ** 0.5
    exact = truth.adamw(arrays, rate=rate, t=t, epsilon=epsilon, **options)
    old = arrays[result] if result != "w" else np.abs(arrays["w"]) + rate
    size = np.abs(old) + np.abs(exact[result]) + np.abs(arrays["g"]) ** (2 if result == "v" else 1)

    def call(*_: mx.array, stream: Any) -> mx.array:
        rates = mx.array([rate, rate * kept_2 / kept_1, epsilon * kept_2])
        old = [[mx.array(arrays[name].astype(np.float32))] for name in "wgmv"]
        w, m, v, _norm = _ext.adamw(old[0], old[1], old[2], old[3], rates, **options, stream=stream)
        return {"w": w, "m": m, "v": v}[result][0]

    def units(dtype: str) -> dict[str, Array]:
        return {result: rounding.EPS[dtype] * size}

    return Case(name, (result,), (), exact[result], call, {result: exact[result]}, units)


CPU_CASES: dict[str, Callable[[], Iterator[Case]]] = {
    "linear": linear_cases,
    "int8_linear": int8_linear_cases,
    "layer_norm": layer_norm_cases,
    "adamw": adamw_cases,
}
