"""A problem of layer_norm and add_layer_norm, as those of problems.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import rounding
import truth
from arrays import arrange
from closeness import as_numpy
from problems import ArraysByName
from truth import Array


@dataclass(frozen=True)
class LayerNormProblem(ArraysByName):
    """layer_norm of (..., C) rows about an offset; with a residual, s and y stacked as one output.

    residual: "none"; "through": add_layer_norm without a delta; "added": with one.
    """

    rows: tuple[int, ...]
    width: int
    dtype: str = "float32"
    residual: str = "none"
    offset: float = 0.5
    eps: float = 1e-5
    layouts: tuple[str, ...] = ("contiguous",) * 3  # of x, delta, the cotangent
    seed: int = 0

    def _make(self) -> dict[str, mx.array | None]:
        rng = np.random.default_rng(self.seed)
        shape = (*self.rows, self.width)
        out = shape if self.residual == "none" else (2, *shape)
        x = rng.standard_normal(shape) + self.offset
        weight, bias = rng.standard_normal((2, self.width))
        delta = arrange(rng.standard_normal(shape), self.layouts[1], self.dtype)
        return {
            "x": arrange(x, self.layouts[0], self.dtype),
            "weight": arrange(weight, "contiguous", self.dtype),
            "bias": arrange(bias, "contiguous", self.dtype),
            "delta": delta if self.residual == "added" else None,
            "dnormed": arrange(rng.standard_normal(out), self.layouts[2], self.dtype),
        }

    @property
    def names(self) -> tuple[str, ...]:
        return ("normed", *(f"d{name}" for name in self.arrays if name != "dnormed"))

    @property
    def differentiable(self) -> tuple[mx.array, ...]:
        return tuple(x for name, x in self.arrays.items() if name != "dnormed")

    @property
    def cotangent(self) -> mx.array:
        return self.arrays["dnormed"]

    def call(self, module: Any, *differentiable: mx.array, **options: Any) -> mx.array:
        x, weight, bias, *delta = differentiable
        if self.residual == "none":
            y: mx.array = module.layer_norm(x, weight, bias, eps=self.eps, **options)
            return y
        d = delta[0] if delta else None
        return mx.stack(module.add_layer_norm(x, d, weight, bias, eps=self.eps, **options))

    def clean(self) -> LayerNormProblem:
        return self

    def answers(self) -> tuple[dict[str, Array], dict[str, Array]]:
        a = {name: as_numpy(x) for name, x in self.arrays.items()}
        s, dy = a["x"] + a.get("delta", 0), a["dnormed"]
        ds, dy = (0 * dy, dy) if self.residual == "none" else dy
        found = truth.layer_norm_gradients(dy, s, a["weight"], eps=self.eps)
        y = truth.layer_norm(s, a["weight"], a["bias"], eps=self.eps)
        added = self.residual == "added"
        options: dict[str, Any] = {"dtype": self.dtype, "eps": self.eps, "rounds_s": added}
        unit = rounding.layer_norm(dy, s, a["weight"], a["bias"], **options)
        found["dx"], unit["dx"] = found.pop("ds") + ds, unit.pop("ds")
        unit["dx"] = unit["dx"] + rounding.EPS[self.dtype] * (np.abs(ds) + np.abs(found["dx"]))
        found["normed"], unit["normed"] = y, unit.pop("y")
        if self.residual != "none":
            s_unit = rounding.EPS[self.dtype] * np.abs(s)
            found["normed"], unit["normed"] = np.stack([s, y]), np.stack([s_unit, unit["normed"]])
        if added:
            found["ddelta"], unit["ddelta"] = found["dx"], unit["dx"]
        return found, unit
